//! What a node tells the cluster, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Closed, Config, Counts, Local, Mode, Phase, Record};
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

/// For or against opening. `T` is an age in milliseconds in a report, since nodes' clocks may differ, and a moment in a
/// vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stand<T> {
    /// The target is unhealthy.
    Unhealthy {
        /// Why.
        cause: Cause,
        /// First failure of the streak; for rates the oldest bad call of the window.
        since: T,
    },
    /// It is not: there was a success since others saw it fail.
    Healthy {
        /// The newest success; none if the node only takes back what it said.
        success: Option<T>,
    },
}

/// A node's changed opinion on a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Report {
    /// Which target.
    pub service: ServiceName,
    /// The record's epoch that the node knows.
    pub epoch: u64,
    /// What it says, with ages in milliseconds.
    pub stand: Stand<u64>,
    /// The calls it rests on.
    pub counts: Counts,
    /// Age of the newest success, in milliseconds.
    pub success_age_ms: Option<u64>,
    /// Age of the newest failure, in milliseconds.
    pub failure_age_ms: Option<u64>,
    /// The target asked to be left alone for so long from now on, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// What a node has to tell now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reporting {
    /// Nothing, until it sees more or the record changes.
    Nothing,
    /// Ask again then.
    At(Timestamp),
    /// This, at once; then [`Local::reported`].
    Due(Report),
}

/// At most one report of a service in this time.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// An objection is held back until this long before the votes are counted: a node that is about to see the same failures
/// has seen them by then, and says that instead.
const OBJECT_BEFORE: Duration = Duration::from_millis(125);

impl Local {
    /// What this node has to tell about `service`: only what would change the record. The record itself remembers what
    /// was told, so nothing is told twice, and what was lost is told again.
    #[must_use]
    pub fn report(
        &self,
        service: &ServiceName,
        record: Option<&Record>,
        me: NodeId,
        defaults: &Config,
        now: Timestamp,
    ) -> Reporting {
        let blank = Record::default();
        let record = record.unwrap_or(&blank);
        let Phase::Closed(closed) = &record.phase else { return Reporting::Nothing };
        if record.mode.is_forced() || mode_over(record, now) {
            return Reporting::Nothing;
        }
        let config = record.settings(defaults);
        let Some((stand, not_before)) = self.stand(closed, me, &config, now) else {
            return Reporting::Nothing;
        };
        let soonest = self.reported_at.map_or(not_before, |last| not_before.max(last.plus(REPORT_EVERY)));
        if soonest > now {
            return Reporting::At(soonest);
        }
        Reporting::Due(self.written(service, record.epoch, stand, &config, now))
    }

    /// A report is on its way.
    pub const fn reported(&mut self, now: Timestamp) {
        self.reported_at = Some(now);
    }

    /// What would change the votes, and from when on it may be said.
    fn stand(
        &self,
        closed: &Closed,
        me: NodeId,
        config: &Config,
        now: Timestamp,
    ) -> Option<(Stand<u64>, Timestamp)> {
        let age = |moment: Timestamp| u64::try_from(now.since(moment).as_millis()).unwrap_or(u64::MAX);
        let mine = closed.votes.get(&me);
        if let Some(latch) = &self.latch {
            let said = mine.is_some_and(|vote| matches!(vote.stand, Stand::Unhealthy { .. }));
            let stand = Stand::Unhealthy { cause: latch.cause, since: age(latch.since) };
            return (!said).then_some((stand, now));
        }
        let sight = self.window.sight(config, now);
        let success = sight.last_success.map(age);
        if mine.is_some_and(|vote| matches!(vote.stand, Stand::Unhealthy { .. })) {
            return Some((Stand::Healthy { success }, now));
        }
        let decide_at = closed.decide_at?;
        let (newest, all_contradicted) = closed.accusations(config, now, &sight.counts)?;
        let newer = |success: Timestamp| success >= newest;
        let objected =
            mine.is_some_and(|vote| matches!(vote.stand, Stand::Healthy { success: Some(at) } if newer(at)));
        let objects = !objected && all_contradicted && sight.last_success.is_some_and(newer);
        objects.then(|| (Stand::Healthy { success }, decide_at.minus(OBJECT_BEFORE)))
    }

    fn written(
        &self,
        service: &ServiceName,
        epoch: u64,
        stand: Stand<u64>,
        config: &Config,
        now: Timestamp,
    ) -> Report {
        let age = |moment: Timestamp| u64::try_from(now.since(moment).as_millis()).unwrap_or(u64::MAX);
        let sight = self.window.sight(config, now);
        let asked = self.asked_until.filter(|until| *until > now);
        Report {
            service: service.clone(),
            epoch,
            stand,
            counts: self.latch.map_or(sight.counts, |latch| latch.counts),
            success_age_ms: sight.last_success.map(age),
            failure_age_ms: sight.last_failure.map(age),
            retry_after_ms: asked
                .map(|until| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// The mode has ended, only the entry that says so is not here yet.
fn mode_over(record: &Record, now: Timestamp) -> bool {
    record.mode != Mode::Auto && record.mode_until.is_none_or(|until| until <= now)
}

impl Closed {
    /// Votes for opening that have not lapsed: since when the newest of them sees failures, and whether `counts` speak
    /// against the causes of all. `None` if there is none.
    pub(super) fn accusations(
        &self,
        config: &Config,
        now: Timestamp,
        counts: &Counts,
    ) -> Option<(Timestamp, bool)> {
        let fresh = self.votes.values().filter(|vote| !vote.has_lapsed(config, now));
        let accused = fresh.filter_map(|vote| match vote.stand {
            Stand::Unhealthy { cause, since } => Some((since, cause.is_contradicted(counts, config))),
            Stand::Healthy { .. } => None,
        });
        accused.reduce(|one, other| (one.0.max(other.0), one.1 && other.1))
    }
}
