//! A pure machine in memory: its state is in a snapshot file and the log behind it, and readers share consistent views.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hub_core::port::{AppliedMark, Entry, MemoryMachine, SnapshotFile, StateMachine, StateMachineError};
use tokio::sync::watch;

use super::files;
use crate::log_store::OpenError;

const FILE: &str = "state.snapshot";
static NEXT_COPY: AtomicU64 = AtomicU64::new(0);

/// Where a machine in memory keeps its snapshots.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Its folder; made if it is not there.
    pub dir: PathBuf,
}

impl MemoryOptions {
    /// Loads the newest snapshot. The log behind it is applied when the group opens. Blocks.
    pub fn build<M: MemoryMachine>(self) -> Result<(MemoryState<M>, View<M>), OpenError> {
        let io_error = |path: &Path, source| OpenError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(&self.dir).map_err(|error| io_error(&self.dir, error))?;
        let path = self.dir.join(FILE);
        let found = files::read(&path).map_err(|error| io_error(&path, error))?;
        let (machine, mark) = match found {
            None => (M::default(), AppliedMark::default()),
            Some(bytes) => load::<M>(bytes).map_err(|detail| OpenError::Damaged {
                what: "snapshot",
                path: path.clone(),
                detail,
            })?,
        };
        let (views, view) = watch::channel(Published { index: mark.index, view: machine.view() });
        let saved = (!mark.opaque.is_empty()).then(|| mark.clone());
        let state = MemoryState { machine, mark, saved, dir: self.dir.into(), views };
        Ok((state, View { published: view }))
    }
}

fn load<M: MemoryMachine>(bytes: Bytes) -> Result<(M, AppliedMark), String> {
    let (mark, body) = files::decode(bytes).map_err(|error| error.to_string())?;
    let machine = M::decode(body).map_err(|error| error.to_string())?;
    Ok((machine, mark))
}

struct Published<V> {
    index: u64,
    view: V,
}

/// A `StateMachine` over a pure machine.
pub struct MemoryState<M: MemoryMachine> {
    machine: M,
    mark: AppliedMark,
    saved: Option<AppliedMark>,
    dir: Arc<Path>,
    views: watch::Sender<Published<M::View>>,
}

/// What readers hold: the newest consistent view of a machine in memory.
pub struct View<M: MemoryMachine> {
    published: watch::Receiver<Published<M::View>>,
}

impl<M: MemoryMachine> Clone for View<M> {
    fn clone(&self) -> Self {
        Self { published: self.published.clone() }
    }
}

impl<M: MemoryMachine> View<M> {
    /// The state as of now.
    #[must_use]
    pub fn view(&self) -> M::View {
        self.published.borrow().view.clone()
    }

    /// The state as of now, and the log index it is as of.
    #[must_use]
    pub fn view_at(&self) -> (u64, M::View) {
        let published = self.published.borrow();
        (published.index, published.view.clone())
    }

    /// Waits until something was applied since this handle was made, or since this was last called. `false` when the
    /// machine is gone.
    pub async fn changed(&mut self) -> bool {
        self.published.changed().await.is_ok()
    }

    /// Waits until `index` was applied. `None` at the deadline, or when the machine is gone before.
    pub async fn wait_for(&self, index: u64, deadline: Instant) -> Option<M::View> {
        let mut published = self.published.clone();
        let reached = published.wait_for(|published| published.index >= index);
        let reached = tokio::time::timeout_at(deadline.into(), reached).await.ok()?.ok()?;
        Some(reached.view.clone())
    }
}

impl<M: MemoryMachine> MemoryState<M> {
    fn publish(&self) {
        self.views.send_replace(Published { index: self.mark.index, view: self.machine.view() });
    }
}

fn io_failed(during: &'static str) -> impl FnOnce(io::Error) -> StateMachineError {
    move |source| StateMachineError::Io { during, source: Box::new(source) }
}

async fn blocking<T: Send + 'static>(
    during: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StateMachineError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|result| result).map_err(io_failed(during))
}

impl<M: MemoryMachine> StateMachine for MemoryState<M> {
    type Command = M::Command;
    type Reply = M::Reply;

    fn applied(&self) -> AppliedMark {
        self.mark.clone()
    }

    async fn apply(
        &mut self,
        entries: Vec<Entry<M::Command>>,
        mark: AppliedMark,
    ) -> Result<Vec<Vec<M::Reply>>, StateMachineError> {
        let replies = entries.iter().map(|entry| self.machine.apply(entry)).collect();
        self.mark = mark;
        self.publish();
        Ok(replies)
    }

    async fn checkpoint(&mut self) -> Result<AppliedMark, StateMachineError> {
        if let Some(saved) = &self.saved
            && saved.index == self.mark.index
        {
            return Ok(saved.clone());
        }
        if self.mark.opaque.is_empty() {
            return Ok(AppliedMark::default());
        }
        let (dir, mark, body) = (Arc::clone(&self.dir), self.mark.clone(), self.machine.encode());
        blocking("checkpoint", move || files::write_durably(&dir, FILE, &files::encode(&mark, &body)))
            .await?;
        self.saved = Some(self.mark.clone());
        Ok(self.mark.clone())
    }

    fn export(
        &mut self,
        dir: &Path,
    ) -> impl Future<Output = Result<SnapshotFile, StateMachineError>> + Send + 'static + use<M> {
        let bytes = files::encode(&self.mark, &self.machine.encode());
        let path = dir.join(format!("export-{}", NEXT_COPY.fetch_add(1, Ordering::Relaxed)));
        let file = SnapshotFile {
            path: path.clone(),
            mark: self.mark.clone(),
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        blocking("export", move || std::fs::write(&path, &bytes).map(|()| file))
    }

    async fn install(&mut self, file: SnapshotFile) -> Result<(), StateMachineError> {
        let dir = Arc::clone(&self.dir);
        let read = blocking("install", move || {
            let Some(bytes) = files::read(&file.path)? else {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            };
            if (bytes.len() as u64, crc32c::crc32c(&bytes)) != (file.bytes, file.crc32c) {
                return Ok(Err("checksum of the received file does not fit".to_owned()));
            }
            let loaded = match load::<M>(bytes.clone()) {
                Ok(loaded) => loaded,
                Err(detail) => return Ok(Err(detail)),
            };
            files::write_durably(&dir, FILE, &bytes)?;
            Ok(Ok(loaded))
        });
        let (machine, mark) = read.await?.map_err(StateMachineError::Corrupt)?;
        self.machine = machine;
        self.saved = Some(mark.clone());
        self.mark = mark;
        self.publish();
        Ok(())
    }
}
