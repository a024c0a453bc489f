//! Random operations, and the commands they become.

use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, Claim, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Attempt, Fingerprint, IdempotencyKey, NewMessage, Priority};
use hub_core::port::Want;
use hub_core::time::Timestamp;
use hub_storage::sqlite::command::{ClaimDue, Insert, Item, Sweep};
use hub_storage::sqlite::{Command, Reply};
use hub_storage::suite::{TestSlots, plain_message};
use proptest::prelude::*;
use uuid::Uuid;

/// The bound of every insert.
pub(crate) const BOUND: u64 = 6;
/// How old messages of the test may become, in milliseconds.
pub(crate) const MAX_AGE: u64 = 40_000;
/// The retention of every sweep, in milliseconds.
pub(crate) const RETENTION: u64 = 60_000;

/// One message of an insert.
#[derive(Clone, Debug)]
pub(crate) struct New {
    number: u8,
    target: u8,
    priority: u8,
    delay: Option<u16>,
    ttl: Option<u16>,
    key: Option<(u8, u8)>,
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Time passes.
    Advance(u64),
    /// Accept; with how many free slots.
    Insert(Vec<New>, bool, u8),
    /// By number of the message, and of the request.
    Cancel(u8, u8),
    /// As above.
    Replay(u8, u8),
    /// As above.
    Discard(u8, u8),
    /// For targets, how many, by which node.
    Claim(Vec<(u8, u8)>, u8),
    /// A known claim by number, an outcome, and what the attempt was.
    Settle(Vec<(u8, u8, u8)>),
    /// Limit.
    Sweep(u8),
}

fn new() -> impl Strategy<Value = New> {
    let key = prop::option::weighted(0.3, (0_u8..3, 0_u8..2));
    let (delay, ttl) =
        (prop::option::weighted(0.2, 0_u16..20_000), prop::option::weighted(0.3, 0_u16..30_000));
    (0_u8..20, 0_u8..3, 0_u8..10, delay, ttl, key).prop_map(|(number, target, priority, delay, ttl, key)| {
        New { number, target, priority, delay, ttl, key }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![0_u64..3_000, 5_000_u64..12_000, Just(90_000_000)].prop_map(Op::Advance),
        6 => (prop::collection::vec(new(), 1..4), any::<bool>(), 0_u8..3)
            .prop_map(|(all, atomic, slots)| Op::Insert(all, atomic, slots)),
        2 => (0_u8..20, 0_u8..2).prop_map(|(id, request)| Op::Cancel(id, request)),
        2 => (0_u8..20, 0_u8..2).prop_map(|(id, request)| Op::Replay(id, request)),
        1 => (0_u8..20, 0_u8..2).prop_map(|(id, request)| Op::Discard(id, request)),
        6 => (prop::collection::vec((0_u8..3, 0_u8..4), 1..4), 1_u8..3)
            .prop_map(|(wants, node)| Op::Claim(wants, node)),
        8 => prop::collection::vec((any::<u8>(), 0_u8..8, 0_u8..6), 1..4).prop_map(Op::Settle),
        2 => (0_u8..5).prop_map(Op::Sweep),
    ]
}

/// Sequences of up to `most` steps.
pub(crate) fn ops(most: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..most)
}

/// What the steps so far have made known.
#[derive(Default)]
pub(crate) struct World {
    claims: Vec<Claim>,
    requests: u128,
}

/// A target's name.
pub(crate) fn target(number: u8) -> ServiceName {
    format!("target-{number}").parse().unwrap()
}

fn id(number: u8) -> MessageId {
    MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | u128::from(number)))
}

impl World {
    /// The request of a step: operators may repeat theirs.
    pub(crate) fn request(&mut self, op: &Op) -> RequestId {
        self.requests += 1;
        RequestId(Uuid::from_u128(match op {
            Op::Cancel(id, request) | Op::Replay(id, request) | Op::Discard(id, request) => {
                (1 << 90) | (u128::from(*id) << 8) | u128::from(*request)
            }
            _ => self.requests,
        }))
    }

    /// The command of a step.
    pub(crate) fn command(&mut self, op: &Op, now: Timestamp, slots: &TestSlots) -> Option<Command> {
        Some(match op {
            Op::Advance(_) => return None,
            Op::Insert(all, atomic, free) => {
                for number in 0..3 {
                    let name = target(number);
                    let missing = u32::from(*free).saturating_sub(slots.free(&name));
                    slots.grant(&name, missing);
                }
                let items: Vec<_> =
                    all.iter().map(|new| Item { message: message(new, now), claim: None }).collect();
                self.claims.extend(items.iter().map(|item| Claim {
                    message: item.message.id,
                    owner: NodeId(1),
                    term: 1,
                    attempt: 1,
                    lease_end: now,
                }));
                Command::Insert(Insert { items, atomic: *atomic, max_backlog: BOUND })
            }
            Op::Cancel(number, _) => Command::Cancel(id(*number)),
            Op::Replay(number, _) => Command::Replay(id(*number)),
            Op::Discard(number, _) => Command::Discard(id(*number)),
            Op::Claim(wants, node) => {
                let lease = Duration::from_secs(8);
                let want = |(number, count): &(u8, u8)| Want {
                    target: target(*number),
                    count: u32::from(*count),
                    lease,
                };
                let wants = wants.iter().map(want).collect();
                Command::Claim(ClaimDue { owner: NodeId((*node).into()), term: 1, wants })
            }
            Op::Settle(all) => {
                let all: Vec<_> = all.iter().filter_map(|one| self.settlement(one, now)).collect();
                Command::Settle(all)
            }
            Op::Sweep(limit) => Command::Sweep(Sweep {
                limit: (*limit).into(),
                retention: Duration::from_millis(RETENTION),
                gone: vec![target(2)],
            }),
        })
    }

    /// Claims are settled later, some of them twice.
    pub(crate) fn learn(&mut self, reply: &Reply) {
        if let Reply::Claimed(granted) = reply {
            self.claims.extend(granted.iter().flat_map(|one| {
                [1, 2].map(|node| Claim {
                    message: one.message,
                    owner: NodeId(node),
                    term: 1,
                    attempt: one.attempt,
                    lease_end: one.lease_end,
                })
            }));
        }
    }

    fn settlement(&self, (claim, outcome, attempt): &(u8, u8, u8), now: Timestamp) -> Option<Settlement> {
        // The last claims more often than old ones.
        let back = usize::from(*claim) % self.claims.len().clamp(1, 12);
        let claim = self.claims.iter().rev().nth(back)?.clone();
        let outcome = match outcome {
            0..=2 => SettleOutcome::Delivered,
            3 => SettleOutcome::RetryAt { at: now.plus(Duration::from_secs(2)), counted: true },
            4 => SettleOutcome::RetryAt { at: now, counted: false },
            5 => SettleOutcome::Dead(DeadReason::Exhausted),
            6 => SettleOutcome::Released,
            _ => SettleOutcome::Expired,
        };
        let unused = matches!(outcome, SettleOutcome::Released | SettleOutcome::Expired);
        let attempt = (!unused).then(|| Attempt {
            number: claim.attempt,
            node: claim.owner,
            instance: None,
            started_at: now,
            duration_ms: 1,
            outcome: if outcome == SettleOutcome::Delivered {
                AttemptOutcome::Delivered
            } else {
                [AttemptOutcome::Failed, AttemptOutcome::NoAnswer, AttemptOutcome::NotSent]
                    [usize::from(*attempt) % 3]
            },
            http_status: None,
            error_class: None,
            response: None,
        });
        Some(Settlement { claim, outcome, attempt, error: None })
    }
}

fn message(new: &New, now: Timestamp) -> NewMessage {
    let millis = |millis: u16| now.plus(Duration::from_millis(millis.into()));
    NewMessage {
        content: format!("{{\"n\":{}}}", new.number).into(),
        priority: Priority::new(new.priority).unwrap(),
        deliver_at: new.delay.map(millis),
        expires_at: new.ttl.map(millis),
        too_old_at: now.plus(Duration::from_millis(MAX_AGE)),
        idempotency: new.key.map(|(key, body)| IdempotencyKey {
            caller: "caller".to_owned(),
            key: format!("key-{key}"),
            fingerprint: Fingerprint([body; 16]),
        }),
        ..plain_message(id(new.number), "sender".parse().unwrap(), target(new.target), now)
    }
}
