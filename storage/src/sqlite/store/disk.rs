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

/// What a file system has, in bytes.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
}

impl DiskLimit {
    fn is_passed(self, space: Space) -> bool {
        let share = space.total / 100 * u64::from(self.percent);
        space.free < self.bytes.max(share)
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
        self.judge(now, || {
            let found = rustix::fs::statvfs(&self.folder)?;
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
        })
    }

    fn judge(&self, now: Instant, look: impl FnOnce() -> std::io::Result<Space>) -> Result<bool, StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, low)) = *seen
            && now.saturating_duration_since(at) < FRESH
        {
            return Ok(low);
        }
        let space = look().map_err(|error| StoreError::Unavailable {
            reason: format!("the data folder's file system does not answer: {error}"),
            retryable: true,
        })?;
        let low = self.limit.is_passed(space);
        if seen.is_some_and(|(_, before)| before != low) || (seen.is_none() && low) {
            tracing::warn!(free = space.free, low, "free disk space crossed the limit for new messages");
        }
        *seen = Some((now, low));
        Ok(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(free: u64, total: u64) -> Space {
        Space { free: free * MIB, total: total * MIB }
    }

    #[test]
    fn the_larger_of_the_two_limits_counts() {
        let limit = DiskLimit::default();
        // Of a small disk 256 MiB, of a large one a twentieth.
        assert!(limit.is_passed(space(255, 1_000)));
        assert!(!limit.is_passed(space(256, 1_000)));
        assert!(limit.is_passed(space(49_999, 1_000_000)));
        assert!(!limit.is_passed(space(50_000, 1_000_000)));
        assert!(limit.is_passed(space(0, 0)));
        assert!(!DiskLimit { bytes: 0, percent: 0 }.is_passed(space(0, 0)));
        assert!(DiskLimit { bytes: u64::MAX, percent: 100 }.is_passed(space(u64::MAX / MIB, u64::MAX / MIB)));
    }

    #[test]
    fn it_is_looked_at_four_times_a_second_and_recovers_by_itself() {
        let guard = DiskGuard::new(PathBuf::new(), DiskLimit::default());
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        let low = |millis, free: Option<u64>| {
            let look = || free.map(|free| space(free, 1_000)).ok_or_else(|| std::io::Error::other("gone"));
            guard.judge(start + Duration::from_millis(millis), look)
        };
        assert!(!low(0, Some(500)).unwrap());
        assert!(!low(249, Some(1)).unwrap(), "not looked at yet");
        assert!(low(250, Some(1)).unwrap());
        assert!(low(499, Some(500)).unwrap());
        assert!(!low(500, Some(500)).unwrap());
        // A file system that does not answer is no reason to guess, once the last answer is old.
        assert!(!low(600, None).unwrap());
        assert!(matches!(low(750, None), Err(StoreError::Unavailable { retryable: true, .. })));
        assert!(low(751, Some(1)).unwrap());
    }

    #[test]
    fn the_file_system_of_the_folder_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let guard = |path: &std::path::Path, bytes| {
            DiskGuard::new(path.to_owned(), DiskLimit { bytes, percent: 0 }).is_low(now)
        };
        assert!(!guard(folder.path(), 0).unwrap());
        assert!(guard(folder.path(), u64::MAX).unwrap());
        assert!(guard(&folder.path().join("missing"), 0).is_err());
    }
}
