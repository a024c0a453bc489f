//! Reads a whole database, message by message, for a copy into another store. The node must not run.

use std::path::Path;

use futures::TryStreamExt;
use hub_core::id::MessageId;
use hub_core::message::{Attempt, Transition};
use hub_core::port::AppliedMark;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

use super::bulk::Bulk;
use super::database;
use super::fault::Fault;
use super::folder::Folder;
use super::read::{read_attempt, read_message};
use super::row::{self, Open, UNREPORTED, blob, open_columns};
use crate::copy::{Batch, Grown, Key, Totals, Waits, Whole};

/// Most messages, and about the most bytes, of one part of a copy; one message always fits.
const MESSAGES: u32 = 1_000;
const BYTES: usize = 4 << 20;
/// What a message, and an attempt, weigh besides their texts.
const MESSAGE_WEIGHT: usize = 300;
const ATTEMPT_WEIGHT: usize = 500;
/// Keys of one part.
const KEYS: u32 = 2_000;

const WHOLE: &str = concat!(
    "SELECT m.seq, m.id, m.sender_service, m.target_service, m.message_type, m.content, m.metadata, m.priority, \
     m.created_at, m.expires_at, m.max_retries, m.traceparent, m.checksum, m.correlation_id, m.deliver_at, \
     m.too_old_at, m.status, m.processed_at, m.retry_count, m.attempt, m.may_have_arrived, m.dead_reason, \
     m.error_message, m.last_request, ",
    open_columns!(),
    " FROM messages m LEFT JOIN deliveries d ON d.id = m.id WHERE m.seq > ? ORDER BY m.seq LIMIT ?"
);
/// Where the columns of the open row begin.
const OPEN_AT: usize = 24;

static ATTEMPTS: Bulk = Bulk::new(
    "reading attempts",
    "SELECT a.number, a.node, a.started_at, a.duration_ms, a.outcome, a.http_status, a.instance, a.error_class, \
     a.response, a.id FROM attempts a WHERE a.id IN (",
    "?",
    ")",
);

macro_rules! keys {
    ($where:literal) => {
        concat!(
            "SELECT i.caller, i.key, i.fingerprint, i.message, i.accepted_at, i.stored_at FROM idempotency i ",
            $where,
            " ORDER BY i.caller, i.key LIMIT "
        )
    };
}
const KEYS_FROM: &str = concat!(keys!(""), "? OFFSET ?");
const KEYS_AFTER: &str = concat!(keys!("WHERE (i.caller, i.key) > (?, ?)"), "?");

const TOTALS: &str = "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM deliveries), \
     (SELECT count(*) FROM messages m INDEXED BY messages_dead WHERE m.status = 'dead_letter'), \
     (SELECT count(*) FROM idempotency)";
const GROWN: &str = "SELECT b.target, b.accepted_total, b.delivered_total FROM backlog b ORDER BY b.target";

/// A database that nobody writes to, from its first message to its last.
pub struct Walk {
    connection: SqliteConnection,
    mark: AppliedMark,
    totals: Totals,
}

impl Walk {
    /// Opens the current database of the folder and checks it.
    ///
    /// # Errors
    /// It is not ours, of a newer version, damaged, or the disk fails.
    pub async fn open(folder: &Path) -> Result<Self, Fault> {
        let folder = Folder::open(folder)?;
        let mut connection = database::open_writer(&folder.database()).await?;
        let (mark, _) = database::read_state(&mut connection).await?;
        let during = "counting messages";
        let found = sqlx::query(TOTALS).fetch_one(&mut connection).await.map_err(Fault::sql(during))?;
        let one = |column| row::get::<i64>(&found, column, "count").map(i64::cast_unsigned);
        let totals = Totals { messages: one(0)?, open: one(1)?, dead_letters: one(2)?, keys: one(3)? };
        Ok(Self { connection, mark, totals })
    }

    /// How far it has applied the log.
    #[must_use]
    pub const fn applied(&self) -> &AppliedMark {
        &self.mark
    }

    /// What there is.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Lets go of the files.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn close(self) -> Result<(), Fault> {
        self.connection.close().await.map_err(Fault::sql("closing the database"))
    }

    /// Messages after `seq`; none when that was the last.
    pub(crate) async fn messages(&mut self, after: i64) -> Result<Batch, Fault> {
        let during = "reading messages";
        let mut batch = Batch::default();
        let mut weight = 0;
        {
            let mut rows = sqlx::query(WHOLE).bind(after).bind(MESSAGES).fetch(&mut self.connection);
            while let Some(found) = rows.try_next().await.map_err(Fault::sql(during))? {
                let (whole, lapsed) = read(&found)?;
                weight += weigh(&whole);
                batch.attempts.extend(lapsed.map(|attempt| (whole.message.id, attempt)));
                batch.messages.push(whole);
                if weight >= BYTES {
                    break;
                }
            }
        }
        let ids: Vec<MessageId> = batch.messages.iter().map(|whole| whole.message.id).collect();
        let rows = ATTEMPTS.fetch(&mut self.connection, &ids, |query, id| query.bind(blob(*id))).await?;
        for found in &rows {
            batch.attempts.push((row::message_id(row::get(found, 9, "id")?)?, read_attempt(found)?));
        }
        Ok(batch)
    }

    /// Keys beyond the first `count`.
    pub(crate) async fn keys_from(&mut self, count: u64) -> Result<Vec<Key>, Fault> {
        let query = sqlx::query(KEYS_FROM).bind(KEYS).bind(count.cast_signed());
        let rows = query.fetch_all(&mut self.connection).await.map_err(Fault::sql("reading keys"))?;
        rows.iter().map(read_key).collect()
    }

    /// Keys after this one.
    pub(crate) async fn keys_after(&mut self, (caller, key): &(String, String)) -> Result<Vec<Key>, Fault> {
        let query = sqlx::query(KEYS_AFTER).bind(caller).bind(key).bind(KEYS);
        let rows = query.fetch_all(&mut self.connection).await.map_err(Fault::sql("reading keys"))?;
        rows.iter().map(read_key).collect()
    }

    /// The counters that rows cannot tell.
    pub(crate) async fn grown(&mut self) -> Result<Vec<Grown>, Fault> {
        let rows = sqlx::query(GROWN).fetch_all(&mut self.connection).await;
        let rows = rows.map_err(Fault::sql("reading the counters"))?;
        let grown = |found: &SqliteRow| {
            let count = |column| row::get::<i64>(found, column, "counter").map(i64::cast_unsigned);
            Ok(Grown { target: row::service(found, 0, "target")?, accepted: count(1)?, delivered: count(2)? })
        };
        rows.iter().map(grown).collect()
    }
}

fn weigh(whole: &Whole) -> usize {
    let attempts = whole.waits.as_ref().map_or(whole.attempt, |waits| waits.attempt);
    let texts = whole.message.content.len() + whole.message.metadata.as_ref().map_or(0, |text| text.len());
    MESSAGE_WEIGHT + texts + usize::try_from(attempts).unwrap_or(0).saturating_mul(ATTEMPT_WEIGHT)
}

/// The message, and the attempt that its node did not come to report.
fn read(found: &SqliteRow) -> Result<(Whole, Option<Attempt>), Fault> {
    let message = read_message(found, 1)?;
    let open = Open::read(found, OPEN_AT)?;
    let lapsed = open.as_ref().and_then(|open| open.hold.map(|hold| hold.unreported(open.attempt)));
    let request: Option<&[u8]> = row::get(found, 23, "last_request")?;
    let whole = Whole {
        seq: row::get(found, 0, "seq")?,
        message,
        correlation_id: row::text(found, 13, "correlation_id")?,
        deliver_at: row::optional_time(found, 14, "deliver_at")?,
        too_old_at: row::time(found, 15, "too_old_at")?,
        status: row::status(found, 16)?,
        processed_at: row::optional_time(found, 17, "processed_at")?,
        retry_count: row::get(found, 18, "retry_count")?,
        attempt: row::get(found, 19, "attempt")?,
        may_have_arrived: row::get(found, 20, "may_have_arrived")?,
        dead_reason: row::text(found, 21, "dead_reason")?,
        error: row::text(found, 22, "error_message")?,
        last_request: request
            .map(Uuid::from_slice)
            .transpose()
            .map_err(|error| Fault::Corrupt(format!("column last_request: {error}")))?,
        waits: open.map(waits),
    };
    if whole.waits.is_none() && whole.status.is_open() {
        return Err(Fault::Corrupt(format!("message {} waits, and has no delivery row", whole.message.id)));
    }
    Ok((whole, lapsed))
}

/// As it waits once its claim, if it has one, is taken away.
fn waits(open: Open) -> Waits {
    let claimed = open.hold.is_some();
    let status = open.status.after(Transition::Release, open.retry_count > 0);
    Waits {
        status: status.unwrap_or(open.status),
        due: open.due,
        ends_at: open.ends_at(),
        attempt: open.attempt,
        retry_count: open.retry_count,
        may_have_arrived: open.may_have_arrived || claimed,
        error: if claimed { Some(UNREPORTED.into()) } else { open.error },
    }
}

fn read_key(found: &SqliteRow) -> Result<Key, Fault> {
    Ok(Key {
        caller: row::get(found, 0, "caller")?,
        key: row::get(found, 1, "key")?,
        fingerprint: row::get(found, 2, "fingerprint")?,
        message: row::message_id(row::get(found, 3, "message")?)?.0,
        accepted_at: row::time(found, 4, "accepted_at")?,
        stored_at: row::time(found, 5, "stored_at")?,
    })
}
