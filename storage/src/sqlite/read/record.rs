//! Messages as they are shown, and as they are handed to the dispatcher.

use std::collections::HashMap;

use hub_core::delivery::AttemptOutcome;
use hub_core::id::{MessageId, NodeId};
use hub_core::message::{Attempt, Message, Record};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::Reader;
use crate::sqlite::bulk::Bulk;
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, blob};

static RECORDS: Bulk = Bulk::new(
    "reading messages",
    "SELECT m.id, m.sender_service, m.target_service, m.message_type, m.content, m.metadata, m.priority, \
     m.created_at, m.expires_at, m.max_retries, m.traceparent, m.checksum, m.status, m.retry_count, m.processed_at, \
     m.error_message, m.dead_reason, m.deliver_at, d.status, d.retry_count, d.error_message, d.due, d.owner \
     FROM messages m LEFT JOIN deliveries d ON d.id = m.id WHERE m.id IN (",
    "?",
    ")",
);

const ATTEMPTS: &str = "SELECT a.number, a.node, a.started_at, a.duration_ms, a.outcome, a.http_status, \
     a.instance, a.error_class, a.response FROM attempts a WHERE a.id = ? ORDER BY a.number";

const OUTCOMES: [AttemptOutcome; 6] = [
    AttemptOutcome::Delivered,
    AttemptOutcome::Failed,
    AttemptOutcome::Rejected,
    AttemptOutcome::NotSent,
    AttemptOutcome::NoAnswer,
    AttemptOutcome::HubFault,
];

impl Reader {
    /// One message with its attempts, all of one moment.
    pub(in crate::sqlite) async fn record(&self, id: MessageId) -> Result<Option<Record>, Fault> {
        let during = "reading a message";
        let mut moment = self.pool().begin().await.map_err(Fault::sql(during))?;
        let Some(mut record) = records(&mut moment, &[id]).await?.pop() else { return Ok(None) };
        let attempts = sqlx::query(ATTEMPTS)
            .bind(blob(id))
            .fetch_all(&mut *moment)
            .await
            .map_err(Fault::sql("reading attempts"))?;
        moment.commit().await.map_err(Fault::sql(during))?;
        record.attempts = attempts.iter().map(read_attempt).collect::<Result<_, _>>()?;
        Ok(Some(record))
    }

    /// What of `ids` there is and is whole, by id. A damaged one is left out: it must not hold up the others.
    pub(in crate::sqlite) async fn messages(
        &self,
        ids: &[MessageId],
    ) -> Result<HashMap<MessageId, Message>, Fault> {
        let mut connection = self.pool().acquire().await.map_err(Fault::sql("reading messages"))?;
        let rows = RECORDS.fetch(&mut connection, ids, |query, id| query.bind(blob(*id))).await?;
        let whole = |found: &SqliteRow| match read_message(found, 0) {
            Ok(message) => Some((message.id, message)),
            Err(error) => {
                tracing::error!(%error, "a message cannot be delivered from this node");
                None
            }
        };
        Ok(rows.iter().filter_map(whole).collect())
    }
}

/// What of `ids` there is, in no order, without attempts.
pub(super) async fn records(
    connection: &mut SqliteConnection,
    ids: &[MessageId],
) -> Result<Vec<Record>, Fault> {
    let rows = RECORDS.fetch(connection, ids, |query, id| query.bind(blob(*id))).await?;
    rows.iter().map(read_record).collect()
}

/// From twelve columns that start at `at`: what a sender gave, in the order of [`RECORDS`], and its checksum.
pub(in crate::sqlite) fn read_message(found: &SqliteRow, at: usize) -> Result<Message, Fault> {
    let message = Message {
        id: row::message_id(row::get(found, at, "id")?)?,
        sender: row::service(found, at + 1, "sender_service")?,
        target: row::service(found, at + 2, "target_service")?,
        message_type: row::get::<&str>(found, at + 3, "message_type")?.into(),
        content: row::get::<&str>(found, at + 4, "content")?.into(),
        metadata: row::text(found, at + 5, "metadata")?,
        priority: row::priority(found, at + 6)?,
        created_at: row::time(found, at + 7, "created_at")?,
        expires_at: row::optional_time(found, at + 8, "expires_at")?,
        max_retries: row::get(found, at + 9, "max_retries")?,
        traceparent: row::text(found, at + 10, "traceparent")?,
    };
    let checksum = row::envelope_checksum(
        &[message.sender.as_str(), message.target.as_str(), &message.message_type, &message.content],
        message.metadata.as_deref(),
        message.traceparent.as_deref(),
        message.id,
        message.created_at,
    );
    if i64::from(checksum) == row::get::<i64>(found, at + 11, "checksum")? {
        Ok(message)
    } else {
        Err(Fault::Corrupt(format!("message {} does not fit its checksum", message.id)))
    }
}

fn read_record(found: &SqliteRow) -> Result<Record, Fault> {
    let message = read_message(found, 0)?;
    let open = row::get::<Option<&str>>(found, 18, "status")?.is_some();
    let claimed = row::get::<Option<i64>>(found, 22, "owner")?.is_some();
    let (status, retry_count, error) = if open { (18, 19, 20) } else { (12, 13, 15) };
    Ok(Record {
        message,
        status: row::status(found, status)?,
        retry_count: row::get(found, retry_count, "retry_count")?,
        processed_at: row::optional_time(found, 14, "processed_at")?,
        error_message: row::text(found, error, "error_message")?,
        dead_reason: row::text(found, 16, "dead_reason")?,
        deliver_at: row::optional_time(found, 17, "deliver_at")?,
        retry_at: row::optional_time(found, 21, "due")?.filter(|_| !claimed),
        attempts: Vec::new(),
    })
}

/// From nine columns, in the order of [`ATTEMPTS`].
pub(in crate::sqlite) fn read_attempt(found: &SqliteRow) -> Result<Attempt, Fault> {
    let word: &str = row::get(found, 4, "outcome")?;
    let outcome = OUTCOMES.into_iter().find(|outcome| outcome.as_str() == word);
    let instance = match row::get::<Option<&str>>(found, 6, "instance")? {
        Some(text) => {
            Some(text.parse().map_err(|error| Fault::Corrupt(format!("column instance: {text:?} {error}")))?)
        }
        None => None,
    };
    Ok(Attempt {
        number: row::get(found, 0, "number")?,
        node: NodeId(row::get::<i64>(found, 1, "node")?.cast_unsigned()),
        instance,
        started_at: row::time(found, 2, "started_at")?,
        duration_ms: row::get(found, 3, "duration_ms")?,
        outcome: outcome.ok_or_else(|| Fault::Corrupt(format!("column outcome: {word:?}")))?,
        http_status: row::get(found, 5, "http_status")?,
        error_class: row::text(found, 7, "error_class")?,
        response: row::text(found, 8, "response")?,
    })
}
