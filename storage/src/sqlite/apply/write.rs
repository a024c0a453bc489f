//! Writes in bulk what the commands changed.

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Attempt, NewMessage, Status};
use hub_core::time::Timestamp;

use super::work::{Counters, Fate, KeyName, KeyRow, Work};
use crate::sqlite::bulk::{Bulk, Query};
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, Open, blob};

static MESSAGES: Bulk = Bulk::new(
    "inserting messages",
    "INSERT INTO messages (seq, id, sender_service, target_service, message_type, priority, status, created_at, \
     deliver_at, expires_at, too_old_at, max_retries, checksum, correlation_id, traceparent, metadata, content) \
     VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

static FATES: Bulk = Bulk::new(
    "ending messages",
    "UPDATE messages SET status = v.column2, processed_at = v.column3, retry_count = v.column4, \
     attempt = v.column5, may_have_arrived = v.column6, dead_reason = v.column7, error_message = v.column8, \
     last_request = coalesce(v.column9, last_request) FROM (VALUES ",
    "(?,?,?,?,?,?,?,?,?)",
    ") AS v WHERE messages.seq = v.column1",
);

static OPEN: Bulk = Bulk::new(
    "writing open messages",
    "REPLACE INTO deliveries (id, seq, target, priority, status, created_at, due, expires_at, too_old_at, \
     ends_at, attempt, retry_count, may_have_arrived, owner, term, claimed_at, lease_end, error_message, \
     checksum) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "",
);

static CLOSED: Bulk = Bulk::new("closing messages", "DELETE FROM deliveries WHERE id IN (", "?", ")");

static ATTEMPTS: Bulk = Bulk::new(
    "writing attempts",
    "REPLACE INTO attempts (id, number, node, started_at, duration_ms, outcome, http_status, instance, \
     error_class, response) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?)",
    "",
);

static KEYS: Bulk = Bulk::new(
    "writing idempotency keys",
    "REPLACE INTO idempotency (caller, key, fingerprint, message, accepted_at, stored_at) VALUES ",
    "(?,?,?,?,?,?)",
    "",
);

static BACKLOG: Bulk = Bulk::new(
    "writing counters",
    "REPLACE INTO backlog (target, depth, in_flight, accepted_total, delivered_total, dead_letters) VALUES ",
    "(?,?,?,?,?,?)",
    "",
);

impl Work<'_> {
    /// Writes all changes so far; queries see them after.
    pub(super) async fn flush(&mut self) -> Result<(), Fault> {
        let (mut fates, mut open, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.dirty = false;
            fates.extend(slot.fate.take());
            match &slot.open {
                Some(row) => {
                    debug_assert_eq!(row.hold.is_some(), row.status == Status::Delivering, "{row:?}");
                    open.push(row.clone());
                }
                None if slot.stored => closed.push(id),
                None => {}
            }
            slot.stored = slot.open.is_some();
        }
        let inserts = std::mem::take(&mut self.inserts);
        let attempts = std::mem::take(&mut self.attempts);
        let connection = &mut *self.connection;
        MESSAGES.execute(connection, &inserts, bind_message).await?;
        FATES.execute(connection, &fates, bind_fate).await?;
        CLOSED.execute(connection, &closed, |query, id: &MessageId| query.bind(blob(*id))).await?;
        OPEN.execute(connection, &open, bind_open).await?;
        ATTEMPTS.execute(connection, &attempts, bind_attempt).await?;
        let names = std::mem::take(&mut self.new_keys);
        let keys: Vec<(KeyName, KeyRow)> = names
            .into_iter()
            .filter_map(|name| self.keys.get(&name).map(|row| (name.clone(), *row)))
            .collect();
        KEYS.execute(connection, &keys, bind_key).await?;
        Ok(())
    }

    /// Writes the counters that changed; once, at the end of a batch.
    pub(super) async fn write_counters(&mut self) -> Result<(), Fault> {
        let counted = std::mem::take(&mut self.counted);
        let rows: Vec<(ServiceName, Counters)> = counted
            .into_iter()
            .map(|target| {
                let counters = self.ledger.backlog.get(&target).copied().unwrap_or_default();
                (target, counters)
            })
            .collect();
        BACKLOG.execute(self.connection, &rows, bind_counters).await?;
        Ok(())
    }
}

fn bind_message(query: Query, (seq, message): &(i64, NewMessage)) -> Query {
    query
        .bind(*seq)
        .bind(blob(message.id))
        .bind(message.sender.as_str().to_owned())
        .bind(message.target.as_str().to_owned())
        .bind(message.message_type.clone())
        .bind(message.priority.get())
        .bind(Status::Pending.as_str())
        .bind(message.created_at.as_millis())
        .bind(message.deliver_at.map(Timestamp::as_millis))
        .bind(message.expires_at.map(Timestamp::as_millis))
        .bind(message.too_old_at.as_millis())
        .bind(message.max_retries)
        .bind(i64::from(row::content_checksum(message)))
        .bind(message.correlation_id.clone())
        .bind(message.traceparent.clone())
        .bind(message.metadata.clone())
        .bind(message.content.clone())
}

fn bind_fate(query: Query, fate: &Fate) -> Query {
    query
        .bind(fate.seq)
        .bind(fate.status.as_str())
        .bind(fate.processed_at.map(Timestamp::as_millis))
        .bind(i64::from(fate.retry_count))
        .bind(i64::from(fate.attempt))
        .bind(i64::from(fate.may_have_arrived))
        .bind(fate.dead_reason.clone())
        .bind(fate.error.clone())
        .bind(fate.last_request.map(|request| request.as_bytes().to_vec()))
}

fn bind_open(query: Query, open: &Open) -> Query {
    let hold = open.hold;
    query
        .bind(blob(open.id))
        .bind(open.seq)
        .bind(open.target.as_str().to_owned())
        .bind(open.priority.get())
        .bind(open.status.as_str())
        .bind(open.created_at.as_millis())
        .bind(open.due.as_millis())
        .bind(open.expires_at.map(Timestamp::as_millis))
        .bind(open.too_old_at.as_millis())
        .bind(open.ends_at().as_millis())
        .bind(i64::from(open.attempt))
        .bind(i64::from(open.retry_count))
        .bind(i64::from(open.may_have_arrived))
        .bind(hold.map(|hold| hold.owner.0.cast_signed()))
        .bind(hold.map(|hold| hold.term.cast_signed()))
        .bind(hold.map(|hold| hold.claimed_at.as_millis()))
        .bind(hold.map(|hold| hold.lease_end.as_millis()))
        .bind(open.error.clone())
        .bind(i64::from(open.checksum()))
}

fn bind_attempt(query: Query, (id, attempt): &(MessageId, Attempt)) -> Query {
    query
        .bind(blob(*id))
        .bind(i64::from(attempt.number))
        .bind(attempt.node.0.cast_signed())
        .bind(attempt.started_at.as_millis())
        .bind(i64::from(attempt.duration_ms))
        .bind(attempt.outcome.as_str())
        .bind(attempt.http_status.map(i64::from))
        .bind(attempt.instance.as_ref().map(|instance| instance.as_str().to_owned()))
        .bind(attempt.error_class.clone())
        .bind(attempt.response.clone())
}

fn bind_key(query: Query, ((caller, key), row): &(KeyName, KeyRow)) -> Query {
    query
        .bind(caller.clone())
        .bind(key.clone())
        .bind(row.fingerprint.0.to_vec())
        .bind(blob(row.message))
        .bind(row.accepted_at.as_millis())
        .bind(row.stored_at.as_millis())
}

fn bind_counters(query: Query, (target, counters): &(ServiceName, Counters)) -> Query {
    query
        .bind(target.as_str().to_owned())
        .bind(counters.depth.cast_signed())
        .bind(counters.in_flight.cast_signed())
        .bind(counters.accepted_total.cast_signed())
        .bind(counters.delivered_total.cast_signed())
        .bind(counters.dead_letters.cast_signed())
}
