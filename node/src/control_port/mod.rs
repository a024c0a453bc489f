//! What operators ask of a node about its cluster, answered from both groups.

mod follow;
mod port;
mod quorum;
mod readiness;
mod steer;

pub use follow::{Followed, Seen, follow};
pub use port::{ControlPort, Parts, Peers};
pub use quorum::{removal, without};
pub use readiness::{Facts, GroupFacts, readiness};
pub use steer::{Steered, hand_over};

#[cfg(test)]
mod tests;
