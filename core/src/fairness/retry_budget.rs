//! How many of a target's deliveries may be retries: a fifth of its traffic, and a few a second besides.

/// Parts of a retry that are counted: thousandths, each of as many parts as a second has nanoseconds, so that nothing is
/// rounded away however often the clock is read.
const RETRY: u64 = 1_000 * THOUSANDTH;
const THOUSANDTH: u64 = 1_000_000_000;

/// One target's budget on one node. Retries that are not covered wait; first attempts always pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    saved: u64,
    /// Thousandths of a retry that come each second by themselves.
    each_second: u64,
    /// Until when they have been saved, in nanoseconds.
    at: u64,
}

impl RetryBudget {
    /// Retries a second that a target gets from all nodes together, whatever its traffic.
    pub const EACH_SECOND: u32 = 10;
    /// Most retries saved.
    pub const MOST_SAVED: u32 = 100;
    /// What a first attempt adds: a fifth of a retry.
    const OF_TRAFFIC: u64 = RETRY / 5;

    /// The share of one of `nodes` nodes, with everything saved, on a clock that stands at `now` (nanoseconds).
    #[must_use]
    pub fn new(nodes: u32, now: u64) -> Self {
        let each_second = u64::from(Self::EACH_SECOND) * 1_000 / u64::from(nodes.max(1));
        Self { saved: u64::from(Self::MOST_SAVED) * RETRY, each_second: each_second.max(1), at: now }
    }

    /// A first attempt goes out.
    pub fn first_attempt(&mut self, now: u64) {
        self.pass_time(now);
        self.save(Self::OF_TRAFFIC);
    }

    /// Takes a retry out, if it is covered.
    pub fn take_retry(&mut self, now: u64) -> bool {
        self.pass_time(now);
        let covered = self.saved >= RETRY;
        if covered {
            self.saved -= RETRY;
        }
        covered
    }

    /// Nanoseconds until a retry is covered, if nothing else goes out meanwhile.
    #[must_use]
    pub fn wait(&self, now: u64) -> u64 {
        let mut then = *self;
        then.pass_time(now);
        RETRY.saturating_sub(then.saved).div_ceil(then.each_second)
    }

    /// Another number of nodes shares from now on.
    pub fn share(&mut self, nodes: u32, now: u64) {
        self.pass_time(now);
        *self = Self { saved: self.saved, ..Self::new(nodes, self.at) };
    }

    fn save(&mut self, more: u64) {
        self.saved = self.saved.saturating_add(more).min(u64::from(Self::MOST_SAVED) * RETRY);
    }

    fn pass_time(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.save(passed.saturating_mul(self.each_second));
    }
}
