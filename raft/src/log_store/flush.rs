//! The group commit: one sync at a time, and whatever gathered meanwhile goes with the next.
//!
//! `raft-log` syncs on a thread of its own and could gather by waiting; waiting costs a lone write its time. Instead the
//! callback that ends a sync starts the next one when appends wait, so nothing ever waits for a timer.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use openraft::storage::IOFlushed;
use raft_log::RaftLog;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::OffsetSize;
use tokio::sync::{Notify, oneshot};

use super::codec::{DiskLogId, DiskPayload, DiskVote, NoUserData};
use super::mark::Mark;
use crate::failure::FirstFault;
use crate::type_config::C;

/// The types of the log below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Types;

impl raft_log::Types for Types {
    type LogId = DiskLogId;
    type LogPayload = DiskPayload;
    type Vote = DiskVote;
    type Callback = Synced;
    type UserData = NoUserData;

    fn log_index(log_id: &DiskLogId) -> u64 {
        log_id.index
    }

    fn payload_size(payload: &DiskPayload) -> u64 {
        payload.size()
    }
}

/// What the store, its readers and the syncing thread share.
pub(super) struct Shared {
    log: RwLock<RaftLog<Types>>,
    // Taken only while `log` is held, or alone: never the other way round.
    queue: Mutex<Queue>,
    pub(super) mark: Mark,
    /// Rings when the mark has moved, when something was written that waits for a sync, and when the log is closed.
    pub(super) marked: Arc<Notify>,
    pub(super) stats: SyncStats,
    pub(super) fault: FirstFault,
    /// Lets tests see what a disk that fails does.
    #[cfg(test)]
    pub(super) broken: std::sync::atomic::AtomicBool,
    // Last, so that it goes after the log: its end means that the folder is free.
    _open: oneshot::Sender<()>,
}

#[derive(Default)]
struct Queue {
    syncing: bool,
    waiting: Vec<IOFlushed<C>>,
    failed: Option<(io::ErrorKind, String)>,
}

/// Counts of the syncs of one log.
#[derive(Debug, Default)]
pub(crate) struct SyncStats {
    syncs: AtomicU64,
    micros: AtomicU64,
    longest: AtomicU64,
}

impl SyncStats {
    fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// Syncs done, the time they took together, and the longest since this was last asked.
    pub(crate) fn take(&self) -> (u64, Duration, Duration) {
        (
            self.syncs.load(Ordering::Relaxed),
            Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            Duration::from_micros(self.longest.swap(0, Ordering::Relaxed)),
        )
    }
}

impl Shared {
    /// Also gives what ends when the log's files are closed.
    pub(super) fn new(log: RaftLog<Types>, mark: Mark) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (open, closed) = oneshot::channel();
        let shared = Arc::new(Self {
            log: RwLock::new(log),
            queue: Mutex::default(),
            mark,
            marked: Arc::new(Notify::new()),
            stats: SyncStats::default(),
            fault: FirstFault::default(),
            #[cfg(test)]
            broken: std::sync::atomic::AtomicBool::default(),
            _open: open,
        });
        (shared, closed)
    }

    // A panic while the lock was held cannot leave the log half changed in memory only: records are checked before they
    // are written. So a poisoned lock is still good for reading, and writing fails below if the log itself has failed.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, RaftLog<Types>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` on the log, and syncs it if `flushed` is given; `flushed` is called when the sync has ended.
    pub(super) fn write(
        self: &Arc<Self>,
        change: impl FnOnce(&mut RaftLog<Types>) -> io::Result<()>,
        flushed: Option<IOFlushed<C>>,
    ) -> io::Result<()> {
        self.try_write(change, flushed).inspect_err(|error| self.fault.note_io(error))
    }

    fn try_write(
        self: &Arc<Self>,
        change: impl FnOnce(&mut RaftLog<Types>) -> io::Result<()>,
        flushed: Option<IOFlushed<C>>,
    ) -> io::Result<()> {
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        change(&mut log)?;
        let Some(flushed) = flushed else { return Ok(()) };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.push(flushed);
        if queue.syncing {
            return Ok(());
        }
        queue.syncing = true;
        let batch = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.start_sync(log, batch)
    }

    /// Syncs what was written without a sync of its own, if there is any.
    pub(super) fn sync_rest(self: &Arc<Self>) -> io::Result<()> {
        // Appending nothing tells where the log ends.
        let mut end = 0;
        self.write(|log| log.append([]).map(|last| end = last.end().0), None)?;
        if end > self.mark.offset() { self.write(|_| Ok(()), Some(IOFlushed::noop())) } else { Ok(()) }
    }

    /// The error that ended this log, if one did.
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.queue.lock().unwrap_or_else(PoisonError::into_inner).failed {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long the disk takes")]
    fn start_sync(
        self: &Arc<Self>,
        mut log: RwLockWriteGuard<'_, RaftLog<Types>>,
        batch: Vec<IOFlushed<C>>,
    ) -> io::Result<()> {
        // Appending nothing tells where the log ends.
        let end = log.append([])?.end().0;
        let callback =
            Synced { shared: Some(Arc::clone(self)), batch, end, started: std::time::Instant::now() };
        log.flush(true, Some(callback))
    }

    fn sync_ended(
        self: &Arc<Self>,
        batch: Vec<IOFlushed<C>>,
        end: u64,
        took: Duration,
        result: io::Result<()>,
    ) {
        self.stats.record(took);
        #[cfg(test)]
        let result = result.and_then(|()| {
            let broken = self.broken.load(Ordering::Acquire);
            if broken { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
        });
        // The mark moves before anybody hears of the sync: what was acknowledged is below it.
        match result.and_then(|()| self.mark.advance(end)) {
            Ok(()) => {
                self.marked.notify_one();
                for flushed in batch {
                    flushed.io_completed(Ok(()));
                }
                self.sync_next();
            }
            Err(error) => self.fail(&error, batch),
        }
    }

    fn sync_next(self: &Arc<Self>) {
        let log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            queue.syncing = false;
            return;
        }
        let batch = std::mem::take(&mut queue.waiting);
        drop(queue);
        if let Err(error) = self.start_sync(log, batch) {
            self.fail(&error, Vec::new());
        }
    }

    /// After a failed sync the kernel may have dropped what was not written: nothing may be tried again.
    fn fail(&self, error: &io::Error, batch: Vec<IOFlushed<C>>) {
        self.fault.note_io(error);
        tracing::error!(%error, "log sync failed, the group stops");
        let waiting = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.failed = Some((error.kind(), error.to_string()));
            std::mem::take(&mut queue.waiting)
        };
        for flushed in batch.into_iter().chain(waiting) {
            flushed.io_completed(Err(io::Error::new(error.kind(), error.to_string())));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.marked.notify_one();
    }
}

/// Called by the syncing thread.
pub(super) struct Synced {
    shared: Option<Arc<Shared>>,
    batch: Vec<IOFlushed<C>>,
    end: u64,
    started: std::time::Instant,
}

impl raft_log::Callback for Synced {
    #[expect(clippy::disallowed_methods, reason = "measures how long the disk takes")]
    fn send(mut self, result: io::Result<()>) {
        let took = std::time::Instant::now().saturating_duration_since(self.started);
        let end = self.end;
        self.end(|shared, batch| shared.sync_ended(batch, end, took, result));
    }
}

impl Synced {
    fn end(&mut self, tell: impl FnOnce(&Arc<Shared>, Vec<IOFlushed<C>>)) {
        let Some(shared) = self.shared.take() else { return };
        tell(&shared, std::mem::take(&mut self.batch));
        // Closing the log joins this very thread: leave that to another one.
        if let Some(last) = Arc::into_inner(shared) {
            std::thread::spawn(move || drop(last));
        }
    }
}

impl Drop for Synced {
    /// The syncing thread has ended before this sync: whoever waits for it must hear that.
    fn drop(&mut self) {
        let error = io::Error::other("the log's writer has ended");
        self.end(|shared, batch| shared.fail(&error, batch));
    }
}

#[cfg(test)]
mod tests {
    use openraft::type_config::TypeConfigExt;

    use super::super::open::{LogOptions, open};
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_sync_that_never_runs_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, _closed) = open(dir.path(), &LogOptions::default()).unwrap();
        let (done, wait) = C::oneshot();
        let batch = vec![IOFlushed::signal(done)];
        #[expect(clippy::disallowed_methods, reason = "the test needs some instant")]
        let started = std::time::Instant::now();
        drop(Synced { shared: Some(Arc::clone(&shared)), batch, end: 1, started });
        assert!(wait.await.unwrap().is_err());
        assert!(shared.check().is_err(), "nothing is written after it");
    }
}
