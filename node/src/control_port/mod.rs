//! What operators ask of a node about its cluster, answered from its groups.

mod follow;
mod led;
mod port;
mod quorum;
mod readiness;
mod steer;

pub use follow::{Followed, Seen, follow};
pub use led::{Led, LedGroups};
pub use port::{ControlPort, Parts, Peers, StoreChecks};
pub use quorum::{removal, without};
pub use readiness::{Facts, GroupFacts, disk_check, readiness};
pub use steer::{Steered, hand_over};

#[cfg(test)]
mod tests;
