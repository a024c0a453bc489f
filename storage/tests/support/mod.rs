//! What the model test is made of.

pub(crate) mod audit;
pub(crate) mod command;
pub(crate) mod dump;
pub(crate) mod model;
