//! The retry schedule: full jitter, `uniform(0, min(cap, base * 2^n))`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a service wants failed deliveries repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// First step; default 1 s. Milliseconds.
    pub base_ms: u32,
    /// Longest step, and the longest `Retry-After` that is honoured; default 1 h. Milliseconds.
    pub cap_ms: u32,
    /// Retries after the first attempt, 0 to 100; the hub's `MAX_RETRIES` (12) if `None`.
    pub max_retries: Option<u8>,
    /// Further status codes (3xx, 4xx) that are retried instead of buried.
    pub retry_on: Vec<u16>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base_ms: 1_000, cap_ms: 3_600_000, max_retries: None, retry_on: Vec::new() }
    }
}

impl RetryPolicy {
    /// The widest wait before retry `n` (0 for the first): `min(cap, base * 2^n)`.
    #[must_use]
    pub fn ceiling(&self, n: u32) -> Duration {
        let step = u64::from(self.base_ms).saturating_mul(1_u64.checked_shl(n).unwrap_or(u64::MAX).max(1));
        Duration::from_millis(step.min(u64::from(self.cap_ms)))
    }

    /// The wait before retry `n`: uniform below [`Self::ceiling`] (`below` gives the chance), but not before the
    /// target's own `retry_after`, honoured up to the cap.
    pub fn delay(&self, n: u32, retry_after: Option<Duration>, below: impl FnOnce(u64) -> u64) -> Duration {
        let ceiling = u64::try_from(self.ceiling(n).as_millis()).unwrap_or(u64::MAX);
        let jittered = Duration::from_millis(below(ceiling.saturating_add(1)));
        let asked = retry_after.unwrap_or_default().min(Duration::from_millis(u64::from(self.cap_ms)));
        jittered.max(asked)
    }
}
