//! Time: how the hub writes moments down, and how a leader keeps the cluster's time.

mod leader_clock;
mod timestamp;

pub use leader_clock::{LeaderClock, OffMedian, Sample};
pub use timestamp::Timestamp;
