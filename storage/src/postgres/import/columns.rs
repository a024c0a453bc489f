//! Rows of a copy as columns, in the order of their statements.

use std::borrow::Cow;

use hub_core::id::MessageId;
use hub_core::message::Attempt;
use hub_core::time::Timestamp;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use uuid::Uuid;

use crate::copy::{Key, Waits, Whole};
use crate::postgres::text;

const MESSAGES: &str = include_str!("../sql/copy_messages.sql");
const OPEN: &str = include_str!("../sql/copy_open.sql");
const ATTEMPTS: &str = include_str!("../sql/copy_attempts.sql");
const KEYS: &str = include_str!("../sql/copy_keys.sql");

type Statement<'q> = Query<'q, Postgres, PgArguments>;

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

fn millis(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_millis)
}

fn shown(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(text::shown)
}

pub(super) fn messages(rows: &[Whole]) -> Statement<'_> {
    sqlx::query(MESSAGES)
        .bind(column(rows, |row| row.message.id.0))
        .bind(column(rows, |row| row.message.sender.as_str()))
        .bind(column(rows, |row| row.message.target.as_str()))
        .bind(column(rows, |row| &*row.message.message_type))
        .bind(column(rows, |row| &*row.message.content))
        .bind(column(rows, |row| row.message.created_at.as_millis()))
        .bind(column(rows, |row| millis(row.processed_at)))
        .bind(column(rows, |row| row.status.as_str()))
        .bind(column(rows, |row| number(row.retry_count)))
        .bind(column(rows, |row| shown(row.error.as_deref())))
        .bind(column(rows, |row| row.message.metadata.as_deref()))
        .bind(column(rows, |row| row.message.metadata.as_deref().is_some_and(text::is_odd)))
        .bind(column(rows, |row| row.correlation_id.as_deref().map(text::exact)))
        .bind(column(rows, |row| row.message.traceparent.as_deref()))
        .bind(column(rows, |row| i16::from(row.message.priority.get())))
        .bind(column(rows, |row| row.message.max_retries.map(i16::from)))
        .bind(column(rows, |row| millis(row.deliver_at)))
        .bind(column(rows, |row| millis(row.message.expires_at)))
        .bind(column(rows, |row| row.too_old_at.as_millis()))
        .bind(column(rows, |row| number(row.attempt)))
        .bind(column(rows, |row| row.may_have_arrived))
        .bind(column(rows, |row| row.dead_reason.as_deref()))
        .bind(column(rows, |row| row.last_request))
}

/// Those of the messages that are open.
pub(super) fn open<'a>(rows: &[(&'a Whole, &'a Waits)]) -> Statement<'a> {
    let pairs = || rows.iter().copied();
    sqlx::query(OPEN)
        .bind(pairs().map(|(row, _)| row.message.id.0).collect::<Vec<Uuid>>())
        .bind(pairs().map(|(row, _)| row.message.target.as_str()).collect::<Vec<_>>())
        .bind(pairs().map(|(row, _)| i16::from(row.message.priority.get())).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| waits.status.as_str()).collect::<Vec<_>>())
        .bind(pairs().map(|(row, _)| row.message.created_at.as_millis()).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| waits.due.as_millis()).collect::<Vec<_>>())
        .bind(pairs().map(|(row, _)| millis(row.message.expires_at)).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| waits.ends_at.as_millis()).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| number(waits.attempt)).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| number(waits.retry_count)).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| waits.may_have_arrived).collect::<Vec<_>>())
        .bind(pairs().map(|(_, waits)| shown(waits.error.as_deref())).collect::<Vec<_>>())
}

pub(super) fn attempts(rows: &[(MessageId, Attempt)]) -> Statement<'_> {
    sqlx::query(ATTEMPTS)
        .bind(column(rows, |(id, _)| id.0))
        .bind(column(rows, |(_, attempt)| number(attempt.number)))
        .bind(column(rows, |(_, attempt)| attempt.node.0.cast_signed()))
        .bind(column(rows, |(_, attempt)| attempt.started_at.as_millis()))
        .bind(column(rows, |(_, attempt)| i64::from(attempt.duration_ms)))
        .bind(column(rows, |(_, attempt)| attempt.outcome.as_str()))
        .bind(column(rows, |(_, attempt)| attempt.http_status.map(i32::from)))
        .bind(column(rows, |(_, attempt)| attempt.instance.as_ref().map(|instance| instance.as_str())))
        .bind(column(rows, |(_, attempt)| shown(attempt.error_class.as_deref())))
        .bind(column(rows, |(_, attempt)| shown(attempt.response.as_deref())))
}

pub(super) fn keys(rows: &[Key]) -> Statement<'_> {
    sqlx::query(KEYS)
        .bind(column(rows, |row| text::exact(&row.caller)))
        .bind(column(rows, |row| text::exact(&row.key)))
        .bind(column(rows, |row| row.fingerprint.as_slice()))
        .bind(column(rows, |row| row.message))
        .bind(column(rows, |row| row.accepted_at.as_millis()))
        .bind(column(rows, |row| row.stored_at.as_millis()))
}
