//! Accepting messages.

use std::collections::BTreeMap;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::message::{NewMessage, Status};
use hub_core::port::{AcceptRefusal, Accepted};

use super::load::key_name;
use super::work::{KeyRow, Known, Slot, Work};
use crate::sqlite::command::{Insert, Item};
use crate::sqlite::row::{Hold, Open};

/// How long a caller's key is known.
pub(super) const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

type Verdict = Result<Option<Accepted>, AcceptRefusal>;

impl Work<'_> {
    pub(super) fn insert(&mut self, insert: Insert) -> Vec<Result<Accepted, AcceptRefusal>> {
        if insert.atomic {
            if let Some(refusals) = self.refuse_together(&insert) {
                for item in &insert.items {
                    self.effects.not_inserted(self.node, item);
                }
                return refusals;
            }
        }
        let max_backlog = insert.max_backlog;
        insert.items.into_iter().map(|item| self.insert_one(item, max_backlog)).collect()
    }

    fn insert_one(&mut self, item: Item, max_backlog: u64) -> Result<Accepted, AcceptRefusal> {
        match self.judge(&item.message, max_backlog, 0) {
            Ok(None) => {
                self.effects.inserted(self.node, &item);
                Ok(self.take(item))
            }
            Ok(Some(first)) => {
                self.effects.not_inserted(self.node, &item);
                Ok(first)
            }
            Err(refusal) => {
                self.effects.not_inserted(self.node, &item);
                Err(refusal)
            }
        }
    }

    /// The refusals of an atomic batch; `None` if all of it can be taken.
    fn refuse_together(&self, insert: &Insert) -> Option<Vec<Result<Accepted, AcceptRefusal>>> {
        let mut more: BTreeMap<&ServiceName, u64> = BTreeMap::new();
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(insert.items.len());
        let mut keys = BTreeMap::new();
        for item in &insert.items {
            let message = &item.message;
            let before = more.get(&message.target).copied().unwrap_or(0);
            let mut verdict = self.judge(message, insert.max_backlog, before);
            if let Some(key) = &message.idempotency {
                // The same key twice within the batch: equal bodies are one message, others exclude each other.
                let first = keys.entry((&key.caller, &key.key)).or_insert(key.fingerprint);
                if *first != key.fingerprint {
                    verdict = Err(AcceptRefusal::KeyReused);
                }
            }
            if matches!(verdict, Ok(None)) {
                *more.entry(&message.target).or_default() += 1;
            }
            verdicts.push(verdict);
        }
        if verdicts.iter().all(Result::is_ok) {
            return None;
        }
        Some(
            verdicts
                .into_iter()
                .map(|verdict| Err(verdict.err().unwrap_or(AcceptRefusal::BatchRefused)))
                .collect(),
        )
    }

    /// What becomes of a message if `before` more of its target were taken just before it: `None` if it is new.
    fn judge(&self, message: &NewMessage, max_backlog: u64, before: u64) -> Verdict {
        if let Some(known) = self.slots.get(&message.id).and_then(|slot| slot.known.as_ref()) {
            return Ok(Some(accepted(message, known.created_at, false)));
        }
        if let Some(key) = &message.idempotency {
            let stored =
                self.keys.get(&key_name(key)).filter(|row| self.clock().since(row.stored_at) < KEY_LIFETIME);
            if let Some(row) = stored {
                if row.fingerprint != key.fingerprint {
                    return Err(AcceptRefusal::KeyReused);
                }
                let first = accepted(message, row.accepted_at, true);
                return Ok(Some(Accepted { id: row.message, ..first }));
            }
        }
        let depth = self.ledger.backlog.get(&message.target).map_or(0, |counters| counters.depth);
        if depth.saturating_add(before) >= max_backlog {
            return Err(AcceptRefusal::BacklogFull {
                target: message.target.clone(),
                retry_after: Duration::ZERO,
            });
        }
        Ok(None)
    }

    fn take(&mut self, item: Item) -> Accepted {
        let clock = self.clock();
        let Item { message, claim } = item;
        let seq = self.ledger.next_seq;
        self.ledger.next_seq += 1;
        let hold = claim.as_ref().map(|claim| Hold {
            owner: claim.owner,
            term: claim.term,
            claimed_at: clock,
            lease_end: claim.lease_end,
        });
        let open = Open {
            id: message.id,
            seq,
            target: message.target.clone(),
            priority: message.priority,
            status: if hold.is_some() { Status::Delivering } else { Status::Pending },
            created_at: message.created_at,
            due: message.due_at(),
            expires_at: message.expires_at,
            too_old_at: message.too_old_at,
            attempt: claim.as_ref().map_or(0, |claim| claim.attempt),
            retry_count: 0,
            may_have_arrived: false,
            hold,
            error: None,
        };
        if hold.is_none() {
            self.effects.waits(&open.target, open.due, clock);
        }
        self.count(&message.target, |counters| {
            counters.depth += 1;
            counters.in_flight += u64::from(hold.is_some());
            counters.accepted_total += 1;
        });
        self.remember_key(&message);
        let answer = accepted(&message, message.created_at, false);
        let known = Some(Known::new(&message));
        self.slots.insert(
            message.id,
            Slot { seq, known, open: Some(open), stored: false, dirty: true, fate: None },
        );
        self.touched.push(message.id);
        self.inserts.push((seq, message));
        answer
    }

    fn remember_key(&mut self, message: &NewMessage) {
        let Some(key) = &message.idempotency else { return };
        let name = key_name(key);
        let row = KeyRow {
            fingerprint: key.fingerprint,
            message: message.id,
            accepted_at: message.created_at,
            stored_at: self.clock(),
        };
        self.keys.insert(name.clone(), row);
        self.new_keys.push(name);
    }
}

impl Known {
    fn new(message: &NewMessage) -> Self {
        Self {
            target: message.target.clone(),
            priority: message.priority,
            created_at: message.created_at,
            expires_at: message.expires_at,
            too_old_at: message.too_old_at,
            status: Status::Pending,
            attempt: 0,
            retry_count: 0,
            may_have_arrived: false,
            dead_reason: None,
            error: None,
            last_request: None,
        }
    }
}

fn accepted(message: &NewMessage, created_at: hub_core::time::Timestamp, replayed: bool) -> Accepted {
    Accepted { id: message.id, status: Status::Pending, created_at, replayed }
}
