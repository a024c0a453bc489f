//! Brings the write-ahead log back into the database file while entries are applied, so that no commit waits for it.
//!
//! A second connection copies most of it on its own thread. Under load it never quite reaches the end, and only at the end can
//! the log begin anew; so when the log has grown long, the writer copies the short rest itself, between two transactions.

use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{ConnectOptions, Row, SqliteConnection};

use super::database;
use super::fault::Fault;

/// It begins after so many commits, or so many commands: each is worth at least about a page.
const COMMITS: usize = 200;
const COMMANDS: usize = 4_000;
/// A write-ahead log of so many pages is long.
const LONG: i64 = 8_000;

/// What a pass over the write-ahead log found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    /// Pages in the log.
    pub(super) pages: i64,
    /// Of these, what is in the database file now.
    pub(super) copied: i64,
    /// Another pass was under way.
    pub(super) busy: bool,
}

impl Pass {
    /// Everything that was committed before is in the database file.
    pub(super) fn complete(self) -> bool {
        !self.busy && self.pages == self.copied
    }
}

type Running = BoxFuture<'static, Result<(SqliteConnection, Pass), Fault>>;

/// The passes beside the writer.
pub(super) struct WriteBack {
    database: PathBuf,
    idle: Option<SqliteConnection>,
    running: Option<Running>,
    commits: usize,
    commands: usize,
}

impl WriteBack {
    pub(super) fn new(database: &Path) -> Self {
        Self { database: database.to_owned(), idle: None, running: None, commits: 0, commands: 0 }
    }

    /// To be called after each commit, with what it held. Begins a pass when one is due; `true` when the last one found the
    /// log long, so that the writer must do its part now. Never waits.
    pub(super) fn committed(&mut self, commands: usize) -> Result<bool, Fault> {
        self.commits += 1;
        self.commands += commands;
        let due = self.commits >= COMMITS || self.commands >= COMMANDS;
        if self.running.is_none() && due {
            (self.commits, self.commands) = (0, 0);
            self.running = Some(run(self.database.clone(), self.idle.take()).boxed());
        }
        let ended = self.running.as_mut().and_then(FutureExt::now_or_never);
        match ended {
            Some(result) => Ok(self.end(result)?.pages >= LONG),
            None => Ok(false),
        }
    }

    /// Waits for the pass that is under way: two at a time would get in each other's way.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        if let Some(running) = self.running.as_mut() {
            let result = running.await;
            self.end(result)?;
        }
        Ok(())
    }

    fn end(&mut self, result: Result<(SqliteConnection, Pass), Fault>) -> Result<Pass, Fault> {
        self.running = None;
        let (connection, pass) = result?;
        self.idle = Some(connection);
        Ok(pass)
    }
}

async fn run(database: PathBuf, idle: Option<SqliteConnection>) -> Result<(SqliteConnection, Pass), Fault> {
    let mut connection = match idle {
        Some(connection) => connection,
        None => {
            let opened = database::writer_options(&database).connect().await;
            opened.map_err(Fault::sql("opening the database once more"))?
        }
    };
    let pass = pass(&mut connection).await?;
    Ok((connection, pass))
}

/// Copies as much of the write-ahead log as nobody reads from, and syncs it; first the log, then the file.
pub(super) async fn pass(connection: &mut SqliteConnection) -> Result<Pass, Fault> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(connection)
        .await
        .map_err(Fault::sql("writing back to the database file"))?;
    let column = |at: usize| row.try_get::<i64, _>(at).map_err(Fault::column("wal_checkpoint"));
    Ok(Pass { busy: column(0)? != 0, pages: column(1)?, copied: column(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn with_table(path: &Path) -> SqliteConnection {
        let mut connection = database::writer_options(path).create_if_missing(true).connect().await.unwrap();
        sqlx::query("CREATE TABLE t (text TEXT)").execute(&mut connection).await.unwrap();
        connection
    }

    async fn insert(connection: &mut SqliteConnection) {
        let insert = sqlx::query("INSERT INTO t VALUES (hex(randomblob(2000)))");
        insert.execute(connection).await.unwrap();
    }

    #[tokio::test]
    async fn a_pass_begins_when_it_is_due_and_copies_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.db");
        let mut writer = with_table(&path).await;
        let mut beside = WriteBack::new(&path);
        for _ in 1..COMMITS {
            insert(&mut writer).await;
            beside.committed(1).unwrap();
            assert!(beside.running.is_none());
        }
        let before = std::fs::metadata(&path).unwrap().len();
        while beside.idle.is_none() {
            insert(&mut writer).await;
            assert!(!beside.committed(1).unwrap(), "the log is not long");
        }
        assert!(std::fs::metadata(&path).unwrap().len() > before, "nothing was copied");
    }

    #[tokio::test]
    async fn the_writer_does_its_part_when_the_log_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages.db");
        let mut writer = with_table(&path).await;
        sqlx::query("INSERT INTO t VALUES (zeroblob(40000000))").execute(&mut writer).await.unwrap();
        let mut beside = WriteBack::new(&path);
        let mut long = beside.committed(COMMANDS).unwrap();
        while !long && beside.idle.is_none() {
            insert(&mut writer).await;
            long = beside.committed(1).unwrap();
        }
        assert!(long);
        assert!(pass(&mut writer).await.unwrap().complete());
    }

    #[tokio::test]
    async fn a_second_connection_that_fails_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut beside = WriteBack::new(&folder.path().join("missing").join("messages.db"));
        // How soon it fails is up to its thread.
        let failed = match beside.committed(COMMANDS) {
            Ok(long) => {
                assert!(!long);
                beside.settle().await
            }
            Err(fault) => Err(fault),
        };
        assert!(matches!(failed, Err(Fault::Sql { .. })), "{failed:?}");
        let mut commands = COMMANDS;
        while beside.committed(commands).is_ok() {
            commands = 1;
            tokio::task::yield_now().await;
        }
        assert!(beside.running.is_none(), "a failed pass is over");
    }
}
