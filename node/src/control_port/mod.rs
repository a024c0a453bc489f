//! What operators ask of a node about its cluster, answered from both groups.

mod quorum;
mod readiness;

pub use quorum::without;
pub use readiness::{Facts, GroupFacts, readiness};
