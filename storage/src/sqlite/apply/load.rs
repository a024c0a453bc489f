//! Reads in bulk what a batch of entries touches.

use std::collections::HashSet;

use hub_core::id::MessageId;
use hub_core::message::{Fingerprint, IdempotencyKey};
use hub_core::port::Entry;
use uuid::Uuid;

use super::work::{KeyName, KeyRow, Known, Slot, Work};
use crate::sqlite::bulk::Bulk;
use crate::sqlite::command::Command;
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, Open, blob, open_columns};

/// Open rows alone: enough to settle.
static OPEN: Bulk = Bulk::new(
    "reading open messages",
    concat!("SELECT ", open_columns!(), " FROM deliveries d WHERE d.id IN ("),
    "?",
    ")",
);

/// Whole messages: for inserts (which nearly always find nothing) and for what operators do.
static WHOLE: Bulk = Bulk::new(
    "reading messages",
    concat!(
        "SELECT m.id, m.seq, m.target_service, m.priority, m.created_at, m.expires_at, m.too_old_at, m.status, \
         m.attempt, m.retry_count, m.may_have_arrived, m.dead_reason, m.error_message, m.last_request, ",
        open_columns!(),
        " FROM messages m LEFT JOIN deliveries d ON d.id = m.id WHERE m.id IN ("
    ),
    "?",
    ")",
);

static KEYS: Bulk = Bulk::new(
    "reading idempotency keys",
    "SELECT i.caller, i.key, i.fingerprint, i.message, i.accepted_at, i.stored_at \
     FROM idempotency i WHERE (i.caller, i.key) IN (VALUES ",
    "(?,?)",
    ")",
);

#[derive(Default)]
struct Needs {
    whole: Vec<MessageId>,
    open: Vec<MessageId>,
    keys: Vec<KeyName>,
}

impl Needs {
    fn of(entries: &[Entry<Command>]) -> Self {
        let mut needs = Self::default();
        let mut seen = HashSet::new();
        let mut settled = Vec::new();
        let mut keys = HashSet::new();
        for submitted in entries.iter().flat_map(|entry| &entry.commands) {
            match &submitted.command {
                Command::Insert(insert) => {
                    for item in &insert.items {
                        needs.whole.extend(seen.insert(item.message.id).then_some(item.message.id));
                        if let Some(key) = &item.message.idempotency {
                            let name = key_name(key);
                            needs.keys.extend(keys.insert(name.clone()).then_some(name));
                        }
                    }
                }
                Command::Cancel(id) | Command::Replay(id) | Command::Discard(id) => {
                    needs.whole.extend(seen.insert(*id).then_some(*id));
                }
                Command::Settle(all) => settled.extend(all.iter().map(|one| one.claim.message)),
                Command::Claim(_) | Command::Sweep(_) => {}
            }
        }
        needs.open.extend(settled.into_iter().filter(|id| seen.insert(*id)));
        needs
    }
}

pub(super) fn key_name(key: &IdempotencyKey) -> KeyName {
    (key.caller.clone(), key.key.clone())
}

impl Work<'_> {
    /// Reads what `entries` touch, as it is before them.
    pub(super) async fn load(&mut self, entries: &[Entry<Command>]) -> Result<(), Fault> {
        let needs = Needs::of(entries);
        for found in OPEN.fetch(self.connection, &needs.open, |query, id| query.bind(blob(*id))).await? {
            if let Some(open) = Open::read(&found, 0)? {
                self.adopt(open);
            }
        }
        for found in WHOLE.fetch(self.connection, &needs.whole, |query, id| query.bind(blob(*id))).await? {
            let (id, slot) = read_whole(&found)?;
            self.slots.insert(id, slot);
        }
        let bind_key = |query: crate::sqlite::bulk::Query, (caller, key): &KeyName| {
            query.bind(caller.clone()).bind(key.clone())
        };
        for found in KEYS.fetch(self.connection, &needs.keys, bind_key).await? {
            let (name, stored) = read_key(&found)?;
            self.keys.insert(name, stored);
        }
        Ok(())
    }
}

fn read_whole(found: &sqlx::sqlite::SqliteRow) -> Result<(MessageId, Slot), Fault> {
    let id = row::message_id(row::get(found, 0, "id")?)?;
    let request: Option<&[u8]> = row::get(found, 13, "last_request")?;
    let known = Known {
        target: row::service(found, 2, "target_service")?,
        priority: row::priority(found, 3)?,
        created_at: row::time(found, 4, "created_at")?,
        expires_at: row::optional_time(found, 5, "expires_at")?,
        too_old_at: row::time(found, 6, "too_old_at")?,
        status: row::status(found, 7)?,
        attempt: row::get(found, 8, "attempt")?,
        retry_count: row::get(found, 9, "retry_count")?,
        may_have_arrived: row::get(found, 10, "may_have_arrived")?,
        dead_reason: row::text(found, 11, "dead_reason")?,
        error: row::text(found, 12, "error_message")?,
        last_request: match request {
            Some(bytes) => {
                Some(Uuid::from_slice(bytes).map_err(|_| Fault::Corrupt("column last_request".to_owned()))?)
            }
            None => None,
        },
    };
    let open = Open::read(found, 14)?;
    let stored = open.is_some();
    let slot =
        Slot { seq: row::get(found, 1, "seq")?, known: Some(known), open, stored, dirty: false, fate: None };
    Ok((id, slot))
}

fn read_key(found: &sqlx::sqlite::SqliteRow) -> Result<(KeyName, KeyRow), Fault> {
    let fingerprint: &[u8] = row::get(found, 2, "fingerprint")?;
    let fingerprint = fingerprint.try_into().map_err(|_| Fault::Corrupt("column fingerprint".to_owned()))?;
    Ok((
        (row::get(found, 0, "caller")?, row::get(found, 1, "key")?),
        KeyRow {
            fingerprint: Fingerprint(fingerprint),
            message: row::message_id(row::get(found, 3, "message")?)?,
            accepted_at: row::time(found, 4, "accepted_at")?,
            stored_at: row::time(found, 5, "stored_at")?,
        },
    ))
}
