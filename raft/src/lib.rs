//! Replicated groups over openraft. No other crate names openraft.

mod config;
mod failure;
mod group;
mod log_store;
mod membership;
mod metrics;
mod network;
mod peers;
mod proto;
mod spawn;
mod state_machine;
#[cfg(test)]
#[path = "../tests/cluster/toy.rs"]
mod toy;
mod type_config;

pub use config::{GroupOptions, Profile};
pub use failure::GroupFailure;
pub use group::{Group, GroupStatus};
pub use log_store::{LogOptions, OpenError, Rebuild, Remains};
pub use membership::{Card, ControlGroup, JoinError, Joined, Joiner, Keeper, KeeperOptions};
pub use network::{ClusterKey, HandshakeError, Refusal, Transport, TransportOptions};
pub use peers::Peers;
pub use state_machine::{MemoryOptions, MemoryState, View};
