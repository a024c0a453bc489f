//! One replicated group: openraft, its log, a state machine, and what callers see of them.

mod admission;
mod batcher;
mod core;
mod endpoint;
mod forward;
mod kinds;
mod leadership;
mod proposal;
mod read;
mod replicator;
mod shutdown;
mod transfer;

pub use self::core::{Group, GroupStatus};
