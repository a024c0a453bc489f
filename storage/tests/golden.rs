//! Bytes of every released version of commands and replies, as they lie in logs. They are only decoded: what was written
//! once must be readable for ever.

#![cfg(test)]

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hub_core::codec::{Command as _, Decoded, Envelope, Reply as _};
use hub_core::delivery::{AttemptOutcome, Claim, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId};
use hub_core::message::{Attempt, Fingerprint, IdempotencyKey, NewMessage, Priority, Status};
use hub_core::port::{AcceptRefusal, Accepted, CancelOutcome, DeadLetterOutcome, SweepReport, Want};
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{ClaimDue, Granted, Insert, Item, Sweep};
use hub_storage::sqlite::{Command, Reply};
use uuid::Uuid;

fn id(number: u128) -> MessageId {
    MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | number))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

fn claim(number: u128) -> Claim {
    Claim { message: id(number), owner: NodeId(300), term: 7, attempt: 3, lease_end: at(20_000) }
}

fn message() -> NewMessage {
    NewMessage {
        id: id(1),
        sender: "character".parse().unwrap(),
        target: "world.state-1".parse().unwrap(),
        message_type: "character.created".into(),
        content: "{ \"name\": \"Äda\", \"n\": 1.0 }".into(),
        metadata: Some("{\"correlation_id\":\"c\"}".into()),
        correlation_id: Some("c".into()),
        priority: Priority::new(9).unwrap(),
        created_at: at(0),
        deliver_at: Some(at(1)),
        expires_at: Some(at(2)),
        too_old_at: at(3),
        max_retries: Some(100),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        idempotency: Some(IdempotencyKey {
            caller: "character".to_owned(),
            key: "key#0".to_owned(),
            fingerprint: Fingerprint([9; 16]),
        }),
    }
}

fn bare() -> NewMessage {
    NewMessage {
        id: id(2),
        metadata: None,
        correlation_id: None,
        priority: Priority::default(),
        deliver_at: None,
        expires_at: None,
        max_retries: None,
        traceparent: None,
        idempotency: None,
        ..message()
    }
}

fn settlements() -> Vec<Settlement> {
    let outcomes = [
        SettleOutcome::Delivered,
        SettleOutcome::RetryAt { at: at(5), counted: true },
        SettleOutcome::Dead(DeadReason::Gone),
        SettleOutcome::Dead(DeadReason::Rejected),
        SettleOutcome::Dead(DeadReason::Exhausted),
        SettleOutcome::Dead(DeadReason::TooOld),
        SettleOutcome::Dead(DeadReason::NoTarget),
        SettleOutcome::Expired,
        SettleOutcome::Released,
    ];
    let attempts = [
        AttemptOutcome::Delivered,
        AttemptOutcome::Failed,
        AttemptOutcome::Rejected,
        AttemptOutcome::NotSent,
        AttemptOutcome::NoAnswer,
        AttemptOutcome::HubFault,
    ];
    let attempt = |outcome, number| Attempt {
        number,
        node: NodeId(300),
        instance: Some("instance-1".parse().unwrap()),
        started_at: at(4),
        duration_ms: 1_234,
        outcome,
        http_status: Some(503),
        error_class: Some("timeout".into()),
        response: Some("try again".into()),
    };
    let mut all = Vec::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let attempt = attempts.get(number).map(|outcome| attempt(*outcome, 3));
        let error = (number % 2 == 1).then(|| "target answered 503".into());
        all.push(Settlement { claim: claim(number as u128), outcome, attempt, error });
    }
    all
}

fn commands() -> Vec<(&'static str, Command)> {
    let insert = Insert {
        items: vec![
            Item { message: message(), claim: Some(claim(1)) },
            Item { message: bare(), claim: None },
        ],
        atomic: true,
        max_backlog: 100_000,
    };
    let want = Want { target: "world".parse().unwrap(), count: 50, lease: Duration::from_secs(20) };
    let sweep = Sweep {
        limit: 1_000,
        retention: Duration::from_secs(30 * 24 * 3_600),
        gone: vec!["gone".parse().unwrap()],
    };
    vec![
        ("insert", Command::Insert(insert)),
        ("cancel", Command::Cancel(id(1))),
        ("replay", Command::Replay(id(2))),
        ("discard", Command::Discard(id(3))),
        ("claim", Command::Claim(ClaimDue { owner: NodeId(300), term: 7, wants: vec![want] })),
        ("settle", Command::Settle(settlements())),
        ("sweep", Command::Sweep(sweep)),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let accepted = Accepted { id: id(1), status: Status::Pending, created_at: at(0), replayed: true };
    let full = AcceptRefusal::BacklogFull { target: "world".parse().unwrap(), retry_after: Duration::ZERO };
    let inserted =
        vec![Ok(accepted), Err(AcceptRefusal::KeyReused), Err(full), Err(AcceptRefusal::BatchRefused)];
    let granted = Granted { message: id(1), attempt: 2, lease_end: at(20_000), retry_count: 1 };
    let report = SweepReport { expired: 1, buried: 2, pruned: 300, more: true, next: Some(at(9)) };
    let mut all = vec![
        ("skipped", Reply::Skipped),
        ("inserted", Reply::Inserted(inserted)),
        ("cancelled", Reply::Cancelled(CancelOutcome::Cancelled { may_have_arrived: true })),
        ("cancel_conflict", Reply::Cancelled(CancelOutcome::Conflict(Status::Delivering))),
        ("cancel_missing", Reply::Cancelled(CancelOutcome::NotFound)),
        ("dead_letter_conflict", Reply::DeadLetter(DeadLetterOutcome::Conflict(Status::Held))),
        ("dead_letter_expired", Reply::DeadLetter(DeadLetterOutcome::Expired)),
        ("dead_letter_missing", Reply::DeadLetter(DeadLetterOutcome::NotFound)),
        ("claimed", Reply::Claimed(vec![granted])),
        ("settled", Reply::Settled(vec![true, false])),
        ("swept", Reply::Swept(report)),
    ];
    let names = [
        "done_held",
        "done_pending",
        "done_delivering",
        "done_retrying",
        "done_delivered",
        "done_cancelled",
        "done_expired",
        "done_dead_letter",
        "done_discarded",
    ];
    let done = |status| Reply::DeadLetter(DeadLetterOutcome::Done(status));
    all.extend(names.into_iter().zip(Status::ALL.map(done)));
    all
}

fn golden(name: &str) -> Bytes {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/0.1.0").join(format!("{name}.bin"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

#[test]
fn commands_of_every_release_are_read() {
    for (name, expected) in commands() {
        let (_, envelope) = Envelope::read(&mut golden(name)).unwrap();
        assert_eq!(Command::decode(envelope).unwrap(), Decoded::Value(expected), "{name}");
    }
}

#[test]
fn replies_of_every_release_are_read() {
    for (name, expected) in replies() {
        assert_eq!(Reply::decode(&golden(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_is_written_can_be_read() {
    for (name, command) in commands() {
        assert_eq!(Command::decode(command.encode()).unwrap(), Decoded::Value(command), "{name}");
    }
    for (name, reply) in replies() {
        assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply, "{name}");
    }
}

#[test]
fn a_damaged_command_is_an_error() {
    for (name, _) in commands() {
        let whole = golden(name);
        for at in 0..whole.len() {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 0x10;
            let read =
                Envelope::read(&mut Bytes::from(damaged)).and_then(|(_, envelope)| Command::decode(envelope));
            assert!(read.is_err(), "{name}: byte {at}");
            assert!(Envelope::read(&mut whole.slice(..at)).is_err(), "{name}: cut at {at}");
        }
        let (_, mut envelope) = Envelope::read(&mut golden(name)).unwrap();
        envelope.version = 99;
        assert!(Command::decode(envelope.clone()).is_err(), "{name}: a newer version is not guessed");
        envelope.flags = hub_core::codec::FLAG_IGNORABLE;
        assert_eq!(Command::decode(envelope).unwrap(), Decoded::Ignorable, "{name}: it may be skipped");
    }
}
