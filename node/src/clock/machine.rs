//! The machine's clocks.

use std::time::{Duration, Instant, SystemTime};

use hub_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Where a node reads its clocks. Tests give their own.
pub trait Machine: Send + Sync + 'static {
    /// The wall clock as it is. It may jump.
    fn wall(&self) -> Timestamp;
    /// Time since the machine booted, suspended time included.
    fn since_boot(&self) -> Duration;
    /// Only goes forward.
    fn instant(&self) -> Instant;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMachine;

impl Machine for SystemMachine {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter of the Clock port")]
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn since_boot(&self) -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter of the Clock port")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
}
