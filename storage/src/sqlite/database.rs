//! Opening the database: connections, schema, and the checks that come before any use.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hub_core::port::AppliedMark;
use hub_core::time::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::apply::{Counters, Ledger};
use super::fault::Fault;
use super::row::{self, Sum};

/// "MHUB": tells our files from other SQLite databases.
const APPLICATION_ID: i64 = 0x4D48_5542;
/// Every step of the schema, oldest first; `user_version` counts those that were taken.
const MIGRATIONS: [&str; 1] = [include_str!("../../../migrations/sqlite/0001_messages.sql")];
/// A whole check reads every page and compares every index with its table; larger files are checked while the node runs
/// ([`super::Reader`]), so that a start does not take minutes.
const CHECKED_WHOLE: u64 = 32 << 20;
/// Pages in the write-ahead log after which a commit itself writes it back: only if [`super::write_back`] could not keep up.
const CHECKPOINT_PAGES: u32 = 32_000;

/// How every connection is opened.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(false)
        .statement_cache_capacity(1_024)
        .row_buffer_size(256)
        .thread_name(|id| format!("sqlite-{id}"))
        .disable_statement_logging()
}

/// How the connections are opened that write, or write back.
pub(super) fn writer_options(path: &Path) -> SqliteConnectOptions {
    options(path)
        .page_size(4_096)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-16384")
        // Journals of single statements: in files, each would be made and deleted.
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", (64 << 20).to_string())
}

/// The one connection that writes. Makes the database if it is not there.
pub(super) async fn open_writer(path: &Path) -> Result<SqliteConnection, Fault> {
    let options = writer_options(path).create_if_missing(true);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(Fault::sql("opening the database"))?;
    migrate(&mut connection).await?;
    check(&mut connection, path).await?;
    Ok(connection)
}

async fn pragma(connection: &mut SqliteConnection, text: &'static str) -> Result<i64, Fault> {
    sqlx::query_scalar(text).fetch_one(connection).await.map_err(Fault::sql("reading the database's header"))
}

/// Fails on a file that is not ours, or from a newer version.
async fn version(connection: &mut SqliteConnection) -> Result<usize, Fault> {
    let version = pragma(connection, "PRAGMA user_version").await?;
    let application = pragma(connection, "PRAGMA application_id").await?;
    let tables = pragma(connection, "SELECT count(*) FROM sqlite_schema").await?;
    if (version, application, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(Fault::Corrupt("the file is not a message store of message-hub".to_owned()));
    }
    match usize::try_from(version) {
        Ok(version) if (1..=MIGRATIONS.len()).contains(&version) => Ok(version),
        _ => Err(Fault::Corrupt(format!(
            "its schema is version {version}, this message-hub knows up to {}; upgrade this node",
            MIGRATIONS.len()
        ))),
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let during = "bringing the schema up to date";
    let done = version(connection).await?;
    for (step, text) in MIGRATIONS.iter().enumerate().skip(done) {
        let mut transaction = connection.begin().await.map_err(Fault::sql(during))?;
        sqlx::raw_sql(*text).execute(&mut *transaction).await.map_err(Fault::sql(during))?;
        let mark = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", step + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(mark))
            .execute(&mut *transaction)
            .await
            .map_err(Fault::sql(during))?;
        transaction.commit().await.map_err(Fault::sql(during))?;
    }
    Ok(())
}

/// Too large to be checked whole at the start.
pub(super) fn is_large(path: &Path) -> Result<bool, Fault> {
    let bytes = std::fs::metadata(path).map_err(Fault::file("looking at the database"))?.len();
    Ok(bytes > CHECKED_WHOLE)
}

/// Looks for damage before anything is built on it.
pub(super) async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), Fault> {
    if version(connection).await? == 0 {
        return Err(Fault::Corrupt("the file holds no tables".to_owned()));
    }
    if is_large(path)? {
        return Ok(());
    }
    examine(connection, "PRAGMA integrity_check(3)", "checking the database").await
}

/// Runs one of the checks that SQLite has itself; what it finds is damage.
pub(super) async fn examine(
    connection: &mut SqliteConnection,
    check: &'static str,
    during: &'static str,
) -> Result<(), Fault> {
    let found: Vec<String> =
        sqlx::query_scalar(check).fetch_all(connection).await.map_err(Fault::sql(during))?;
    if found.iter().all(|line| line == "ok") { Ok(()) } else { Err(Fault::Corrupt(found.join("; "))) }
}

fn machine_checksum(mark: &AppliedMark, ledger: &Ledger) -> i64 {
    let mut sum = Sum::new();
    sum.int(mark.index.cast_signed()).bytes(&mark.opaque).int(ledger.clock.as_millis());
    sum.int(ledger.next_seq).int(ledger.late_settles.cast_signed());
    sum.0.into()
}

/// The applied mark and what stays in memory.
pub(super) async fn read_state(connection: &mut SqliteConnection) -> Result<(AppliedMark, Ledger), Fault> {
    let during = "reading the applied mark";
    let found = sqlx::query("SELECT applied, opaque, clock, next_seq, late_settles, checksum FROM machine")
        .fetch_optional(&mut *connection)
        .await
        .map_err(Fault::sql(during))?
        .ok_or_else(|| Fault::Corrupt("the applied mark is missing".to_owned()))?;
    let mark = AppliedMark {
        index: row::get::<i64>(&found, 0, "applied")?.cast_unsigned(),
        opaque: Bytes::from(row::get::<Vec<u8>>(&found, 1, "opaque")?),
    };
    let mut ledger = Ledger {
        clock: Timestamp::from_millis(row::get(&found, 2, "clock")?),
        next_seq: row::get(&found, 3, "next_seq")?,
        late_settles: row::get::<i64>(&found, 4, "late_settles")?.cast_unsigned(),
        ..Ledger::default()
    };
    let stored: i64 = row::get(&found, 5, "checksum")?;
    let fresh = mark == AppliedMark::default() && ledger.next_seq == 1;
    if stored != machine_checksum(&mark, &ledger) && !(fresh && stored == 0) {
        return Err(Fault::Corrupt("the applied mark does not fit its checksum".to_owned()));
    }
    let rows = sqlx::query(
        "SELECT target, depth, in_flight, accepted_total, delivered_total, dead_letters FROM backlog",
    )
    .fetch_all(connection)
    .await
    .map_err(Fault::sql("reading the counters"))?;
    for found in &rows {
        ledger.backlog.insert(row::service(found, 0, "target")?, counters(found, 1)?);
    }
    Ok((mark, ledger))
}

/// Counters from five columns that start at `at`.
pub(super) fn counters(found: &sqlx::sqlite::SqliteRow, at: usize) -> Result<Counters, Fault> {
    let one = |column: usize| row::get::<i64>(found, at + column, "counter").map(i64::cast_unsigned);
    Ok(Counters {
        depth: one(0)?,
        in_flight: one(1)?,
        accepted_total: one(2)?,
        delivered_total: one(3)?,
        dead_letters: one(4)?,
    })
}

/// Stores how far was applied, in the caller's transaction.
pub(super) async fn write_state(
    connection: &mut SqliteConnection,
    mark: &AppliedMark,
    ledger: &Ledger,
) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE machine SET applied = ?, opaque = ?, clock = ?, next_seq = ?, late_settles = ?, checksum = ?",
    )
    .bind(mark.index.cast_signed())
    .bind(mark.opaque.to_vec())
    .bind(ledger.clock.as_millis())
    .bind(ledger.next_seq)
    .bind(ledger.late_settles.cast_signed())
    .bind(machine_checksum(mark, ledger))
    .execute(connection)
    .await
    .map_err(Fault::sql("writing the applied mark"))?;
    Ok(())
}
