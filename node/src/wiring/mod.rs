//! Puts the parts of a node together.

pub mod address;
mod node;
pub mod targets;

pub use node::Node;
