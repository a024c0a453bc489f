//! The machine's clocks.

use std::time::{Duration, Instant, SystemTime};

use hub_core::port::Clock;
use hub_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The wall clock as it is.
#[expect(clippy::disallowed_methods, reason = "this is the adapter of the Clock port")]
pub(super) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Time since boot, suspended time included.
pub(super) fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Only goes forward.
#[expect(clippy::disallowed_methods, reason = "this is the adapter of the Clock port")]
pub(super) fn instant() -> Instant {
    Instant::now()
}

/// The clocks of this machine. Hub time starts at the wall clock and goes on with the boot-time clock, so that a wall
/// clock that jumps disturbs nothing.
pub struct SystemClock {
    /// Hub time when the machine booted.
    boot: Timestamp,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemClock {
    /// Hub time is the wall clock now.
    #[must_use]
    pub fn new() -> Self {
        Self { boot: wall().minus(since_boot()) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.boot.plus(since_boot())
    }

    fn wall(&self) -> Timestamp {
        wall()
    }

    fn instant(&self) -> Instant {
        instant()
    }

    fn since_boot(&self) -> Duration {
        since_boot()
    }
}
