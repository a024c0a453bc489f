//! How fast permits come, and how many are saved up.

use std::time::Duration;

/// Most permits that one demand may ask for: the messages of a full batch.
pub const MOST_PERMITS: u32 = 1_000;

/// A permit comes every `interval`; unused ones are saved up to `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    interval: u64,
    burst: u32,
}

impl Rate {
    /// A permit every `interval`, up to `burst` of them saved. What is zero counts as one (nanosecond, permit).
    #[must_use]
    pub fn every(interval: Duration, burst: u32) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self { interval: interval.max(1), burst: burst.max(1) }
    }

    /// `permits` a second, up to `burst` of them saved (one second's worth if 0); `None` for no limit, which is 0.
    #[must_use]
    pub fn per_second(permits: u32, burst: u32) -> Option<Self> {
        let interval = 1_000_000_000_u64.checked_div(permits.into())?;
        Some(Self { interval: interval.max(1), burst: if burst == 0 { permits } else { burst } })
    }

    /// What one of `nodes` nodes may let pass by itself so that all together keep to this rate.
    #[must_use]
    pub fn share(self, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        Self { interval: self.interval.saturating_mul(nodes.into()), burst: (self.burst / nodes).max(1) }
    }

    /// Nanoseconds between two permits.
    #[must_use]
    pub const fn interval_nanos(self) -> u64 {
        self.interval
    }

    /// Most permits saved.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long it takes until all permits are saved, from none.
    #[must_use]
    pub fn window(self) -> Duration {
        Duration::from_nanos(self.interval.saturating_mul(self.burst.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_and_shares_add_up_to_the_whole() {
        assert_eq!(Rate::per_second(0, 5), None);
        let rate = Rate::per_second(100, 0).unwrap();
        assert_eq!((rate.burst(), rate.interval_nanos()), (100, 10_000_000));
        assert_eq!(rate.window(), Duration::from_secs(1));
        let third = rate.share(3);
        assert_eq!((third.burst(), third.interval_nanos()), (33, 30_000_000));
        assert_eq!(Rate::per_second(1, 1).unwrap().share(3).burst(), 1);
        assert_eq!(rate.share(0), rate);
    }
}
