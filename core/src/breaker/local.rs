//! One node's own state of one target: what it saw, its verdict, and what it is trying.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, Cause, Config, Counts, Outcome, Pass, Record, Window};
use crate::delivery::Evidence;
use crate::time::Timestamp;

/// How long a node waits for the answer to its question for the probe.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// An unhealthy verdict, with what it rested on when it turned. It holds until a delivery succeeds, not until the window
/// has emptied: nothing gets well for lack of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Latch {
    /// Why.
    pub cause: Cause,
    /// Since when the node saw failures.
    pub since: Timestamp,
    /// When it turned.
    pub at: Timestamp,
    /// The calls then.
    pub counts: Counts,
}

/// What follows from a delivery that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Finished {
    /// The verdict turned unhealthy (`true`) or healthy.
    pub turned: Option<bool>,
    /// To be proposed: the outcome of the probe of this epoch.
    pub probed: Option<(u64, Outcome)>,
}

/// The node's state of one target. Nothing of it is stored: a new node, or one that starts again, begins with no opinion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Local {
    pub(super) window: Window,
    pub(super) latch: Option<Latch>,
    pub(super) asked_until: Option<Timestamp>,
    pub(super) reported_at: Option<Timestamp>,
    /// A probe or a trial is under way.
    pub(super) trying: bool,
    /// The lease's epoch of the last probe that came to something: each takes one.
    pub(super) probed: Option<u64>,
    /// The next trial, where this node decides by itself.
    pub(super) trial_at: Option<Timestamp>,
    /// It asked for the probe; not again before then.
    pub(super) ask_again_at: Option<Timestamp>,
    /// Deliveries at a time after closing; no limit of the breaker's if `None`.
    limit: Option<u16>,
    closed_epoch: u64,
}

impl Local {
    /// From so many deliveries at a time on, the slow start is over: no target gets more.
    pub const FULL_SPEED: u16 = 200;

    /// The unhealthy verdict, if it is one.
    #[must_use]
    pub const fn latch(&self) -> Option<&Latch> {
        self.latch.as_ref()
    }

    /// What this node saw.
    #[must_use]
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// Most deliveries at a time, while the target is taken up again.
    #[must_use]
    pub const fn limit(&self) -> Option<u16> {
        self.limit
    }

    /// Takes note of the record as it is now: after it closed, what was seen before is forgotten, and deliveries start
    /// with one at a time.
    pub fn follow(&mut self, record: Option<&Record>) {
        let epoch = record.map_or(0, |record| record.closed_epoch);
        if epoch > self.closed_epoch {
            *self = Self {
                closed_epoch: epoch,
                limit: Some(1),
                trying: self.trying,
                reported_at: self.reported_at,
                ..Self::default()
            };
        }
    }

    /// A delivery with this pass begins.
    pub fn begin(&mut self, pass: Pass, config: &Config, now: Timestamp) {
        match pass {
            Pass::Plain => {}
            Pass::Probe { .. } => self.trying = true,
            Pass::Trial => {
                self.trying = true;
                self.trial_at = Some(now.plus(config.reset_timeout()));
            }
        }
    }

    /// The node asks for the probe: not again before the answer, or a second.
    pub fn asked(&mut self, now: Timestamp) {
        self.ask_again_at = Some(now.plus(ASK_EVERY));
    }

    /// A delivery ended. It counts, whatever pass it had.
    pub fn finish(&mut self, pass: Pass, call: &Call, config: &Config, now: Timestamp) -> Finished {
        let probed = match pass {
            Pass::Plain => None,
            Pass::Trial => {
                self.trying = false;
                None
            }
            Pass::Probe { epoch } => {
                self.trying = false;
                let outcome = Outcome::of(call);
                self.probed = outcome.map_or(self.probed, |_| Some(epoch));
                outcome.map(|outcome| (epoch, outcome))
            }
        };
        if let Some(wait) = call.retry_after.filter(|_| call.evidence != Evidence::NotCounted) {
            self.asked_until = self.asked_until.max(Some(now.plus(wait)));
        }
        let slow = config.slow_ms.is_some_and(|most| call.took.as_millis() > u128::from(most));
        let well = call.evidence == Evidence::Success;
        if pass != Pass::Plain && well && !slow {
            // What was bad is what the trial was about: it must not speak again.
            self.window = Window::default();
        }
        self.window.count(call, config, now);
        self.climb(call.evidence);
        let mends = well && !(slow && self.latch.is_some_and(|latch| latch.cause == Cause::SlowRate));
        Finished { turned: self.judge(mends, config, now), probed }
    }

    fn judge(&mut self, mends: bool, config: &Config, now: Timestamp) -> Option<bool> {
        let sight = self.window.sight(config, now);
        match (self.latch, Cause::of(&sight.counts, config)) {
            (None, Some(cause)) => {
                let since = if cause == Cause::Consecutive { sight.streak_began } else { sight.bad_since };
                let since = since.unwrap_or(now);
                self.latch = Some(Latch { cause, since, at: now, counts: sight.counts });
                self.trial_at = Some(now.plus(config.reset_timeout()));
                Some(true)
            }
            (Some(_), None) if mends => {
                self.latch = None;
                self.trial_at = None;
                Some(false)
            }
            _ => None,
        }
    }

    const fn climb(&mut self, evidence: Evidence) {
        self.limit = match (self.limit, evidence) {
            (Some(limit), Evidence::Success) if limit + 1 >= Self::FULL_SPEED => None,
            (Some(limit), Evidence::Success) => Some(limit + 1),
            (Some(limit), Evidence::Failure | Evidence::Throttle) if limit > 1 => Some(limit / 2),
            (limit, _) => limit,
        };
    }
}
