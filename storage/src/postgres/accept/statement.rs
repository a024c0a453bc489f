//! The insert: rows as columns.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Instant;

use hub_core::id::NodeId;
use hub_core::time::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::Row;
use crate::postgres::fault::{Fault, within};
use crate::postgres::{row, text};

const INSERT: &str = include_str!("../sql/insert.sql");

/// The columns of `insert.sql`, in its order.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    senders: Vec<&'a str>,
    targets: Vec<&'a str>,
    types: Vec<&'a str>,
    contents: Vec<&'a str>,
    metadata: Vec<Option<&'a str>>,
    odd: Vec<bool>,
    correlations: Vec<Option<Cow<'a, str>>>,
    traces: Vec<Option<&'a str>>,
    priorities: Vec<i16>,
    retries: Vec<Option<i16>>,
    created: Vec<i64>,
    deliver: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    too_old: Vec<i64>,
    callers: Vec<Option<Cow<'a, str>>>,
    keys: Vec<Option<Cow<'a, str>>>,
    fingerprints: Vec<Option<Vec<u8>>>,
    leases: Vec<Option<i64>>,
    publishes: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, one: &'a Row) {
        let message = &one.message;
        let key = message.idempotency.as_ref();
        self.ids.push(message.id.0);
        self.senders.push(message.sender.as_str());
        self.targets.push(message.target.as_str());
        self.types.push(&message.message_type);
        self.contents.push(&message.content);
        self.metadata.push(message.metadata.as_deref());
        self.odd.push(message.metadata.as_deref().is_some_and(text::is_odd));
        self.correlations.push(message.correlation_id.as_deref().map(text::exact));
        self.traces.push(message.traceparent.as_deref());
        self.priorities.push(message.priority.get().into());
        self.retries.push(message.max_retries.map(i16::from));
        self.created.push(message.created_at.as_millis());
        self.deliver.push(message.deliver_at.map(Timestamp::as_millis));
        self.expires.push(message.expires_at.map(Timestamp::as_millis));
        self.too_old.push(message.too_old_at.as_millis());
        self.callers.push(key.map(|key| text::exact(&key.caller)));
        self.keys.push(key.map(|key| text::exact(&key.key)));
        self.fingerprints.push(key.map(|key| key.fingerprint.0.to_vec()));
        self.leases.push(one.lease.map(row::millis));
        self.publishes.push(one.publish.map(row::millis));
    }
}

/// Inserts rows, counting into part `part`; the ids that were new.
pub(super) async fn insert(
    connection: &mut PgConnection,
    rows: impl Iterator<Item = &Row>,
    owner: NodeId,
    part: i64,
    deadline: Instant,
) -> Result<HashSet<Uuid>, Fault> {
    let mut columns = Columns::default();
    rows.for_each(|row| columns.push(row));
    let query = sqlx::query(INSERT)
        .bind(columns.ids)
        .bind(columns.senders)
        .bind(columns.targets)
        .bind(columns.types)
        .bind(columns.contents)
        .bind(columns.metadata)
        .bind(columns.odd)
        .bind(columns.correlations)
        .bind(columns.traces)
        .bind(columns.priorities)
        .bind(columns.retries)
        .bind(columns.created)
        .bind(columns.deliver)
        .bind(columns.expires)
        .bind(columns.too_old)
        .bind(columns.callers)
        .bind(columns.keys)
        .bind(columns.fingerprints)
        .bind(columns.leases)
        .bind(columns.publishes)
        .bind(owner.0.cast_signed())
        .bind(part);
    let rows = within("writing messages", deadline, query.fetch_all(connection)).await?;
    rows.iter().map(|found| row::get(found, 0)).collect()
}
