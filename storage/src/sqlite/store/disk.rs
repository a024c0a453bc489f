//! Refuses new messages while the disk is nearly full, so that what was accepted can still be settled and replicated.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_core::port::StoreError;

/// How long a look at the disk is good for.
const FRESH: Duration = Duration::from_millis(250);

/// Below which free space new messages are refused: the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimit {
    /// Bytes; default 256 MiB.
    pub bytes: u64,
    /// Hundredths of the file system; default 5.
    pub percent: u8,
}

impl Default for DiskLimit {
    fn default() -> Self {
        Self { bytes: 256 << 20, percent: 5 }
    }
}

/// Watches the file system that `folder` lies on.
#[derive(Debug)]
pub struct DiskGuard {
    folder: PathBuf,
    limit: DiskLimit,
    seen: Mutex<Option<(Instant, bool)>>,
}

impl DiskGuard {
    /// A guard of the file system of `folder`.
    #[must_use]
    pub const fn new(folder: PathBuf, limit: DiskLimit) -> Self {
        Self { folder, limit, seen: Mutex::new(None) }
    }

    /// Whether too little is free, at most 250 ms ago as of `now`. It recovers by itself.
    pub fn is_low(&self, now: Instant) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, low)) = *seen
            && now.saturating_duration_since(at) < FRESH
        {
            return Ok(low);
        }
        let found = rustix::fs::statvfs(&self.folder).map_err(|error| StoreError::Unavailable {
            reason: format!("the data folder's file system does not answer: {error}"),
            retryable: true,
        })?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let total = found.f_blocks.saturating_mul(found.f_frsize);
        let share = total / 100 * u64::from(self.limit.percent);
        let low = free < self.limit.bytes.max(share);
        if seen.is_some_and(|(_, before)| before != low) || (seen.is_none() && low) {
            tracing::warn!(free, low, "free disk space crossed the limit for new messages");
        }
        *seen = Some((now, low));
        Ok(low)
    }
}
