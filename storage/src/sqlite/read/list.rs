//! Lists by keyset. A page walks one index from the cursor on and looks at a bounded number of rows: with a filter that few
//! rows meet, a page may come back short, or empty, with a cursor to go on from. A page of large messages is short too.

use std::collections::HashMap;
use std::time::Duration;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, PAGE_BYTES, Page, Status};
use hub_core::time::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::Reader;
use super::record::records;
use crate::sqlite::bulk::Bulk;
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, blob};

/// Rows that one statement looks at.
const STRIDE: u32 = 2_000;
/// Rows that one page looks at.
const REACH: u32 = 10_000;
/// Ids carry the time at which they were made; the time of acceptance is not further from it than this.
const SLACK: Duration = Duration::from_secs(60);

/// Which index a page walks.
#[derive(Clone, Debug)]
enum Walk {
    All,
    Target(ServiceName),
    Sender(ServiceName),
    Correlation(std::sync::Arc<str>),
    /// One of the rare final states, or dead letters.
    Rare(Status),
    DeadOf(ServiceName),
    /// Waiting ones.
    Open,
    OpenOf(ServiceName),
    Claimed,
}

/// What a walk found.
struct Found {
    hits: Vec<MessageId>,
    /// Where it stopped before its end.
    stopped: Option<MessageId>,
}

impl Reader {
    /// One page, newest first, without attempts.
    pub(in crate::sqlite) async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Fault> {
        let during = "listing messages";
        let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut moment = self.pool().begin().await.map_err(Fault::sql(during))?;
        let mut hits = Vec::new();
        let mut frontier: Option<MessageId> = None;
        for walk in walks(filter) {
            let found = walk.run(&mut moment, filter, after, limit).await?;
            hits.extend(found.hits);
            frontier = frontier.max(found.stopped);
        }
        // Below the frontier another walk may have missed some.
        hits.retain(|id| frontier.is_none_or(|frontier| *id >= frontier));
        hits.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        hits.dedup();
        let found = hits.len();
        hits.truncate(limit_rows);
        let fitting = fitting(&mut moment, &hits).await?;
        hits.truncate(fitting);
        let full = hits.len() < found;
        let mut items = records(&mut moment, &hits).await?;
        moment.commit().await.map_err(Fault::sql(during))?;
        items.sort_unstable_by_key(|record| std::cmp::Reverse(record.message.id));
        let next = if full { hits.last().copied() } else { frontier };
        Ok(Page { items, next: next.map(Cursor) })
    }
}

/// Sizes without the content itself, which may be spread over many pages of the database.
static SIZES: Bulk = Bulk::new(
    "sizing messages",
    "SELECT m.id, octet_length(m.content) + coalesce(octet_length(m.metadata), 0) FROM messages m WHERE m.id IN (",
    "?",
    ")",
);

/// How many of these, from the first, go on one page.
async fn fitting(connection: &mut SqliteConnection, ids: &[MessageId]) -> Result<usize, Fault> {
    let mut sizes = HashMap::with_capacity(ids.len());
    for found in &SIZES.fetch(connection, ids, |query, id| query.bind(blob(*id))).await? {
        let bytes: i64 = row::get(found, 1, "size")?;
        sizes.insert(
            row::message_id(row::get(found, 0, "id")?)?,
            usize::try_from(bytes).unwrap_or(usize::MAX),
        );
    }
    let mut total = 0_usize;
    let fit = ids.iter().take_while(|id| {
        total = total.saturating_add(sizes.get(id).copied().unwrap_or(0));
        total <= PAGE_BYTES
    });
    Ok(fit.count().max(1))
}

/// The indexes that together hold all matches: the narrowest there is.
fn walks(filter: &Filter) -> Vec<Walk> {
    let one = match (&filter.correlation_id, filter.status, &filter.target, &filter.sender) {
        (Some(correlation), ..) => Walk::Correlation(correlation.clone()),
        (_, Some(Status::DeadLetter), Some(target), _) => Walk::DeadOf(target.clone()),
        (_, Some(Status::Delivering), ..) => Walk::Claimed,
        (_, Some(status), Some(target), _) if status.is_open() => Walk::OpenOf(target.clone()),
        (_, Some(status), ..) if status.is_open() => Walk::Open,
        (_, Some(status), ..) if status != Status::Delivered => Walk::Rare(status),
        (_, _, Some(target), _) => Walk::Target(target.clone()),
        (_, _, _, Some(sender)) => Walk::Sender(sender.clone()),
        _ => match &filter.visible_to {
            Some(service) => return vec![Walk::Target(service.clone()), Walk::Sender(service.clone())],
            None => Walk::All,
        },
    };
    vec![one]
}

/// The smallest id made at or after a time.
fn id_at(time: Timestamp) -> MessageId {
    let millis = u128::try_from(time.as_millis().max(0)).unwrap_or(0).min((1 << 48) - 1);
    MessageId(Uuid::from_u128(millis << 80))
}

impl Walk {
    async fn run(
        &self,
        connection: &mut SqliteConnection,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Found, Fault> {
        let mut from = after.map(|cursor| cursor.0);
        if let Some(before) = filter.created_before {
            let end = id_at(before.plus(SLACK));
            from = Some(from.map_or(end, |from| from.min(end)));
        }
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
        let mut hits = Vec::new();
        let mut seen = 0;
        let mut stride = limit.saturating_add(1).clamp(64, STRIDE);
        while seen < REACH {
            let rows = self
                .query(filter, from, stride)
                .build()
                .fetch_all(&mut *connection)
                .await
                .map_err(Fault::sql("walking over messages"))?;
            for found in &rows {
                let id = row::message_id(row::get(found, 0, "id")?)?;
                from = Some(id);
                if row::get::<bool>(found, 1, "hit")? {
                    hits.push(id);
                }
                if hits.len() >= wanted {
                    return Ok(Found { hits, stopped: Some(id) });
                }
            }
            let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            if count < stride {
                return Ok(Found { hits, stopped: None });
            }
            seen = seen.saturating_add(count);
            stride = STRIDE;
        }
        Ok(Found { hits, stopped: from })
    }

    /// Ids below `from` in this walk, each with whether the rest of the filter holds.
    fn query(&self, filter: &Filter, from: Option<MessageId>, stride: u32) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        let (id, table) = self.source();
        query.push(id).push(", (1 = 1");
        self.conditions(filter, &mut query);
        query.push(")").push(table);
        self.place(&mut query);
        if let Some(from) = from {
            query.push(" AND ").push(id).push(" < ").push_bind(blob(from));
        }
        if let Some(after) = filter.created_after {
            query.push(" AND ").push(id).push(" >= ").push_bind(blob(id_at(after.minus(SLACK))));
        }
        query.push(" ORDER BY ").push(id).push(" DESC LIMIT ").push_bind(stride);
        query
    }

    fn source(&self) -> (&'static str, &'static str) {
        match self {
            Self::All => ("m.id", " FROM messages m INDEXED BY messages_id"),
            Self::Target(_) => ("m.id", " FROM messages m INDEXED BY messages_target"),
            Self::Sender(_) => ("m.id", " FROM messages m INDEXED BY messages_sender"),
            Self::Correlation(_) => (
                "m.id",
                " FROM messages m INDEXED BY messages_correlation LEFT JOIN deliveries d ON d.id = m.id",
            ),
            Self::Rare(_) => ("m.id", " FROM messages m INDEXED BY messages_rare"),
            Self::DeadOf(_) => ("m.id", " FROM messages m INDEXED BY messages_dead"),
            Self::Open => ("d.id", " FROM deliveries d CROSS JOIN messages m ON m.seq = d.seq"),
            Self::OpenOf(_) => (
                "d.id",
                " FROM deliveries d INDEXED BY deliveries_target CROSS JOIN messages m ON m.seq = d.seq",
            ),
            Self::Claimed => (
                "d.id",
                " FROM deliveries d INDEXED BY deliveries_lease CROSS JOIN messages m ON m.seq = d.seq",
            ),
        }
    }

    /// Where in its index the walk goes. States are written out: only so does SQLite use a partial index.
    fn place(&self, query: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::All => query.push(" WHERE 1 = 1"),
            Self::Target(target) => {
                query.push(" WHERE m.target_service = ").push_bind(target.as_str().to_owned())
            }
            Self::Sender(sender) => {
                query.push(" WHERE m.sender_service = ").push_bind(sender.as_str().to_owned())
            }
            Self::Correlation(id) => query.push(" WHERE m.correlation_id = ").push_bind(id.clone()),
            Self::Rare(status) => query
                .push(" WHERE m.status IN ('dead_letter', 'cancelled', 'expired', 'discarded') AND m.status = '")
                .push(status.as_str())
                .push("'"),
            Self::DeadOf(target) => query
                .push(" WHERE m.status = 'dead_letter' AND m.target_service = ")
                .push_bind(target.as_str().to_owned()),
            Self::Open => query.push(" WHERE d.owner IS NULL"),
            Self::OpenOf(target) => {
                query.push(" WHERE d.owner IS NULL AND d.target = ").push_bind(target.as_str().to_owned())
            }
            Self::Claimed => query.push(" WHERE d.owner IS NOT NULL"),
        };
    }

    /// Every condition of the filter; those that the walk answers already cost nothing to ask again.
    fn conditions(&self, filter: &Filter, query: &mut QueryBuilder<Sqlite>) {
        if let Some(status) = filter.status {
            let column = match self {
                Self::Open | Self::OpenOf(_) | Self::Claimed => "d.status",
                Self::Correlation(_) => "coalesce(d.status, m.status)",
                _ => "m.status",
            };
            query.push(" AND ").push(column).push(" = ").push_bind(status.as_str());
        }
        let texts = [
            ("m.target_service", filter.target.as_ref().map(ServiceName::as_str)),
            ("m.sender_service", filter.sender.as_ref().map(ServiceName::as_str)),
            ("m.message_type", filter.message_type.as_deref()),
            ("m.correlation_id", filter.correlation_id.as_deref()),
        ];
        for (column, wanted) in texts {
            if let Some(wanted) = wanted {
                query.push(" AND ").push(column).push(" IS ").push_bind(wanted.to_owned());
            }
        }
        if let Some(service) = &filter.visible_to {
            let name = service.as_str();
            query.push(" AND (m.sender_service = ").push_bind(name.to_owned());
            query.push(" OR m.target_service = ").push_bind(name.to_owned()).push(")");
        }
        if let Some(after) = filter.created_after {
            query.push(" AND m.created_at >= ").push_bind(after.as_millis());
        }
        if let Some(before) = filter.created_before {
            query.push(" AND m.created_at < ").push_bind(before.as_millis());
        }
    }
}
