//! Votes: what nodes say of a target, and when the cluster opens its breaker for it.

use std::time::Duration;

use super::{Cause, Closed, Config, Context, Mode, Phase, Record, Refused, Report, Stand, Vote, Who, Why};
use crate::id::NodeId;
use crate::time::Timestamp;

/// How long other nodes may object to an accusation.
const OBJECTION_WINDOW: Duration = Duration::from_millis(250);

impl Vote {
    /// It is for opening.
    #[must_use]
    pub const fn accuses(&self) -> bool {
        matches!(self.stand, Stand::Unhealthy { .. })
    }
}

impl Record {
    /// Takes a node's report. Whether it changed anything: saying the same again does not.
    ///
    /// # Errors
    /// [`Refused`] if it was made on another epoch, if votes do not count at the moment, or if its own numbers do not
    /// support it. A refused report changes nothing but what time has brought about.
    pub fn report(&mut self, cx: &Context<'_>, node: NodeId, report: &Report) -> Result<bool, Refused> {
        self.expect(report.epoch)?;
        self.touch(cx);
        self.expect(report.epoch)?;
        if self.mode.is_forced() {
            return Err(Refused::Mode { mode: self.mode });
        }
        let config = self.settings(cx.defaults);
        let Phase::Closed(closed) = &mut self.phase else { return Err(Refused::NotClosed) };
        let vote = read(report, &config, cx.clock)?;
        let changed = match (closed.votes.get(&node).map(Vote::accuses), vote.accuses()) {
            (Some(true), true) => false,
            (_, true) => {
                closed.votes.insert(node, vote);
                closed.decide_at = Some(closed.decide_at.unwrap_or_else(|| cx.clock.plus(OBJECTION_WINDOW)));
                true
            }
            (before, false) => closed.objects(node, vote, before == Some(true), &config, cx.clock),
        };
        if !changed {
            return Ok(false);
        }
        closed.mark_health(cx.clock);
        let aged = |age: Option<u64>| age.map(|age| cx.clock.minus(Duration::from_millis(age)));
        self.last_failure = self.last_failure.max(aged(report.failure_age_ms));
        self.last_success = self.last_success.max(aged(report.success_age_ms));
        if self.accusers() > cx.nodes / 2 {
            self.decide(cx);
        }
        Ok(true)
    }

    /// The leader's timer: does what is due. Whether it changed anything; at another epoch it does not.
    pub fn advance(&mut self, cx: &Context<'_>, epoch: u64) -> bool {
        if self.epoch != epoch || self.due_at().is_none_or(|due| due > cx.clock) {
            return false;
        }
        self.touch(cx);
        if matches!(&self.phase, Phase::Closed(Closed { decide_at: Some(at), .. }) if *at <= cx.clock) {
            self.decide(cx);
        }
        true
    }

    /// A node was removed: it has no vote any more. A lease that it holds ends by itself.
    pub fn forget_node(&mut self, clock: Timestamp, node: NodeId) {
        if let Phase::Closed(closed) = &mut self.phase
            && closed.votes.remove(&node).is_some()
        {
            closed.mark_health(clock);
        }
    }

    /// The node's word is in the votes.
    #[must_use]
    pub fn has_vote_of(&self, node: NodeId) -> bool {
        matches!(&self.phase, Phase::Closed(closed) if closed.votes.contains_key(&node))
    }

    fn accusers(&self) -> usize {
        match &self.phase {
            Phase::Closed(closed) => closed.votes.values().filter(|vote| vote.accuses()).count(),
            _ => 0,
        }
    }

    /// Counts the votes. More for opening than against open it; else only the accusing nodes keep from sending.
    fn decide(&mut self, cx: &Context<'_>) {
        let config = self.settings(cx.defaults);
        let Phase::Closed(closed) = &mut self.phase else { return };
        closed.decide_at = None;
        let accused = || closed.votes.values().filter(|vote| vote.accuses());
        let unhealthy = u32::try_from(accused().count()).unwrap_or(u32::MAX);
        let objections = u32::try_from(closed.objections(&config, cx.clock)).unwrap_or(u32::MAX);
        if unhealthy <= objections {
            return;
        }
        let failures = accused().fold(0, |sum: u32, vote| {
            sum.saturating_add(vote.counts.failures.max(vote.counts.consecutive).max(vote.counts.slow))
        });
        let asked_until = accused().filter_map(|vote| vote.asked_until).max();
        self.failure_count = failures;
        if self.mode == Mode::Observe {
            self.note(cx, self.state(), Why::WouldOpen { unhealthy, objections }, Who::Cluster);
            return;
        }
        self.trip_count = self.trip_count.saturating_add(1);
        self.successes = 0;
        self.open(cx, asked_until, Why::Votes { unhealthy, objections }, Who::Cluster);
    }
}

impl Closed {
    /// Takes a vote against opening: it takes back what the node said before, and stands as an objection while votes are
    /// being gathered and it is fresher than what they rest on.
    fn objects(
        &mut self,
        node: NodeId,
        vote: Vote,
        takes_back: bool,
        config: &Config,
        clock: Timestamp,
    ) -> bool {
        if takes_back {
            self.votes.remove(&node);
        }
        let accused = self.accusations(config, clock, &vote.counts);
        let stands = self.decide_at.is_some()
            && accused.is_some_and(|(newest, all)| {
                all && matches!(vote.stand, Stand::Healthy { success: Some(at) } if at >= newest)
            });
        if !stands {
            return takes_back;
        }
        let newer = self.votes.get(&node).is_none_or(|before| before.stand != vote.stand);
        self.votes.insert(node, vote);
        newer
    }

    /// Votes against opening that are fresher than every accusation.
    fn objections(&self, config: &Config, now: Timestamp) -> usize {
        let stands = |vote: &&Vote| match vote.stand {
            Stand::Healthy { success: Some(at) } => {
                let accused = self.accusations(config, now, &vote.counts);
                accused.is_some_and(|(newest, all)| all && at >= newest)
            }
            _ => false,
        };
        self.votes.values().filter(|vote| !vote.has_lapsed(config, now)).filter(stands).count()
    }
}

/// A report as a vote: ages become moments, and the numbers are checked.
fn read(report: &Report, config: &Config, clock: Timestamp) -> Result<Vote, Refused> {
    let ago = |age: u64| clock.minus(Duration::from_millis(age));
    let counts = report.counts;
    let stand = match report.stand {
        Stand::Unhealthy { cause, since } => {
            if Cause::of(&counts, config) != Some(cause) {
                return Err(Refused::NoEvidence);
            }
            Stand::Unhealthy { cause, since: ago(since) }
        }
        Stand::Healthy { success } => Stand::Healthy { success: success.map(ago) },
    };
    let asked_until = report.retry_after_ms.map(|wait| clock.plus(Duration::from_millis(wait)));
    Ok(Vote { at: clock, stand, counts, asked_until })
}
