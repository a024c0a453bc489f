//! A node's verdict on a target.

use serde::{Deserialize, Serialize};

use super::{Config, Counts};

/// Why a verdict is unhealthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Too many failures one after the other.
    Consecutive,
    /// Too many failures among the calls.
    FailureRate,
    /// Too many slow calls among the calls.
    SlowRate,
}

impl Cause {
    /// The verdict on the counts: `None` is healthy.
    #[must_use]
    pub const fn of(counts: &Counts, config: &Config) -> Option<Self> {
        if counts.consecutive >= config.failure_threshold {
            return Some(Self::Consecutive);
        }
        if counts.calls < config.min_calls || counts.calls == 0 {
            return None;
        }
        if reaches(counts.failures, counts.calls, config.failure_permille) {
            return Some(Self::FailureRate);
        }
        if config.slow_ms.is_some() && reaches(counts.slow, counts.calls, config.slow_permille) {
            return Some(Self::SlowRate);
        }
        None
    }

    /// Whether counts with a fresh success speak against a verdict of this cause: one success ends a streak, but says
    /// nothing about a rate; for that a third of the calls that make a verdict must be there, and make none.
    #[must_use]
    pub fn is_contradicted(self, counts: &Counts, config: &Config) -> bool {
        if Self::of(counts, config).is_some() {
            return false;
        }
        if self == Self::Consecutive {
            return true;
        }
        let enough = counts.calls.saturating_mul(3) >= config.min_calls && counts.calls > 0;
        let slow = config.slow_ms.is_some() && reaches(counts.slow, counts.calls, config.slow_permille);
        enough && !slow && !reaches(counts.failures, counts.calls, config.failure_permille)
    }
}

const fn reaches(part: u32, whole: u32, permille: u16) -> bool {
    part as u64 * 1_000 >= whole as u64 * permille as u64
}
