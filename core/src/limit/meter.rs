//! One key's permits (GCRA): a single number says how many are left.

use super::Rate;
use super::rate::MOST_PERMITS;

/// The moment, in nanoseconds of some steady clock, at which all permits are saved again. Zero, or any moment that has
/// passed: they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter(u64);

impl Meter {
    /// All permits are saved: there is nothing to remember.
    #[must_use]
    pub const fn is_full(self, now: u64) -> bool {
        self.0 <= now
    }

    /// Nanoseconds until all permits are saved. None if it is more than any demand can have made it: the clock was set
    /// back, or the rate changed, and neither must shut anybody out.
    #[must_use]
    pub fn debt(self, rate: Rate, now: u64) -> u64 {
        let most = rate.interval_nanos().saturating_mul(rate.burst().max(MOST_PERMITS).into());
        let debt = self.0.saturating_sub(now);
        if debt > most { 0 } else { debt }
    }

    /// Whether so many permits are there. A demand for more than can ever be saved passes when all are: the meter is
    /// overdrawn then, so that the rate holds, and nobody is refused for ever.
    #[must_use]
    pub fn has(self, permits: u32, rate: Rate, now: u64) -> bool {
        self.wait(permits, rate, now) == 0
    }

    /// Nanoseconds until so many permits are there, if nobody takes any meanwhile.
    #[must_use]
    pub fn wait(self, permits: u32, rate: Rate, now: u64) -> u64 {
        let spare = rate.burst().saturating_sub(permits);
        self.debt(rate, now).saturating_sub(rate.interval_nanos().saturating_mul(spare.into()))
    }

    /// With so many permits gone.
    #[must_use]
    pub fn take(self, permits: u32, rate: Rate, now: u64) -> Self {
        let taken = rate.interval_nanos().saturating_mul(permits.into());
        Self(now.saturating_add(self.debt(rate, now)).saturating_add(taken))
    }

    /// How many permits are left.
    #[must_use]
    pub fn left(self, rate: Rate, now: u64) -> u32 {
        let gone = self.debt(rate, now).div_ceil(rate.interval_nanos());
        rate.burst().saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX))
    }
}
