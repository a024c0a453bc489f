//! A node's calls of one target: ten buckets over the window, and what reaches back further.

use super::{Call, Config, Counts, Sight};
use crate::delivery::Evidence;
use crate::time::Timestamp;

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Bucket {
    calls: u32,
    failures: u32,
    slow: u32,
}

/// The ring. It costs the same whatever the traffic; a call falls out between nine and ten tenths of the window later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket since the epoch, and how long each is, in milliseconds.
    newest: i64,
    width: i64,
    consecutive: u32,
    streak_began: Option<Timestamp>,
    last_success: Option<Timestamp>,
    last_failure: Option<Timestamp>,
}

impl Window {
    /// Counts a call that ended at `now`. One that says nothing about the target is not counted.
    pub fn count(&mut self, call: &Call, config: &Config, now: Timestamp) {
        if call.evidence == Evidence::NotCounted {
            return;
        }
        self.turn(config, now);
        let bad = call.evidence != Evidence::Success;
        let slow = config.slow_ms.is_some_and(|most| call.took.as_millis() > u128::from(most));
        if let Some(bucket) = self.bucket(self.newest) {
            bucket.calls = bucket.calls.saturating_add(1);
            bucket.failures = bucket.failures.saturating_add(u32::from(bad));
            bucket.slow = bucket.slow.saturating_add(u32::from(slow));
        }
        match call.evidence {
            Evidence::Success => {
                self.consecutive = 0;
                self.streak_began = None;
                self.last_success = Some(now);
            }
            Evidence::Failure => {
                self.consecutive = self.consecutive.saturating_add(1);
                self.streak_began = self.streak_began.or(Some(now));
                self.last_failure = Some(now);
            }
            Evidence::Throttle | Evidence::NotCounted => self.last_failure = Some(now),
        }
    }

    /// What is seen at `now`.
    #[must_use]
    pub fn sight(&self, config: &Config, now: Timestamp) -> Sight {
        let mut turned = self.clone();
        turned.turn(config, now);
        let mut counts = Counts { consecutive: turned.consecutive, ..Counts::default() };
        let mut bad_since = None;
        for age in (0..BUCKETS as i64).rev() {
            let number = turned.newest.saturating_sub(age);
            let began = Timestamp::from_millis(number.saturating_mul(turned.width));
            let Some(bucket) = turned.bucket(number) else { continue };
            counts.calls = counts.calls.saturating_add(bucket.calls);
            counts.failures = counts.failures.saturating_add(bucket.failures);
            counts.slow = counts.slow.saturating_add(bucket.slow);
            if bucket.failures > 0 || bucket.slow > 0 {
                bad_since = bad_since.or(Some(began));
            }
        }
        Sight {
            counts,
            streak_began: turned.streak_began,
            bad_since,
            last_success: turned.last_success,
            last_failure: turned.last_failure,
        }
    }

    fn bucket(&mut self, number: i64) -> Option<&mut Bucket> {
        usize::try_from(number.rem_euclid(BUCKETS as i64)).ok().and_then(|at| self.buckets.get_mut(at))
    }

    /// Empties the buckets whose time has passed. A clock that was set back counts on in the newest bucket; a new length
    /// of the window keeps what was counted, as if it had been counted now.
    fn turn(&mut self, config: &Config, now: Timestamp) {
        let width = i64::from(config.window_s.max(1)) * 100;
        let number = now.as_millis().div_euclid(width);
        if width != self.width {
            let sum = self.buckets.iter().fold(Bucket::default(), |sum, bucket| Bucket {
                calls: sum.calls.saturating_add(bucket.calls),
                failures: sum.failures.saturating_add(bucket.failures),
                slow: sum.slow.saturating_add(bucket.slow),
            });
            (self.buckets, self.newest, self.width) = ([Bucket::default(); BUCKETS], number, width);
            if let Some(bucket) = self.bucket(number) {
                *bucket = sum;
            }
            return;
        }
        let passed = number.saturating_sub(self.newest).clamp(0, BUCKETS as i64);
        for back in 0..passed {
            if let Some(bucket) = self.bucket(number.saturating_sub(back)) {
                *bucket = Bucket::default();
            }
        }
        self.newest = self.newest.max(number);
    }
}
