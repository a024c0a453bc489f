//! Reads of what this node has applied, on their own connections.

mod inspect;
mod list;
mod queue;
mod record;

pub(super) use record::{read_attempt, read_message};

use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::port::Backlog;
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteRow};

use super::database;
use super::fault::Fault;
use super::row;

/// Reads; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pool: Arc<RwLock<SqlitePool>>,
    connections: u32,
    /// What is wrong with the database, once that is known.
    damage: Arc<OnceLock<String>>,
}

macro_rules! backlog_query {
    () => {
        "SELECT b.target, b.depth, b.in_flight, b.accepted_total, b.delivered_total, b.dead_letters, \
         (SELECT d.created_at FROM deliveries d INDEXED BY deliveries_target \
          WHERE d.target = b.target AND d.owner IS NULL ORDER BY d.id LIMIT 1), \
         CASE WHEN b.in_flight > 0 THEN (SELECT min(d.created_at) FROM deliveries d INDEXED BY deliveries_lease \
          WHERE d.owner IS NOT NULL AND d.target = b.target) END \
         FROM backlog b"
    };
}

const BACKLOGS: &str = concat!(backlog_query!(), " ORDER BY b.target");
const BACKLOG: &str = concat!(backlog_query!(), " WHERE b.target = ?");

fn pool(path: &Path, connections: u32) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(database::options(path).read_only(true).pragma("cache_size", "-4096"))
}

fn backlog(found: &SqliteRow) -> Result<Backlog, Fault> {
    let waiting = row::optional_time(found, 6, "created_at")?;
    let claimed = row::optional_time(found, 7, "created_at")?;
    let oldest = waiting.into_iter().chain(claimed).min();
    Ok(Backlog { oldest, ..database::counters(found, 1)?.backlog() })
}

impl Reader {
    pub(super) fn open(path: &Path, connections: u32) -> Self {
        let pool = Arc::new(RwLock::new(pool(path, connections)));
        Self { pool, connections, damage: Arc::default() }
    }

    /// What is wrong with the database, as far as a read has found out: nothing more may be built on it.
    pub(super) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Remembers damage.
    pub(super) fn condemn(&self, fault: &Fault) {
        if let Fault::Corrupt(reason) = fault {
            tracing::error!(%reason, "the message database is damaged; this node stops");
            self.damage.get_or_init(|| reason.clone());
        }
    }

    /// Reads go to another file from now on; waits for those that are under way.
    pub(super) async fn switch(&self, path: &Path) {
        let fresh = pool(path, self.connections);
        let old = {
            let mut current = self.pool.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, fresh)
        };
        old.close().await;
    }

    fn pool(&self) -> SqlitePool {
        self.pool.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One target's counters.
    pub(super) async fn backlog(&self, target: &ServiceName) -> Result<Backlog, Fault> {
        let found = sqlx::query(BACKLOG)
            .bind(target.as_str())
            .fetch_optional(&self.pool())
            .await
            .map_err(Fault::sql("reading a backlog"))?;
        found.map_or_else(|| Ok(Backlog::default()), |found| backlog(&found))
    }

    /// The counters of all targets.
    pub(super) async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, Fault> {
        let rows =
            sqlx::query(BACKLOGS).fetch_all(&self.pool()).await.map_err(Fault::sql("reading backlogs"))?;
        rows.iter().map(|found| Ok((row::service(found, 0, "target")?, backlog(found)?))).collect()
    }
}
