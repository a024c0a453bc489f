//! A look over the whole database, in the background: what a start leaves out so that it does not take minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hub_core::id::ServiceName;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::Reader;
use crate::sqlite::database;
use crate::sqlite::fault::Fault;
use crate::sqlite::row;

/// Instructions of the database between two looks at whether the check is still wanted.
const INSTRUCTIONS: i32 = 10_000;

const KEPT: &str = "SELECT b.target, b.depth, b.in_flight, b.dead_letters FROM backlog b";

/// What the counters of each target should be.
const COUNTED: &str = "SELECT c.target, sum(c.depth), sum(c.in_flight), sum(c.dead) FROM \
     (SELECT d.target, count(*) AS depth, count(d.owner) AS in_flight, 0 AS dead FROM deliveries d GROUP BY d.target \
      UNION ALL SELECT m.target_service, 0, 0, count(*) FROM messages m \
      WHERE m.status = 'dead_letter' GROUP BY m.target_service) c GROUP BY c.target";

/// Open messages, claimed ones, dead letters.
type Counts = BTreeMap<ServiceName, [i64; 3]>;

/// Ends the statement under way when the check is dropped.
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Reader {
    /// Reads every page of a database that was too large to be checked at the start, and compares the counters with what
    /// they count; the differences. Damage is told to the state machine, which applies nothing more.
    pub(in crate::sqlite) async fn inspect(&self) -> Result<Vec<String>, Fault> {
        let options = self.pool().connect_options();
        let found = look_over(&options).await;
        // What was wrong with a database that a copy has replaced meanwhile does not matter any more.
        if self.pool().connect_options().get_filename() == options.get_filename() {
            found.inspect_err(|fault| self.condemn(fault))
        } else {
            Ok(Vec::new())
        }
    }
}

async fn look_over(options: &SqliteConnectOptions) -> Result<Vec<String>, Fault> {
    let during = "checking the whole database";
    let mut connection = SqliteConnection::connect_with(options).await.map_err(Fault::sql(during))?;
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let go_on = Arc::clone(&wanted.0);
    connection
        .lock_handle()
        .await
        .map_err(Fault::sql(during))?
        .set_progress_handler(INSTRUCTIONS, move || go_on.load(Ordering::Relaxed));
    if database::is_large(options.get_filename())? {
        database::examine(&mut connection, "PRAGMA quick_check(3)", during).await?;
    }
    differences(&mut connection).await
}

async fn counts(connection: &mut SqliteConnection, query: &'static str) -> Result<Counts, Fault> {
    let rows = sqlx::query(query).fetch_all(connection).await.map_err(Fault::sql("counting messages"))?;
    let count = |found: &sqlx::sqlite::SqliteRow| {
        let one = |column: usize| row::get(found, column, "count");
        Ok((row::service(found, 0, "target")?, [one(1)?, one(2)?, one(3)?]))
    };
    rows.iter().map(count).collect()
}

/// Where the counters are not what counting gives.
async fn differences(connection: &mut SqliteConnection) -> Result<Vec<String>, Fault> {
    let during = "counting messages";
    let mut moment = connection.begin().await.map_err(Fault::sql(during))?;
    let kept = counts(&mut moment, KEPT).await?;
    let counted = counts(&mut moment, COUNTED).await?;
    moment.commit().await.map_err(Fault::sql(during))?;
    let mut targets: Vec<_> = kept.keys().chain(counted.keys()).collect();
    targets.sort_unstable();
    targets.dedup();
    let of = |all: &Counts, target: &ServiceName| all.get(target).copied().unwrap_or_default();
    let differs = |target: &&ServiceName| of(&kept, target) != of(&counted, target);
    let tell = |target: &ServiceName| {
        let (kept, counted) = (of(&kept, target), of(&counted, target));
        format!("{target}: open, claimed and dead are kept as {kept:?}, and are {counted:?}")
    };
    Ok(targets.into_iter().filter(differs).map(tell).collect())
}
