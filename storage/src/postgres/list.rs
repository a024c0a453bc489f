//! Lists: the walks of [`listing`](crate::listing) over the indexes here.

use std::collections::HashMap;
use std::time::Instant;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, Page};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::fault::{Fault, command, within};
use super::link::Link;
use super::{record, row, text};
use crate::listing::{Found, Ids, Path, Walk, walks};

pub(super) const SIZES: &str = "SELECT m.id, octet_length(m.content::text) + coalesce(octet_length(m.metadata_text), 0) \
     FROM unnest($1::uuid[]) AS u(id) JOIN messages m ON m.id = ANY (ARRAY[u.id])";

/// As an index of the waiting ones has it.
const OPEN: &str = " WHERE d.owner IS NULL AND d.id > '00000000-0000-0000-0000-000000000000'";

/// One page, newest first, without attempts.
pub(super) async fn list(
    link: &Link,
    filter: &Filter,
    after: Option<Cursor>,
    limit: u32,
    deadline: Instant,
) -> Result<Page, Fault> {
    let during = "listing messages";
    let mut lease = link.acquire(deadline).await?;
    let connection = lease.connection();
    let page = async {
        command(connection, during, deadline, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let page = read(connection, filter, after, limit, deadline).await?;
        command(connection, during, deadline, "COMMIT").await?;
        Ok(page)
    };
    let page = page.await;
    lease.close_transaction(page)
}

async fn read(
    connection: &mut PgConnection,
    filter: &Filter,
    after: Option<Cursor>,
    limit: u32,
    deadline: Instant,
) -> Result<Page, Fault> {
    let mut found = Vec::new();
    for walk in walks(filter) {
        found.push(run(&walk, connection, filter, Path::new(filter, after, limit), deadline).await?);
    }
    let ids = Ids::of(found, limit);
    let sizes = sizes(connection, ids.candidates(), deadline).await?;
    let (page, next) = ids.fit(|id| sizes.get(&id).copied().unwrap_or(0));
    let mut items = record::many(connection, &page, deadline).await?;
    items.sort_unstable_by_key(|record| std::cmp::Reverse(record.message.id));
    Ok(Page { items, next })
}

async fn sizes(
    connection: &mut PgConnection,
    ids: &[MessageId],
    deadline: Instant,
) -> Result<HashMap<MessageId, usize>, Fault> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows =
        within("sizing messages", deadline, sqlx::query(SIZES).bind(ids).fetch_all(connection)).await?;
    rows.iter()
        .map(|found| {
            let bytes: i32 = row::get(found, 1)?;
            Ok((row::message_id(found, 0)?, usize::try_from(bytes).unwrap_or(usize::MAX)))
        })
        .collect()
}

async fn run(
    walk: &Walk,
    connection: &mut PgConnection,
    filter: &Filter,
    mut path: Path,
    deadline: Instant,
) -> Result<Found, Fault> {
    loop {
        let mut query = query(walk, filter, &path);
        let rows = query.build().fetch_all(&mut *connection);
        let rows = within("walking over messages", deadline, rows).await?;
        let step = rows.iter().map(|found| Ok((row::message_id(found, 0)?, row::get::<bool>(found, 1)?)));
        if let Some(found) = path.step(step.collect::<Result<_, Fault>>()?) {
            return Ok(found);
        }
    }
}

/// Ids below where the path stands, each with whether the rest of the filter holds.
fn query(walk: &Walk, filter: &Filter, path: &Path) -> QueryBuilder<Postgres> {
    let (before, id, table) = source(walk);
    let mut query = QueryBuilder::new(before);
    query.push("SELECT ").push(id).push(", (true");
    conditions(walk, filter, &mut query);
    query.push(")").push(table);
    place(walk, &mut query);
    if let Some(from) = path.from {
        query.push(" AND ").push(id).push(" < ").push_bind(from.0);
    }
    if let Some(until) = path.until {
        query.push(" AND ").push(id).push(" >= ").push_bind(until.0);
    }
    query.push(" ORDER BY ").push(id).push(" DESC LIMIT ").push_bind(i64::from(path.stride));
    query
}

/// What comes before the statement, the id that it walks by, and its tables.
const fn source(walk: &Walk) -> (&'static str, &'static str, &'static str) {
    match walk {
        Walk::All | Walk::Target(_) | Walk::Sender(_) => ("", "m.id", " FROM messages m"),
        Walk::Correlation(_) => {
            ("", "m.id", " FROM messages m LEFT JOIN deliveries d ON d.id = ANY (ARRAY[m.id])")
        }
        Walk::Rare(_) | Walk::DeadOf(_) => {
            ("", "e.id", " FROM endings e JOIN messages m ON m.id = ANY (ARRAY[e.id])")
        }
        Walk::Open | Walk::OpenOf(_) => {
            ("", "d.id", " FROM deliveries d JOIN messages m ON m.id = ANY (ARRAY[d.id])")
        }
        // Few rows, of an index that is not in the order of ids.
        Walk::Claimed => (
            "WITH held AS MATERIALIZED (SELECT h.id, h.status FROM deliveries h \
             WHERE h.owner IS NOT NULL AND h.lease_end > '-infinity') ",
            "d.id",
            " FROM held d JOIN messages m ON m.id = ANY (ARRAY[d.id])",
        ),
    }
}

/// Where in its index the walk goes.
fn place(walk: &Walk, query: &mut QueryBuilder<Postgres>) {
    match walk {
        Walk::All | Walk::Claimed => query.push(" WHERE true"),
        Walk::Target(target) => {
            query.push(" WHERE m.target_service = ").push_bind(target.as_str().to_owned())
        }
        Walk::Sender(sender) => {
            query.push(" WHERE m.sender_service = ").push_bind(sender.as_str().to_owned())
        }
        Walk::Correlation(id) => {
            query.push(" WHERE m.correlation_id = ").push_bind(text::exact(id).into_owned())
        }
        Walk::Rare(status) => query.push(" WHERE e.status = ").push_bind(status.as_str()),
        Walk::DeadOf(target) => query
            .push(" WHERE e.status = 'dead_letter' AND e.target = ")
            .push_bind(target.as_str().to_owned()),
        Walk::Open => query.push(OPEN),
        Walk::OpenOf(target) => {
            query.push(OPEN).push(" AND d.target = ").push_bind(target.as_str().to_owned())
        }
    };
}

/// Every condition of the filter; those that the walk answers already cost nothing to ask again.
fn conditions(walk: &Walk, filter: &Filter, query: &mut QueryBuilder<Postgres>) {
    if let Some(status) = filter.status {
        let column = match walk {
            Walk::Open | Walk::OpenOf(_) | Walk::Claimed => "d.status",
            Walk::Correlation(_) => "coalesce(d.status, m.status)",
            Walk::Rare(_) | Walk::DeadOf(_) => "e.status",
            Walk::All | Walk::Target(_) | Walk::Sender(_) => "m.status",
        };
        query.push(" AND ").push(column).push(" = ").push_bind(status.as_str());
    }
    let texts = [
        ("m.target_service", filter.target.as_ref().map(|name| name.as_str().to_owned())),
        ("m.sender_service", filter.sender.as_ref().map(|name| name.as_str().to_owned())),
        ("m.message_type", filter.message_type.as_deref().map(str::to_owned)),
        ("m.correlation_id", filter.correlation_id.as_deref().map(|id| text::exact(id).into_owned())),
    ];
    for (column, wanted) in texts {
        if let Some(wanted) = wanted {
            query.push(" AND ").push(column).push(" IS NOT DISTINCT FROM ").push_bind(wanted);
        }
    }
    if let Some(name) = filter.visible_to.as_ref().map(ServiceName::as_str) {
        query.push(" AND (m.sender_service = ").push_bind(name.to_owned());
        query.push(" OR m.target_service = ").push_bind(name.to_owned()).push(")");
    }
    if let Some(after) = filter.created_after {
        query.push(" AND m.created_at >= hub_time(").push_bind(after.as_millis()).push(")");
    }
    if let Some(before) = filter.created_before {
        query.push(" AND m.created_at < hub_time(").push_bind(before.as_millis()).push(")");
    }
}
