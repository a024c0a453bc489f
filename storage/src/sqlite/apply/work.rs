//! The working set of one apply batch: the messages it touches, as they are after the commands so far.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::invariant;
use hub_core::message::{Attempt, Fingerprint, NewMessage, Priority, Status, Transition};
use hub_core::port::Backlog;
use hub_core::time::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::Effects;
use crate::sqlite::row::{Hold, Open, UNREPORTED};

/// A target's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sqlite) struct Counters {
    pub(in crate::sqlite) depth: u64,
    pub(in crate::sqlite) in_flight: u64,
    pub(in crate::sqlite) accepted_total: u64,
    pub(in crate::sqlite) delivered_total: u64,
    pub(in crate::sqlite) dead_letters: u64,
}

impl Counters {
    /// As it is shown, without the age of the oldest message.
    pub(in crate::sqlite) const fn backlog(self) -> Backlog {
        Backlog {
            depth: self.depth,
            in_flight: self.in_flight,
            oldest: None,
            accepted_total: self.accepted_total,
            delivered_total: self.delivered_total,
            dead_letters: self.dead_letters,
        }
    }
}

/// Counts down. A counter below what it counts is a mistake, which must not wrap round and refuse everything.
pub(super) fn less(counter: &mut u64, by: u64) {
    debug_assert!(*counter >= by, "a counter would fall below zero");
    *counter = counter.saturating_sub(by);
}

/// What of the state stays in memory between batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sqlite) struct Ledger {
    /// The latest time of any applied entry.
    pub(in crate::sqlite) clock: Timestamp,
    /// Number of the next message.
    pub(in crate::sqlite) next_seq: i64,
    /// Settlements that came too late, ever.
    pub(in crate::sqlite) late_settles: u64,
    /// Of every target.
    pub(in crate::sqlite) backlog: BTreeMap<ServiceName, Counters>,
}

/// The changing columns of `messages`, and what a replay needs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) target: ServiceName,
    pub(super) priority: Priority,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) too_old_at: Timestamp,
    pub(super) status: Status,
    pub(super) attempt: u32,
    pub(super) retry_count: u32,
    pub(super) may_have_arrived: bool,
    pub(super) dead_reason: Option<Arc<str>>,
    pub(super) error: Option<Arc<str>>,
    pub(super) last_request: Option<Uuid>,
}

/// A write of the changing columns of `messages`.
#[derive(Clone, Debug)]
pub(super) struct Fate {
    pub(super) seq: i64,
    pub(super) status: Status,
    pub(super) processed_at: Option<Timestamp>,
    pub(super) retry_count: u32,
    pub(super) attempt: u32,
    pub(super) may_have_arrived: bool,
    pub(super) dead_reason: Option<Arc<str>>,
    pub(super) error: Option<Arc<str>>,
    /// Kept as it is if `None`.
    pub(super) last_request: Option<Uuid>,
}

/// One message of the working set.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) seq: i64,
    /// `None` when only its open row was needed.
    pub(super) known: Option<Known>,
    pub(super) open: Option<Open>,
    /// A row of `deliveries` exists as of the last flush.
    pub(super) stored: bool,
    /// `open` differs from what is stored.
    pub(super) dirty: bool,
    pub(super) fate: Option<Fate>,
}

/// How an open message ends.
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) reason: Option<&'static str>,
    pub(super) error: Option<Arc<str>>,
    pub(super) request: Option<Uuid>,
}

impl Ending {
    pub(super) const fn plain(status: Status) -> Self {
        Self { status, reason: None, error: None, request: None }
    }
}

/// An idempotency key as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRow {
    pub(super) fingerprint: Fingerprint,
    pub(super) message: MessageId,
    pub(super) accepted_at: Timestamp,
    pub(super) stored_at: Timestamp,
}

/// The scope of an idempotency key: caller and key.
pub(super) type KeyName = (String, String);

/// The working set.
pub(super) struct Work<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) ledger: &'a mut Ledger,
    pub(super) node: NodeId,
    pub(super) effects: Effects,
    pub(super) slots: HashMap<MessageId, Slot>,
    /// In the order in which they were first changed since the last flush.
    pub(super) touched: Vec<MessageId>,
    pub(super) inserts: Vec<(i64, NewMessage)>,
    pub(super) attempts: Vec<(MessageId, Attempt)>,
    pub(super) keys: HashMap<KeyName, KeyRow>,
    pub(super) new_keys: Vec<KeyName>,
    pub(super) counted: BTreeSet<ServiceName>,
}

impl<'a> Work<'a> {
    pub(super) fn new(connection: &'a mut SqliteConnection, ledger: &'a mut Ledger, node: NodeId) -> Self {
        Self {
            connection,
            ledger,
            node,
            effects: Effects::default(),
            slots: HashMap::new(),
            touched: Vec::new(),
            inserts: Vec::new(),
            attempts: Vec::new(),
            keys: HashMap::new(),
            new_keys: Vec::new(),
            counted: BTreeSet::new(),
        }
    }

    pub(super) fn clock(&self) -> Timestamp {
        self.ledger.clock
    }

    pub(super) fn count(&mut self, target: &ServiceName, change: impl FnOnce(&mut Counters)) {
        if !self.counted.contains(target) {
            self.counted.insert(target.clone());
        }
        if !self.ledger.backlog.contains_key(target) {
            self.ledger.backlog.insert(target.clone(), Counters::default());
        }
        if let Some(counters) = self.ledger.backlog.get_mut(target) {
            change(counters);
            debug_assert_eq!(invariant::backlog(&counters.backlog()), Ok(()), "{target}");
        }
    }

    /// Takes a row that a query found into the set, unless a newer one is there.
    pub(super) fn adopt(&mut self, open: Open) -> MessageId {
        let id = open.id;
        self.slots.entry(id).or_insert_with(|| Slot {
            seq: open.seq,
            known: None,
            open: Some(open),
            stored: true,
            dirty: false,
            fate: None,
        });
        id
    }

    /// Where a message of the set stands; `None` if it does not exist or is not open and was not loaded whole.
    pub(super) fn status(&self, id: MessageId) -> Option<Status> {
        let slot = self.slots.get(&id)?;
        slot.open.as_ref().map(|open| open.status).or_else(|| slot.known.as_ref().map(|known| known.status))
    }

    /// Marks a message for the next flush.
    pub(super) fn touch(&mut self, id: MessageId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.dirty
        {
            slot.dirty = true;
            self.touched.push(id);
        }
    }

    /// Changes an open message.
    pub(super) fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.slots.get_mut(&id).and_then(|slot| slot.open.as_mut()) {
            change(open);
            self.touch(id);
        }
    }

    /// Ends an open message. False, and nothing is changed, if it is not open.
    pub(super) fn end(&mut self, id: MessageId, ending: Ending) -> bool {
        let clock = self.clock();
        let Some(slot) = self.slots.get_mut(&id) else { return false };
        let Some(open) = slot.open.take() else { return false };
        if !slot.dirty {
            slot.dirty = true;
            self.touched.push(id);
        }
        let fate = Fate {
            seq: slot.seq,
            status: ending.status,
            processed_at: Some(clock),
            retry_count: open.retry_count,
            attempt: open.attempt,
            may_have_arrived: open.may_have_arrived,
            dead_reason: ending.reason.map(Arc::from),
            error: ending.error.or(open.error),
            last_request: ending.request.or_else(|| slot.fate.as_ref()?.last_request),
        };
        if let Some(known) = slot.known.as_mut() {
            known.status = fate.status;
            known.attempt = fate.attempt;
            known.retry_count = fate.retry_count;
            known.may_have_arrived = fate.may_have_arrived;
            known.dead_reason.clone_from(&fate.dead_reason);
            known.error.clone_from(&fate.error);
            known.last_request = fate.last_request.or(known.last_request);
        }
        slot.fate = Some(fate);
        let claimed = u64::from(open.hold.is_some());
        self.count(&open.target, |counters| {
            less(&mut counters.depth, 1);
            less(&mut counters.in_flight, claimed);
            counters.delivered_total += u64::from(ending.status == Status::Delivered);
            counters.dead_letters += u64::from(ending.status == Status::DeadLetter);
        });
        true
    }

    /// Puts an open, unclaimed message under a claim.
    pub(super) fn hold(&mut self, id: MessageId, attempt: u32, hold: Hold) -> bool {
        let Some(open) = self.slots.get(&id).and_then(|slot| slot.open.as_ref()) else { return false };
        let Some(status) = open.status.after(Transition::Claim, open.retry_count > 0) else { return false };
        let target = open.target.clone();
        self.change(id, |open| {
            open.status = status;
            open.attempt = attempt;
            open.hold = Some(hold);
        });
        self.count(&target, |counters| counters.in_flight += 1);
        true
    }

    /// Takes the claim off an open message: it waits again.
    pub(super) fn let_go(&mut self, id: MessageId, transition: Transition, due: Option<Timestamp>) -> bool {
        let clock = self.clock();
        let Some(open) = self.slots.get(&id).and_then(|slot| slot.open.as_ref()) else { return false };
        let Some(status) = open.status.after(transition, open.retry_count > 0) else { return false };
        let (target, due) = (open.target.clone(), due.unwrap_or(open.due));
        self.change(id, |open| {
            open.status = status;
            open.due = due;
            open.hold = None;
        });
        self.count(&target, |counters| less(&mut counters.in_flight, 1));
        self.effects.waits(&target, due, clock);
        true
    }

    /// Takes away a claim whose lease has run out. Its node may have died in the middle of the attempt, so nobody knows
    /// whether the target got the message.
    pub(super) fn lapse(&mut self, id: MessageId) {
        let Some(open) = self.slots.get(&id).and_then(|slot| slot.open.as_ref()) else { return };
        let Some(hold) = open.hold else { return };
        let attempt = hold.unreported(open.attempt);
        if self.let_go(id, Transition::Release, None) {
            self.attempts.push((id, attempt));
            self.change(id, |open| {
                open.may_have_arrived = true;
                open.error = Some(UNREPORTED.into());
            });
        }
    }
}
