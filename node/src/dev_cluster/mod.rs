//! A whole cluster on this machine: its nodes are processes of this same binary, and die with this one.

mod cluster;
mod demo;
mod endpoints;
mod error;
mod folder;
mod node;
mod options;
mod watch;

pub use cluster::DevCluster;
pub use demo::{Counts, Demo};
pub use endpoints::Endpoints;
pub use error::Error;
pub use node::Node;
pub use options::Options;

/// Names the process without which a node shall not live on.
pub const PARENT_PID: &str = "MESSAGE_HUB_PARENT_PID";
