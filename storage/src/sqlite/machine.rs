//! The state machine of the `messages` group: one SQLite database, one transaction for each batch of entries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hub_core::port::{AppliedMark, Entry, SnapshotFile, StateMachine, StateMachineError};
use sqlx::{Connection, SqliteConnection};

use super::apply::{self, Effects, Ledger};
use super::command::{Command, Reply};
use super::database;
use super::fault::Fault;
use super::feed::Feed;
use super::folder::Folder;
use super::read::Reader;
use super::snapshot;
use super::write_back::{self, WriteBack};

/// Settings of the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder; made if it is not there.
    pub folder: PathBuf,
    /// Connections that read at the same time; at least 1.
    pub readers: u32,
}

/// The state machine. See [`Options::open`].
pub struct SqliteMachine {
    connection: SqliteConnection,
    folder: Folder,
    mark: AppliedMark,
    /// What is certainly in the database file, synced.
    durable: AppliedMark,
    ledger: Ledger,
    write_back: WriteBack,
    feed: Arc<Feed>,
    reader: Reader,
    failed: bool,
}

impl Options {
    /// Opens the database, or makes it, and checks it. What is applied tells `feed`.
    pub async fn open(self, feed: Arc<Feed>) -> Result<SqliteMachine, Fault> {
        let folder = Folder::open(&self.folder)?;
        let mut connection = database::open_writer(&folder.database()).await?;
        let (mark, ledger) = database::read_state(&mut connection).await?;
        let reader = Reader::open(&folder.database(), self.readers.max(1));
        Ok(SqliteMachine {
            connection,
            write_back: WriteBack::new(&folder.database()),
            folder,
            mark,
            durable: AppliedMark::default(),
            ledger,
            feed,
            reader,
            failed: false,
        })
    }
}

impl SqliteMachine {
    /// What reads of this node go through; stays good when a copy is installed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    async fn transact(
        &mut self,
        entries: Vec<Entry<Command>>,
        mark: &AppliedMark,
    ) -> Result<(Vec<Vec<Reply>>, Effects), Fault> {
        let commands = entries.iter().map(|entry| entry.commands.len()).sum();
        let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection);
        begin.await.map_err(Fault::sql("beginning to apply"))?;
        let applied =
            apply::entries(&mut self.connection, &mut self.ledger, self.feed.node(), entries).await?;
        database::write_state(&mut self.connection, mark, &self.ledger).await?;
        let commit = sqlx::query("COMMIT").execute(&mut self.connection);
        commit.await.map_err(Fault::sql("committing what was applied"))?;
        if self.write_back.committed(commands)? {
            write_back::pass(&mut self.connection).await?;
        }
        Ok(applied)
    }

    /// Brings everything that was applied into the database file, synced. False if a reader of an old state kept a part back.
    async fn write_back(&mut self) -> Result<bool, Fault> {
        self.write_back.settle().await?;
        if !write_back::pass(&mut self.connection).await?.complete() {
            return Ok(false);
        }
        let during = "writing back to the database file";
        let path = self.folder.database();
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(path)?.sync_all());
        synced
            .await
            .map_err(|error| Fault::File { during, source: std::io::Error::other(error) })?
            .map_err(Fault::file(during))?;
        Ok(true)
    }

    async fn replace(&mut self, name: &str) -> Result<(), Fault> {
        self.folder.place(name)?;
        self.folder.switch(name)?;
        let path = self.folder.database();
        self.write_back.settle().await?;
        self.write_back = WriteBack::new(&path);
        let mut connection = database::open_writer(&path).await?;
        let (mark, ledger) = database::read_state(&mut connection).await?;
        let old = std::mem::replace(&mut self.connection, connection);
        self.reader.switch(&path).await;
        old.close().await.map_err(Fault::sql("closing the replaced database"))?;
        (self.mark, self.ledger, self.durable) = (mark, ledger, AppliedMark::default());
        self.folder.clean()
    }

    fn failing(&mut self, fault: Fault) -> StateMachineError {
        // What is in memory may be ahead of what is stored: nothing may be built on it any more.
        self.failed = true;
        fault.into()
    }

    fn usable(&self) -> Result<(), StateMachineError> {
        if self.failed {
            let source = std::io::Error::other("an earlier failure left the state unknown");
            return Err(Fault::File { during: "applying", source }.into());
        }
        if let Some(reason) = self.reader.damage() {
            return Err(Fault::Corrupt(reason.to_owned()).into());
        }
        Ok(())
    }
}

impl StateMachine for SqliteMachine {
    type Command = Command;
    type Reply = Reply;

    fn applied(&self) -> AppliedMark {
        self.mark.clone()
    }

    async fn apply(
        &mut self,
        entries: Vec<Entry<Command>>,
        mark: AppliedMark,
    ) -> Result<Vec<Vec<Reply>>, StateMachineError> {
        self.usable()?;
        match self.transact(entries, &mark).await {
            Ok((replies, effects)) => {
                self.mark = mark;
                self.feed.publish(effects);
                Ok(replies)
            }
            Err(fault) => Err(self.failing(fault)),
        }
    }

    async fn checkpoint(&mut self) -> Result<AppliedMark, StateMachineError> {
        self.usable()?;
        match self.write_back().await {
            Ok(true) => self.durable = self.mark.clone(),
            Ok(false) => {}
            Err(fault) => return Err(self.failing(fault)),
        }
        Ok(self.durable.clone())
    }

    fn export(
        &mut self,
        dir: &Path,
    ) -> impl Future<Output = Result<SnapshotFile, StateMachineError>> + Send + 'static + use<> {
        let (database, dir) = (self.folder.database(), dir.to_owned());
        async move { snapshot::export(&database, &dir).await.map_err(Into::into) }
    }

    async fn install(&mut self, file: SnapshotFile) -> Result<(), StateMachineError> {
        self.usable()?;
        // A bad copy changes nothing; from there on a failure leaves this machine between two states.
        let name = snapshot::receive(&self.folder, &file).await?;
        match self.replace(&name).await {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.failing(fault)),
        }
    }
}
