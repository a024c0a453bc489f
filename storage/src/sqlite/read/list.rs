//! Lists: the walks of [`listing`](crate::listing) over SQLite's indexes.

use std::collections::HashMap;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, Page};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::Reader;
use super::record::records;
use crate::listing::{Found, Ids, Path, Walk, walks};
use crate::sqlite::bulk::Bulk;
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, blob};

impl Reader {
    /// One page, newest first, without attempts.
    pub(in crate::sqlite) async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page, Fault> {
        let during = "listing messages";
        let mut moment = self.pool().begin().await.map_err(Fault::sql(during))?;
        let mut found = Vec::new();
        for walk in walks(filter) {
            found.push(walk.run(&mut moment, filter, after, limit).await?);
        }
        let ids = Ids::of(found, limit);
        let sizes = sizes(&mut moment, ids.candidates()).await?;
        let (page, next) = ids.fit(|id| sizes.get(&id).copied().unwrap_or(0));
        let mut items = records(&mut moment, &page).await?;
        moment.commit().await.map_err(Fault::sql(during))?;
        items.sort_unstable_by_key(|record| std::cmp::Reverse(record.message.id));
        Ok(Page { items, next })
    }
}

/// Sizes without the content itself, which may be spread over many pages of the database.
static SIZES: Bulk = Bulk::new(
    "sizing messages",
    "SELECT m.id, octet_length(m.content) + coalesce(octet_length(m.metadata), 0) FROM messages m WHERE m.id IN (",
    "?",
    ")",
);

async fn sizes(
    connection: &mut SqliteConnection,
    ids: &[MessageId],
) -> Result<HashMap<MessageId, usize>, Fault> {
    let mut sizes = HashMap::with_capacity(ids.len());
    for found in &SIZES.fetch(connection, ids, |query, id| query.bind(blob(*id))).await? {
        let bytes: i64 = row::get(found, 1, "size")?;
        sizes.insert(
            row::message_id(row::get(found, 0, "id")?)?,
            usize::try_from(bytes).unwrap_or(usize::MAX),
        );
    }
    Ok(sizes)
}

impl Walk {
    async fn run(
        &self,
        connection: &mut SqliteConnection,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Found, Fault> {
        let mut path = Path::new(filter, after, limit);
        loop {
            let rows = self
                .query(filter, &path)
                .build()
                .fetch_all(&mut *connection)
                .await
                .map_err(Fault::sql("walking over messages"))?;
            let step = rows.iter().map(|found| {
                Ok((row::message_id(row::get(found, 0, "id")?)?, row::get::<bool>(found, 1, "hit")?))
            });
            if let Some(found) = path.step(step.collect::<Result<_, Fault>>()?) {
                return Ok(found);
            }
        }
    }

    /// Ids below `from` in this walk, each with whether the rest of the filter holds.
    fn query(&self, filter: &Filter, path: &Path) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT ");
        let (id, table) = self.source();
        query.push(id).push(", (1 = 1");
        self.conditions(filter, &mut query);
        query.push(")").push(table);
        self.place(&mut query);
        if let Some(from) = path.from {
            query.push(" AND ").push(id).push(" < ").push_bind(blob(from));
        }
        if let Some(until) = path.until {
            query.push(" AND ").push(id).push(" >= ").push_bind(blob(until));
        }
        query.push(" ORDER BY ").push(id).push(" DESC LIMIT ").push_bind(path.stride);
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
