//! The workers: what a node does besides answering requests.

pub mod delivery;
pub mod health_checker;
pub mod sweeper;
