//! What holds of every message in a store, from one command to the next, and of the counters beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ensure;
use crate::delivery::AttemptOutcome;
use crate::id::{MessageId, NodeId, ServiceName};
use crate::message::Status;
use crate::port::Backlog;
use crate::time::Timestamp;

/// A message as a store keeps it, as far as its fate goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which.
    pub id: MessageId,
    /// Whose it is.
    pub target: ServiceName,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Where it stands.
    pub status: Status,
    /// When it ended.
    pub processed_at: Option<Timestamp>,
    /// Counted retries since it was accepted, or replayed.
    pub retry_count: u32,
    /// Number of the last attempt that was claimed.
    pub attempt: u32,
    /// An attempt ended without an answer.
    pub may_have_arrived: bool,
    /// Why it became a dead letter.
    pub dead_reason: Option<Arc<str>>,
    /// Who holds a claim on it.
    pub owner: Option<NodeId>,
    /// Attempts that ended, by number.
    pub attempts: BTreeMap<u32, AttemptOutcome>,
}

/// One message is sound.
pub fn message(stored: &Stored) -> Result<(), String> {
    let Stored { id, status, attempt, .. } = stored;
    let holds =
        |holds: bool, what: &str| ensure(holds, || format!("{id} ({status}, attempt {attempt}): {what}"));
    holds(
        stored.owner.is_some() == (*status == Status::Delivering),
        "claimed, but not under way, or the reverse",
    )?;
    holds(stored.processed_at.is_none() == status.is_open(), "has ended without a time, or the reverse")?;
    let dead = matches!(status, Status::DeadLetter | Status::Discarded);
    holds(stored.dead_reason.is_some() == dead, "has a reason without being dead, or the reverse")?;
    let claimed = matches!(status, Status::Delivering | Status::Delivered | Status::Retrying);
    holds(*attempt > 0 || !claimed, "was never claimed")?;
    holds(stored.retry_count <= *attempt, "has more retries than attempts")?;
    let ended = *attempt - u32::from(*status == Status::Delivering && *attempt > 0);
    let (first, last) = (stored.attempts.keys().next(), stored.attempts.keys().next_back());
    holds(first.is_none_or(|first| *first > 0), "has an attempt before the first")?;
    holds(last.is_none_or(|last| *last <= ended), "has an attempt that has not ended yet")?;
    let unanswered = stored.attempts.values().any(|outcome| outcome.may_have_arrived());
    holds(stored.may_have_arrived || !unanswered, "forgot an attempt without an answer")
}

/// One message before and after a command: what was promised of it still stands.
pub fn message_step(before: &Stored, after: &Stored) -> Result<(), String> {
    let Stored { id, status, .. } = before;
    let holds =
        |holds: bool, what: &str| ensure(holds, || format!("{id}: {status} became {}: {what}", after.status));
    let same =
        (&before.id, &before.target, before.created_at) == (&after.id, &after.target, after.created_at);
    holds(same, "it is another message")?;
    holds(!status.is_final() || before == after, "it had ended")?;
    holds(before.attempt <= after.attempt, "its attempts went back")?;
    holds(after.may_have_arrived || !before.may_have_arrived, "it may have arrived")?;
    let replayed = *status == Status::DeadLetter;
    holds(before.retry_count <= after.retry_count || replayed, "its retries went back")?;
    let kept = before.attempts.iter().all(|(number, outcome)| after.attempts.get(number) == Some(outcome));
    holds(kept, "an attempt was changed")
}

/// The counters of one target do not contradict each other. Cheap.
pub fn backlog(backlog: &Backlog) -> Result<(), String> {
    let Backlog { depth, in_flight, accepted_total, delivered_total, .. } = backlog;
    ensure(in_flight <= depth, || format!("{in_flight} of {depth} are in flight"))?;
    let most = depth.saturating_add(*delivered_total);
    ensure(most <= *accepted_total, || format!("{most} of {accepted_total} are open or delivered"))
}

/// The counters are what counting would give. Walks through everything; delivered ones may have been pruned.
pub fn backlogs(messages: &[Stored], counters: &BTreeMap<ServiceName, Backlog>) -> Result<(), String> {
    let mut counted: BTreeMap<&ServiceName, Backlog> = BTreeMap::new();
    for stored in messages {
        let count = counted.entry(&stored.target).or_default();
        count.accepted_total += 1;
        count.delivered_total += u64::from(stored.status == Status::Delivered);
        count.dead_letters += u64::from(stored.status == Status::DeadLetter);
        count.in_flight += u64::from(stored.owner.is_some());
        if stored.status.is_open() {
            count.depth += 1;
            count.oldest =
                Some(count.oldest.map_or(stored.created_at, |oldest| oldest.min(stored.created_at)));
        }
    }
    let targets: BTreeSet<_> = counters.keys().chain(counted.keys().copied()).collect();
    for target in targets {
        let kept = counters.get(target).copied().unwrap_or_default();
        let found = counted.get(target).copied().unwrap_or_default();
        backlog(&kept).map_err(|problem| format!("{target}: {problem}"))?;
        let now = |count: &Backlog| (count.depth, count.in_flight, count.oldest, count.dead_letters);
        let totals =
            kept.accepted_total >= found.accepted_total && kept.delivered_total >= found.delivered_total;
        ensure(now(&kept) == now(&found) && totals, || {
            format!("{target}: {kept:?} is kept, there is {found:?}")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    type Mistake = fn(&mut Stored);

    fn stored(status: Status) -> Stored {
        let dead = matches!(status, Status::DeadLetter | Status::Discarded);
        Stored {
            id: MessageId(Uuid::from_u128(1)),
            target: "target".parse().unwrap(),
            created_at: Timestamp::EPOCH,
            status,
            processed_at: (!status.is_open()).then_some(Timestamp::EPOCH),
            retry_count: 0,
            attempt: 2,
            may_have_arrived: false,
            dead_reason: dead.then(|| "gone".into()),
            owner: (status == Status::Delivering).then_some(NodeId(1)),
            attempts: [(1, AttemptOutcome::Failed)].into(),
        }
    }

    #[test]
    fn every_mistake_in_a_message_is_named() {
        for status in Status::ALL {
            assert_eq!(message(&stored(status)), Ok(()));
        }
        let mistakes: [(Status, Mistake); 9] = [
            (Status::Delivering, |one| one.owner = None),
            (Status::Pending, |one| one.owner = Some(NodeId(1))),
            (Status::Delivered, |one| one.processed_at = None),
            (Status::DeadLetter, |one| one.dead_reason = None),
            (Status::Cancelled, |one| one.dead_reason = Some("gone".into())),
            (Status::Delivered, |one| (one.attempt, one.attempts) = (0, BTreeMap::new())),
            (Status::Retrying, |one| one.retry_count = 3),
            (Status::Delivering, |one| one.attempts = [(2, AttemptOutcome::Failed)].into()),
            (Status::Pending, |one| one.attempts = [(1, AttemptOutcome::NoAnswer)].into()),
        ];
        for (number, (status, mistake)) in mistakes.into_iter().enumerate() {
            let mut wrong = stored(status);
            mistake(&mut wrong);
            assert!(message(&wrong).is_err(), "mistake {number}");
        }
    }

    #[test]
    fn every_broken_promise_is_named() {
        let retrying = Stored { retry_count: 1, may_have_arrived: true, ..stored(Status::Retrying) };
        assert_eq!(
            message_step(&retrying, &Stored { may_have_arrived: true, ..stored(Status::Delivered) }),
            Err(format!("{}: retrying became delivered: its retries went back", retrying.id))
        );
        let mistakes: [Mistake; 5] = [
            |one| one.attempt = 1,
            |one| one.may_have_arrived = false,
            |one| one.attempts.clear(),
            |one| one.created_at = Timestamp::MAX,
            |one| one.retry_count = 0,
        ];
        assert_eq!(message_step(&retrying, &retrying), Ok(()));
        for (number, mistake) in mistakes.into_iter().enumerate() {
            let mut after = retrying.clone();
            mistake(&mut after);
            assert!(message_step(&retrying, &after).is_err(), "mistake {number}");
        }
        for status in [Status::Delivered, Status::Cancelled, Status::Expired, Status::Discarded] {
            assert!(message_step(&stored(status), &stored(Status::Pending)).is_err(), "{status}");
        }
        assert_eq!(message_step(&stored(Status::DeadLetter), &stored(Status::Pending)), Ok(()));
    }

    #[test]
    fn counters_are_compared_with_what_is_there() {
        let rows = [stored(Status::Delivering), stored(Status::DeadLetter), stored(Status::Delivered)];
        let right = Backlog {
            depth: 1,
            in_flight: 1,
            oldest: Some(Timestamp::EPOCH),
            accepted_total: 9,
            delivered_total: 2,
            dead_letters: 1,
        };
        let check = |counters: Backlog| backlogs(&rows, &[("target".parse().unwrap(), counters)].into());
        assert_eq!(check(right), Ok(()));
        for wrong in [
            Backlog { depth: 2, ..right },
            Backlog { in_flight: 0, ..right },
            Backlog { oldest: None, ..right },
            Backlog { accepted_total: 2, ..right },
            Backlog { delivered_total: 0, ..right },
            Backlog { dead_letters: 0, ..right },
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        assert!(backlogs(&rows, &BTreeMap::new()).is_err());
    }
}
