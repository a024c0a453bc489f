//! What calls of a target add up to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::Evidence;
use crate::time::Timestamp;

/// One call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// What its answer says about the target.
    pub evidence: Evidence,
    /// How long it took.
    pub took: Duration,
    /// The target asked to be left alone for so long.
    pub retry_after: Option<Duration>,
}

/// Calls of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Counts {
    /// All that say something about the target.
    pub calls: u32,
    /// Those that failed or were throttled.
    pub failures: u32,
    /// Those that took too long, whatever came of them.
    pub slow: u32,
    /// Failures since the last success, throttles left out. Not bound to the window.
    pub consecutive: u32,
}

/// What a node sees of a target at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The calls.
    pub counts: Counts,
    /// First failure since the last success.
    pub streak_began: Option<Timestamp>,
    /// Oldest time in the window from which on a call may have been bad (failed, throttled or slow).
    pub bad_since: Option<Timestamp>,
    /// Newest success.
    pub last_success: Option<Timestamp>,
    /// Newest failure or throttle.
    pub last_failure: Option<Timestamp>,
}
