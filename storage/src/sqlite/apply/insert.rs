//! Accepting messages.

use std::collections::{HashMap, HashSet};
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

type Judged = Result<Accepted, AcceptRefusal>;

impl Work<'_> {
    pub(super) fn insert(&mut self, insert: Insert) -> Vec<Judged> {
        if insert.atomic
            && let Some(refusals) = self.refuse_together(&insert)
        {
            for item in &insert.items {
                self.effects.not_inserted(self.node, item);
            }
            return refusals;
        }
        let max_backlog = insert.max_backlog;
        insert.items.into_iter().map(|item| self.insert_one(item, max_backlog)).collect()
    }

    fn insert_one(&mut self, item: Item, max_backlog: u64) -> Judged {
        let judged = self.known(&item.message);
        let judged = judged.or_else(|| self.no_room(&item.message.target, max_backlog, 0).map(Err));
        match judged {
            None => {
                self.effects.inserted(self.node, &item);
                Ok(self.take(item))
            }
            Some(judged) => {
                self.effects.not_inserted(self.node, &item);
                judged
            }
        }
    }

    /// The refusals of an atomic batch; `None` if all of it can be taken, one after the other.
    fn refuse_together(&self, insert: &Insert) -> Option<Vec<Judged>> {
        let (mut ids, mut keys, mut more) = (HashSet::new(), HashMap::new(), HashMap::new());
        let mut refusals = Vec::with_capacity(insert.items.len());
        for item in &insert.items {
            let message = &item.message;
            if ids.contains(&message.id) {
                refusals.push(None);
                continue;
            }
            let key = message.idempotency.as_ref();
            let earlier = key.and_then(|key| keys.get(&(&key.caller, &key.key)).map(|first| (key, first)));
            let before = more.get(&message.target).copied().unwrap_or(0);
            let refusal = match (self.known(message), earlier) {
                (Some(judged), _) => judged.err(),
                (None, Some((key, first))) => (*first != key.fingerprint).then_some(AcceptRefusal::KeyReused),
                (None, None) => {
                    let refusal = self.no_room(&message.target, insert.max_backlog, before);
                    if refusal.is_none() {
                        ids.insert(message.id);
                        keys.extend(key.map(|key| ((&key.caller, &key.key), key.fingerprint)));
                        more.insert(&message.target, before + 1);
                    }
                    refusal
                }
            };
            refusals.push(refusal);
        }
        if refusals.iter().all(Option::is_none) {
            return None;
        }
        Some(
            refusals.into_iter().map(|refusal| Err(refusal.unwrap_or(AcceptRefusal::BatchRefused))).collect(),
        )
    }

    /// The answer to a message that is known already, by its id or by its caller's key; `None` if it is new.
    fn known(&self, message: &NewMessage) -> Option<Judged> {
        if let Some(known) = self.slots.get(&message.id).and_then(|slot| slot.known.as_ref()) {
            return Some(Ok(accepted(message, known.created_at, false)));
        }
        let key = message.idempotency.as_ref()?;
        let row = self.keys.get(&key_name(key))?;
        if self.clock().since(row.stored_at) >= KEY_LIFETIME {
            return None;
        }
        if row.fingerprint != key.fingerprint {
            return Some(Err(AcceptRefusal::KeyReused));
        }
        let first = accepted(message, row.accepted_at, true);
        Some(Ok(Accepted { id: row.message, ..first }))
    }

    /// Why a new message cannot be taken if `before` more of its target are taken just before it.
    fn no_room(&self, target: &ServiceName, max_backlog: u64, before: u64) -> Option<AcceptRefusal> {
        let depth = self.ledger.backlog.get(target).map_or(0, |counters| counters.depth);
        (depth.saturating_add(before) >= max_backlog)
            .then(|| AcceptRefusal::BacklogFull { target: target.clone(), retry_after: Duration::ZERO })
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
