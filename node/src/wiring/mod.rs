//! Puts the parts of a node together.

pub mod address;
pub mod base;
pub mod delivery;
pub mod drain;
pub mod forming;
mod node;
pub mod targets;

pub use node::Node;
