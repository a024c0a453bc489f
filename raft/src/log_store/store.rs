//! openraft's log storage over the shared log.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use raft_log::api::raft_log_writer::RaftLogWriter;
use tokio::sync::{Notify, oneshot};

use super::codec::{DiskLogId, DiskPayload};
use super::flush::{Shared, SyncStats};
use super::open::{LogOptions, OpenError, open};
use super::reader::LogReader;
use crate::failure::FirstFault;
use crate::type_config::{C, Entry, LogId, Vote};

/// The log of one group.
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

/// What remains with the group when openraft owns the store.
#[derive(Clone)]
pub(crate) struct LogHandle {
    shared: Weak<Shared>,
    marked: Arc<Notify>,
}

impl LogStore {
    /// Opens the log in `dir`. What is returned beside it ends when the log's files are closed. Blocks.
    pub(crate) fn open(dir: &Path, options: &LogOptions) -> Result<(Self, oneshot::Receiver<()>), OpenError> {
        let (shared, closed) = open(dir, options)?;
        Ok((Self { shared }, closed))
    }

    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.shared.read().log_state().purged().map(|id| id.index)
    }

    /// Nothing was ever written to it: no entry, no vote.
    pub(crate) fn is_virgin(&self) -> bool {
        let log = self.shared.read();
        let state = log.log_state();
        state.last().is_none() && state.purged().is_none() && state.vote().is_none()
    }

    /// What first went wrong with it.
    pub(crate) fn fault(&self) -> FirstFault {
        self.shared.fault.clone()
    }

    pub(crate) fn handle(&self) -> LogHandle {
        LogHandle { shared: Arc::downgrade(&self.shared), marked: Arc::clone(&self.shared.marked) }
    }

    /// From now on every sync fails.
    #[cfg(test)]
    pub(crate) fn break_syncs(&self) {
        self.shared.broken.store(true, std::sync::atomic::Ordering::Release);
    }

    async fn synced(
        &self,
        change: impl FnOnce(&mut raft_log::RaftLog<super::flush::Types>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (done, wait) = C::oneshot();
        self.shared.write(change, Some(IOFlushed::signal(done)))?;
        wait.await.map_err(|_| io::Error::other("log is closed"))?
    }
}

impl LogHandle {
    /// Makes the synced mark durable whenever it has moved, after `delay`, until the log is closed. What is committed rides
    /// the next append's sync; when none comes within `delay`, it gets one of its own: a node that starts again without the
    /// others must know what was committed.
    pub(crate) async fn keep_mark(self, delay: Duration) -> io::Result<()> {
        loop {
            self.marked.notified().await;
            let before = self.shared.upgrade().map(|shared| shared.mark.offset());
            tokio::time::sleep(delay).await;
            let Some(shared) = self.shared.upgrade() else { return Ok(()) };
            if before == Some(shared.mark.offset()) {
                shared.sync_rest()?;
            }
            tokio::task::spawn_blocking(move || shared.mark.sync()).await.map_err(io::Error::other)??;
        }
    }

    pub(crate) fn with_stats<T>(&self, read: impl FnOnce(&SyncStats) -> T) -> Option<T> {
        self.shared.upgrade().map(|shared| read(&shared.stats))
    }
}

impl RaftLogStorage<C> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        self.shared.check()?;
        let log = self.shared.read();
        let state = log.log_state();
        Ok(LogState {
            last_purged_log_id: state.purged().copied().map(LogId::from),
            last_log_id: state.last().copied().map(LogId::from),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.synced(|log| log.save_vote(vote.into()).map(drop)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed.as_ref().map(DiskLogId::from) else { return Ok(()) };
        // It rides the next sync, which may be the keeper's. Losing it only means that fewer entries are applied before the
        // leader says so again.
        let written = self.shared.write(
            |log| {
                let state = log.log_state();
                let newer = state.committed().is_none_or(|old| *old < committed);
                let known = state.last().is_some_and(|last| committed <= *last);
                if newer && known { log.commit(committed).map(drop) } else { Ok(()) }
            },
            None,
        );
        self.shared.marked.notify_one();
        written
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.read().log_state().committed().copied().map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records =
            entries.into_iter().map(|entry| (DiskLogId::from(&entry.log_id), DiskPayload(entry.payload)));
        self.shared.write(|log| log.append(records).map(drop), Some(callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let next = last_log_id.map_or(0, |id| id.index() + 1);
        if self.shared.read().log_state().last().is_none_or(|last| last.index < next) {
            return Ok(());
        }
        self.synced(|log| log.truncate(next).map(drop)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        // The files go after the sync that makes the purge durable.
        self.shared.write(|log| log.purge((&log_id).into()).map(drop), Some(IOFlushed::noop()))
    }
}
