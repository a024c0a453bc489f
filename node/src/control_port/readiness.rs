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
    /// The group `messages`, where there is one.
    pub messages: Option<GroupFacts>,
    /// The registry as it is known here names this node.
    pub is_member: bool,
    /// What the message store says of itself.
    pub store: Vec<Check>,
    /// This node is draining, or stopping.
    pub draining: Option<&'static str>,
    /// How far this machine's wall clock is from the cluster's time.
    pub clock_off: Duration,
}

/// The checks, in the order in which they are shown.
#[must_use]
pub fn readiness(facts: &Facts) -> Readiness {
    let mut checks = vec![check("control", control(&facts.control, facts.is_member))];
    checks.extend(facts.messages.as_ref().map(|group| check("messages", messages(group))));
    checks.extend(facts.store.iter().cloned());
    checks.push(check("clock", clock(facts.clock_off)));
    checks.push(check("drain", drain(facts.draining)));
    Readiness { checks }
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

/// Without a leader the registry is read as it was known last: degraded, but in service. That takes a node which knows
/// something: one that was a member when it stopped, and has waited for an election since its start.
fn control(facts: &GroupFacts, is_member: bool) -> (CheckStatus, String) {
    let behind = lag(&facts.status);
    if let Some(since) = facts.leaderless {
        if !facts.caught_up && (since < ELECTION || !is_member) {
            return (CheckStatus::Failing, "no leader was heard of since the start".to_owned());
        }
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

/// What the embedded store says of the disk.
#[must_use]
pub fn disk_check(low: bool) -> Check {
    let said = if low {
        let detail = "free disk is below the limit: new messages are refused until some is freed";
        (CheckStatus::Degraded, detail.to_owned())
    } else {
        (CheckStatus::Ok, "enough is free".to_owned())
    };
    check("disk", said)
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
            messages: Some(group()),
            is_member: true,
            store: vec![disk_check(false)],
            draining: None,
            clock_off: Duration::ZERO,
        }
    }

    #[test]
    fn each_fact_has_its_weight() {
        let without_leader = |since| GroupFacts { leaderless: Some(since), ..group() };
        let restarted =
            |since| GroupFacts { caught_up: false, leaderless: Some(Duration::from_secs(since)), ..group() };
        let alone = |facts| Facts { messages: None, ..facts };
        let behind =
            GroupFacts { status: GroupStatus { committed_index: 100_000, ..group().status }, ..group() };
        for (facts, expected) in [
            (facts(), CheckStatus::Ok),
            (Facts { control: without_leader(Duration::from_secs(60)), ..facts() }, CheckStatus::Degraded),
            (alone(Facts { control: restarted(60), ..facts() }), CheckStatus::Degraded),
            (alone(Facts { control: restarted(1), ..facts() }), CheckStatus::Failing),
            (alone(Facts { control: restarted(60), is_member: false, ..facts() }), CheckStatus::Failing),
            (Facts { messages: Some(without_leader(Duration::ZERO)), ..facts() }, CheckStatus::Degraded),
            (
                Facts { messages: Some(without_leader(Duration::from_secs(60))), ..facts() },
                CheckStatus::Failing,
            ),
            (Facts { control: GroupFacts { caught_up: false, ..group() }, ..facts() }, CheckStatus::Failing),
            (Facts { messages: Some(behind), ..facts() }, CheckStatus::Failing),
            (Facts { store: vec![disk_check(true)], ..facts() }, CheckStatus::Degraded),
            (Facts { messages: None, store: Vec::new(), ..facts() }, CheckStatus::Ok),
            (Facts { clock_off: Duration::from_secs(3600), ..facts() }, CheckStatus::Degraded),
            (Facts { draining: Some("stopping"), ..facts() }, CheckStatus::Failing),
        ] {
            assert_eq!(readiness(&facts).status(), expected, "{facts:?}");
        }
    }
}
