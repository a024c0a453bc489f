//! Puts the parts of a node together.

pub mod address;
mod node;

pub use node::Node;
