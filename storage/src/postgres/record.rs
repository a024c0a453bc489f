//! Messages as they are shown.

use std::sync::Arc;
use std::time::Instant;

use hub_core::delivery::AttemptOutcome;
use hub_core::id::{MessageId, NodeId};
use hub_core::message::{Attempt, Record};
use hub_core::time::Timestamp;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::fault::{Fault, within};
use super::link::Link;
use super::row;

macro_rules! record_columns {
    () => {
        "m.id, m.sender_service, m.target_service, m.message_type, m.content::text, m.metadata_text, m.priority, \
         hub_millis(m.created_at), hub_millis(m.expires_at), m.max_retries, m.traceparent, \
         coalesce(d.status, m.status), coalesce(d.retry_count, m.retry_count), hub_millis(m.processed_at), \
         CASE WHEN d.id IS NULL THEN m.error_message ELSE d.error_message END, m.dead_reason, \
         hub_millis(m.deliver_at), CASE WHEN d.owner IS NULL THEN hub_millis(d.due) END"
    };
}

/// One message with its attempts, all of one moment.
pub(super) const ONE: &str = concat!(
    "SELECT ",
    record_columns!(),
    ", a.numbers, a.nodes, a.instances, a.started, a.durations, a.outcomes, a.http, a.classes, a.responses \
     FROM messages m LEFT JOIN deliveries d ON d.id = ANY (ARRAY[m.id]) CROSS JOIN LATERAL ( \
      SELECT array_agg(t.number ORDER BY t.number) AS numbers, array_agg(t.node ORDER BY t.number) AS nodes, \
      array_agg(t.instance ORDER BY t.number) AS instances, \
      array_agg(hub_millis(t.started_at) ORDER BY t.number) AS started, \
      array_agg(t.duration_ms ORDER BY t.number) AS durations, array_agg(t.outcome ORDER BY t.number) AS outcomes, \
      array_agg(t.http_status ORDER BY t.number) AS http, array_agg(t.error_class ORDER BY t.number) AS classes, \
      array_agg(t.response ORDER BY t.number) AS responses FROM attempts t WHERE t.id = $1) AS a \
     WHERE m.id = $1"
);

pub(super) const MANY: &str = concat!(
    "SELECT ",
    record_columns!(),
    " FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = ANY (ARRAY[u.id]) \
     LEFT JOIN deliveries d ON d.id = ANY (ARRAY[m.id])"
);

const OUTCOMES: [AttemptOutcome; 6] = [
    AttemptOutcome::Delivered,
    AttemptOutcome::Failed,
    AttemptOutcome::Rejected,
    AttemptOutcome::NotSent,
    AttemptOutcome::NoAnswer,
    AttemptOutcome::HubFault,
];

/// One message with its attempts.
pub(super) async fn one(link: &Link, id: MessageId, deadline: Instant) -> Result<Option<Record>, Fault> {
    let rows = link.read("reading a message", deadline, || sqlx::query(ONE).bind(id.0)).await?;
    let Some(found) = rows.first() else { return Ok(None) };
    Ok(Some(Record { attempts: read_attempts(found)?, ..read_record(found)? }))
}

/// What of `ids` there is, in no order, without attempts.
pub(super) async fn many(
    connection: &mut PgConnection,
    ids: &[MessageId],
    deadline: Instant,
) -> Result<Vec<Record>, Fault> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query(MANY).bind(ids).fetch_all(connection);
    within("reading messages", deadline, rows).await?.iter().map(read_record).collect()
}

fn read_record(found: &PgRow) -> Result<Record, Fault> {
    Ok(Record {
        message: row::message(found)?,
        status: row::status(found, 11)?,
        retry_count: row::count(found, 12)?,
        processed_at: row::optional_time(found, 13)?,
        error_message: row::text(found, 14)?,
        dead_reason: row::text(found, 15)?,
        deliver_at: row::optional_time(found, 16)?,
        retry_at: row::optional_time(found, 17)?,
        attempts: Vec::new(),
    })
}

/// A column of all attempts, oldest first; each has as many values as there are attempts.
fn column<'r, T>(found: &'r PgRow, at: usize) -> Result<std::vec::IntoIter<T>, Fault>
where
    Vec<T>: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    Ok(row::get::<Option<Vec<T>>>(found, at)?.unwrap_or_default().into_iter())
}

fn read_attempts(found: &PgRow) -> Result<Vec<Attempt>, Fault> {
    let numbers = column::<i32>(found, 18)?;
    let mut nodes = column::<i64>(found, 19)?;
    let mut instances = column::<Option<String>>(found, 20)?;
    let mut started = column::<i64>(found, 21)?;
    let mut durations = column::<i64>(found, 22)?;
    let mut outcomes = column::<String>(found, 23)?;
    let mut http = column::<Option<i32>>(found, 24)?;
    let mut classes = column::<Option<String>>(found, 25)?;
    let mut responses = column::<Option<String>>(found, 26)?;
    let damaged = |what: &str| Fault::Corrupt(format!("an attempt's {what}"));
    let mut attempts = Vec::new();
    for number in numbers {
        let word = outcomes.next().unwrap_or_default();
        let outcome = OUTCOMES.into_iter().find(|outcome| outcome.as_str() == word);
        let instance = instances.next().flatten().map(|text| text.parse()).transpose();
        attempts.push(Attempt {
            number: u32::try_from(number).map_err(|_| damaged("number"))?,
            node: NodeId(nodes.next().ok_or_else(|| damaged("node"))?.cast_unsigned()),
            instance: instance.map_err(|_| damaged("instance"))?,
            started_at: Timestamp::from_millis(started.next().ok_or_else(|| damaged("start"))?),
            duration_ms: u32::try_from(durations.next().unwrap_or_default()).unwrap_or(u32::MAX),
            outcome: outcome.ok_or_else(|| damaged("outcome"))?,
            http_status: http.next().flatten().and_then(|status| u16::try_from(status).ok()),
            error_class: classes.next().flatten().map(Arc::from),
            response: responses.next().flatten().map(Arc::from),
        });
    }
    Ok(attempts)
}
