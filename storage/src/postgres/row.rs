//! Columns of rows, read as what they are.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Message, Priority, Status};
use hub_core::time::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

use super::fault::Fault;

/// Whole milliseconds, as statements take durations; at most some thousand years, so that the database can add them up.
pub(super) fn millis(duration: Duration) -> i64 {
    const MOST: i64 = 100_000_000_000_000;
    i64::try_from(duration.as_millis()).unwrap_or(MOST).min(MOST)
}

/// One column.
pub(super) fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T, Fault>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column).map_err(|error| Fault::Corrupt(format!("column {column}: {error}")))
}

pub(super) fn time(row: &PgRow, column: usize) -> Result<Timestamp, Fault> {
    get(row, column).map(Timestamp::from_millis)
}

pub(super) fn optional_time(row: &PgRow, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

pub(super) fn text(row: &PgRow, column: usize) -> Result<Option<Arc<str>>, Fault> {
    Ok(get::<Option<&str>>(row, column)?.map(Arc::from))
}

pub(super) fn message_id(row: &PgRow, column: usize) -> Result<MessageId, Fault> {
    get::<Uuid>(row, column).map(MessageId)
}

/// A word that stands for something.
pub(super) fn word<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &PgRow,
    column: usize,
) -> Result<T, Fault> {
    let text: &str = get(row, column)?;
    text.parse().map_err(|error| Fault::Corrupt(format!("column {column}: {text:?} {error}")))
}

pub(super) fn service(row: &PgRow, column: usize) -> Result<ServiceName, Fault> {
    word(row, column)
}

pub(super) fn status(row: &PgRow, column: usize) -> Result<Status, Fault> {
    word(row, column)
}

pub(super) fn priority(row: &PgRow, column: usize) -> Result<Priority, Fault> {
    let value: i16 = get(row, column)?;
    u8::try_from(value)
        .ok()
        .and_then(Priority::new)
        .ok_or_else(|| Fault::Corrupt(format!("column {column}: priority {value}")))
}

/// A number that is never below zero.
pub(super) fn count<T: TryFrom<i32>>(row: &PgRow, column: usize) -> Result<T, Fault> {
    let value: i32 = get(row, column)?;
    T::try_from(value).map_err(|_| Fault::Corrupt(format!("column {column}: {value}")))
}

/// The envelope from columns 0 to 10: id, sender, target, type, content, metadata, priority, created, expires, retries, trace.
pub(super) fn message(row: &PgRow) -> Result<Message, Fault> {
    let retries: Option<i16> = get(row, 9)?;
    Ok(Message {
        id: message_id(row, 0)?,
        sender: service(row, 1)?,
        target: service(row, 2)?,
        message_type: get::<&str>(row, 3)?.into(),
        content: get::<&str>(row, 4)?.into(),
        metadata: text(row, 5)?,
        priority: priority(row, 6)?,
        created_at: time(row, 7)?,
        expires_at: optional_time(row, 8)?,
        max_retries: retries.and_then(|retries| u8::try_from(retries).ok()),
        traceparent: text(row, 10)?,
    })
}
