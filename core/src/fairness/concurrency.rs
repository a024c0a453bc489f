//! How many deliveries to one target may be under way: more while it keeps up, fewer when it does not (AIMD).

use crate::delivery::Evidence;

/// What one delivery says about the target's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// It kept up.
    Well,
    /// It failed, throttled, or took too long.
    Overloaded,
    /// Nothing.
    Unknown,
}

impl Sign {
    /// Of an answer; `slow` if it took longer than the target should.
    #[must_use]
    pub const fn of(evidence: Evidence, slow: bool) -> Self {
        match evidence {
            Evidence::Success if slow => Self::Overloaded,
            Evidence::Success => Self::Well,
            Evidence::Failure | Evidence::Throttle => Self::Overloaded,
            Evidence::NotCounted => Self::Unknown,
        }
    }
}

/// One delivery under way. Give it back: [`Concurrency::finish`].
#[must_use = "a permit that is not given back is lost"]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit(u64);

/// One target's limit on one node. It grows by one for each round of deliveries that filled it and went well, and falls by
/// a tenth, at least by one, for each round in which one did not: what was already under way when it fell does not make it fall again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// In thousandths, so that a part of a round counts.
    limit: u32,
    ceiling: u16,
    in_flight: u16,
    begun: u64,
    /// Deliveries begun before the limit last fell.
    fell_at: u64,
}

impl Concurrency {
    /// The most that any target gets.
    pub const MOST: u16 = 200;
    /// Where a target starts that nothing is known of.
    pub const START: u16 = 10;

    /// With at most `ceiling` at a time, 1 to [`Self::MOST`]; what is out of range is cut.
    #[must_use]
    pub fn new(ceiling: u16) -> Self {
        let ceiling = ceiling.clamp(1, Self::MOST);
        Self {
            limit: u32::from(ceiling.min(Self::START)) * 1_000,
            ceiling,
            in_flight: 0,
            begun: 0,
            fell_at: 0,
        }
    }

    /// Another ceiling, from now on. What is under way goes on.
    pub fn set_ceiling(&mut self, ceiling: u16) {
        self.ceiling = ceiling.clamp(1, Self::MOST);
        self.limit = self.limit.min(u32::from(self.ceiling) * 1_000);
    }

    /// Deliveries that may be under way.
    #[must_use]
    pub fn limit(&self) -> u16 {
        u16::try_from(self.limit / 1_000).unwrap_or(Self::MOST)
    }

    /// Deliveries that are.
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Begins a delivery, if one more may be under way.
    pub fn begin(&mut self) -> Option<Permit> {
        if self.in_flight >= self.limit() {
            return None;
        }
        self.in_flight += 1;
        self.begun += 1;
        Some(Permit(self.begun))
    }

    /// A delivery ended.
    pub fn finish(&mut self, permit: Permit, sign: Sign) {
        let filled = u32::from(self.in_flight) * 2 >= u32::from(self.limit());
        self.in_flight = self.in_flight.saturating_sub(1);
        match sign {
            Sign::Well if filled => {
                let part = 1_000 / u32::from(self.limit().max(1));
                self.limit = (self.limit + part).min(u32::from(self.ceiling) * 1_000);
            }
            Sign::Overloaded if permit.0 > self.fell_at => {
                self.limit = self.limit.saturating_sub((self.limit / 10).max(1_000)).max(1_000);
                self.fell_at = self.begun;
            }
            Sign::Well | Sign::Overloaded | Sign::Unknown => {}
        }
    }
}
