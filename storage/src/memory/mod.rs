//! What needs no server: the shared cache of a node that has none.

mod cache;

pub use cache::{LiveNodes, LocalCache};
