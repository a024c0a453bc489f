//! Whether this node may take traffic: every check with its reason, out of plain facts.

use std::time::Duration;

use hub_core::error::code;
use hub_core::port::{Check, CheckStatus, GroupStatus, Readiness};

/// So many entries behind, and a node no longer counts as caught up.
const FAR_BEHIND: u64 = 50_000;
/// An election may take this long before the store counts as out of reach.
const ELECTION: Duration = Duration::from_secs(5);
/// A wall clock may differ this much from the cluster's.
const CLOCK_OFF: Duration = Duration::from_secs(5);

/// One group, as this node sees it.
#[derive(Clone, Debug)]
pub struct GroupFacts {
    /// Its status.
    pub status: GroupStatus,
    /// It was caught up once since the start.
    pub caught_up: bool,
    /// For how long no leader has been known.
    pub leaderless: Option<Duration>,
}

/// What readiness depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The group `control`.
    pub control: GroupFacts,
    /// The group `messages`.
    pub messages: GroupFacts,
    /// This node is draining, or stopping.
    pub draining: Option<&'static str>,
    /// Free disk is below the limit.
    pub disk_low: bool,
    /// How far this machine's wall clock is from the cluster's time.
    pub clock_off: Duration,
}

/// The checks, in the order in which they are shown.
#[must_use]
pub fn readiness(facts: &Facts) -> Readiness {
    Readiness {
        checks: vec![
            check("control", control(&facts.control)),
            check("messages", messages(&facts.messages)),
            check("disk", disk(facts.disk_low)),
            check("clock", clock(facts.clock_off)),
            check("drain", drain(facts.draining)),
        ],
    }
}

fn check(name: &'static str, (status, detail): (CheckStatus, String)) -> Check {
    Check { name, status, detail }
}

fn lag(status: &GroupStatus) -> u64 {
    status.committed_index.saturating_sub(status.applied_index)
}

fn leads(status: &GroupStatus) -> String {
    status.leader.map_or_else(|| "no leader".to_owned(), |leader| format!("node {leader} leads"))
}

/// Without a leader the registry is read as it was known last: degraded, but in service.
fn control(facts: &GroupFacts) -> (CheckStatus, String) {
    let behind = lag(&facts.status);
    if facts.leaderless.is_some() {
        let detail = "no leader: the registry is served as it was known last; start the missing nodes";
        (CheckStatus::Degraded, detail.to_owned())
    } else if !facts.caught_up || behind > FAR_BEHIND {
        (CheckStatus::Failing, format!("catching up, {behind} entries behind"))
    } else {
        (CheckStatus::Ok, leads(&facts.status))
    }
}

/// Without a leader no message can be taken.
fn messages(facts: &GroupFacts) -> (CheckStatus, String) {
    let behind = lag(&facts.status);
    match facts.leaderless {
        Some(since) if since >= ELECTION => {
            let detail = "no leader: the message store takes nothing; start the missing nodes";
            (CheckStatus::Failing, detail.to_owned())
        }
        _ if !facts.caught_up || behind > FAR_BEHIND => {
            (CheckStatus::Failing, format!("catching up, {behind} entries behind"))
        }
        Some(_) => (CheckStatus::Degraded, "a leader is being elected".to_owned()),
        None => (CheckStatus::Ok, leads(&facts.status)),
    }
}

fn disk(low: bool) -> (CheckStatus, String) {
    if low {
        let detail = "free disk is below the limit: new messages are refused until some is freed";
        (CheckStatus::Degraded, detail.to_owned())
    } else {
        (CheckStatus::Ok, "enough is free".to_owned())
    }
}

fn clock(off: Duration) -> (CheckStatus, String) {
    let seconds = off.as_secs_f64();
    if off > CLOCK_OFF {
        let detail = format!(
            "[{}] this machine's clock is {seconds:.1} s from the cluster's; mend it (NTP)",
            code::CLOCK
        );
        (CheckStatus::Degraded, detail)
    } else {
        (CheckStatus::Ok, format!("{seconds:.3} s from the cluster's time"))
    }
}

fn drain(draining: Option<&'static str>) -> (CheckStatus, String) {
    match draining {
        Some(why) => (CheckStatus::Failing, why.to_owned()),
        None => (CheckStatus::Ok, "not draining".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use hub_core::id::NodeId;

    use super::*;

    fn group() -> GroupFacts {
        let status = GroupStatus { leader: Some(NodeId(1)), term: 1, ..GroupStatus::default() };
        GroupFacts { status, caught_up: true, leaderless: None }
    }

    fn facts() -> Facts {
        Facts {
            control: group(),
            messages: group(),
            draining: None,
            disk_low: false,
            clock_off: Duration::ZERO,
        }
    }

    #[test]
    fn each_fact_has_its_weight() {
        let without_leader = |since| GroupFacts { leaderless: Some(since), ..group() };
        let behind =
            GroupFacts { status: GroupStatus { committed_index: 100_000, ..group().status }, ..group() };
        for (facts, expected) in [
            (facts(), CheckStatus::Ok),
            (Facts { control: without_leader(Duration::from_secs(60)), ..facts() }, CheckStatus::Degraded),
            (Facts { messages: without_leader(Duration::ZERO), ..facts() }, CheckStatus::Degraded),
            (Facts { messages: without_leader(Duration::from_secs(60)), ..facts() }, CheckStatus::Failing),
            (Facts { control: GroupFacts { caught_up: false, ..group() }, ..facts() }, CheckStatus::Failing),
            (Facts { messages: behind, ..facts() }, CheckStatus::Failing),
            (Facts { disk_low: true, ..facts() }, CheckStatus::Degraded),
            (Facts { clock_off: Duration::from_secs(3600), ..facts() }, CheckStatus::Degraded),
            (Facts { draining: Some("stopping"), ..facts() }, CheckStatus::Failing),
        ] {
            assert_eq!(readiness(&facts).status(), expected, "{facts:?}");
        }
    }
}
