//! Opening the log found on disk: is it whole, torn, or damaged?

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_core::error::{Code, code};
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::chunked_wal::{self, ChunkId, ChunkedWal};
use raft_log::codeq::OffsetSize;
use raft_log::{RaftLog, RaftWalTypes};
use tokio::sync::oneshot;

use super::flush::{Shared, Types};
use super::mark::Mark;

/// Sizes of one group's log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of entries kept in memory for followers and for apply. Entries of the newest file always are.
    pub cache_bytes: usize,
    /// Bytes of one log file. Whole files are deleted when they are purged.
    pub chunk_bytes: usize,
    /// How long the synced mark may lag on disk behind the log, at most.
    pub mark_delay: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, chunk_bytes: 16 << 20, mark_delay: Duration::from_millis(100) }
    }
}

/// Why a group's data could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data contradicts what was certainly on disk. Nothing was changed.
    #[error("{what} in {} is damaged: {detail}", path.display())]
    Damaged {
        /// The log, a snapshot, the state.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The disk failed, or the folder cannot be used.
    #[error("data folder {} cannot be used", path.display())]
    Io {
        /// Which folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The consensus layer did not start.
    #[error("group {group} did not start: {reason}")]
    Start {
        /// Which group.
        group: String,
        /// Why.
        reason: String,
        /// What kind of error.
        code: Code,
    },
}

impl OpenError {
    /// The consensus layer, or what it needs, did not start, for no reason that the catalogue has a better code for.
    pub(crate) fn start(group: impl Display, reason: impl Display) -> Self {
        Self::Start { group: group.to_string(), reason: reason.to_string(), code: code::INTERNAL }
    }

    /// The catalogue's code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Damaged { .. } => code::DAMAGED,
            Self::Io { source, .. } => Code::of_io(source),
            Self::Start { code, .. } => *code,
        }
    }
}

/// Opens the log in `dir`; makes an empty one if there is none. Blocks.
pub(super) fn open(
    dir: &Path,
    options: &LogOptions,
) -> Result<(Arc<Shared>, oneshot::Receiver<()>), OpenError> {
    let io_error = |source| OpenError::Io { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(io_error)?;
    let mark = Mark::open(dir).map_err(io_error)?;
    let config = config(dir, options);
    check(dir, &config, mark.offset())?;
    let mut log =
        RaftLog::<Types>::open(Arc::new(config)).map_err(|error| damaged(dir, error.to_string()))?;
    let end = log.append([]).map_err(io_error)?.end().0;
    if end < mark.offset() {
        return Err(damaged(
            dir,
            format!("it ends at byte {end}, but was synced up to byte {}", mark.offset()),
        ));
    }
    Ok(Shared::new(log, mark))
}

fn damaged(dir: &Path, detail: String) -> OpenError {
    OpenError::Damaged { what: "log", path: dir.to_owned(), detail }
}

fn config(dir: &Path, options: &LogOptions) -> raft_log::Config {
    raft_log::Config {
        wal: chunked_wal::Config {
            dir: dir.to_string_lossy().into_owned(),
            read_buffer_size: Some(1 << 20),
            chunk_max_records: None,
            chunk_max_size: Some(options.chunk_bytes),
            // What is torn is cut in `check`, which knows the mark; the log itself must not cut anything.
            truncate_incomplete_record: Some(false),
            // `flush` gathers by itself: the log shall neither wait nor block.
            flush_batch_wait: Some(Duration::ZERO),
            flush_batch_max_items: None,
            flush_queue_max_bytes: Some(usize::MAX / 2),
        },
        log_cache_max_items: Some(1 << 20),
        log_cache_capacity: Some(options.cache_bytes),
    }
}

/// Reads every record once. The first unreadable one must lie behind the mark and in the last file: then it was never
/// acknowledged, and the file is cut there. Anywhere else it is damage, and nothing is touched.
fn check(dir: &Path, config: &raft_log::Config, mark: u64) -> Result<(), OpenError> {
    let Scan { bad, chunks, .. } = scan(dir, config)?;
    let Some(Bad { chunk, at, reason }) = bad else { return Ok(()) };
    if at < mark {
        let detail =
            format!("no record can be read at byte {at}, but it was synced up to byte {mark}: {reason}");
        return Err(damaged(dir, detail));
    }
    if Some(&chunk) != chunks.last() {
        return Err(damaged(
            dir,
            format!("no record can be read at byte {at}, and a later file exists: {reason}"),
        ));
    }
    tracing::warn!(at, %reason, "torn tail of the log is cut; it was never acknowledged");
    let path = PathBuf::from(config.wal.chunk_path(chunk));
    cut(&path, at - chunk.offset()).map_err(|source| OpenError::Io { path, source })
}

/// What can be read of a log.
struct Scan {
    /// Where the last readable record ends.
    end: u64,
    /// The first one that cannot be read.
    bad: Option<Bad>,
    /// The files, in order.
    chunks: Vec<ChunkId>,
}

struct Bad {
    chunk: ChunkId,
    at: u64,
    reason: String,
}

fn scan(dir: &Path, config: &raft_log::Config) -> Result<Scan, OpenError> {
    let io_error = |source| OpenError::Io { path: dir.to_owned(), source };
    let lock = ChunkedWal::<RaftWalTypes<Types>>::acquire_lock(&config.wal).map_err(io_error)?;
    let chunks = ChunkedWal::<RaftWalTypes<Types>>::load_chunk_ids(&config.wal, &lock).map_err(io_error)?;
    let mut end = 0;
    let mut bad = None;
    ChunkedWal::<RaftWalTypes<Types>>::dump_records(&config.wal, &lock, |chunk, index, record| {
        match record {
            Ok((segment, _)) => end = chunk.offset() + segment.end().0,
            Err(error) if bad.is_none() => {
                let at = if index == 0 { chunk.offset() } else { end };
                bad = Some(Bad { chunk, at, reason: error.to_string() });
            }
            Err(_) => {}
        }
        Ok(())
    })
    .map_err(io_error)?;
    drop(lock);
    Ok(Scan { end, bad, chunks })
}

/// Makes a damaged log usable by cutting it before what cannot be read, whatever was synced, and forgets the mark. Says
/// what was lost, if anything was. Blocks.
pub(super) fn salvage(dir: &Path, options: &LogOptions, act: bool) -> Result<Option<String>, OpenError> {
    let io_error = |source| OpenError::Io { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(io_error)?;
    let config = config(dir, options);
    let Scan { end, bad, chunks } = scan(dir, &config)?;
    let end = bad.as_ref().map_or(end, |bad| bad.at);
    let mark = Mark::open(dir).map_err(io_error)?.offset();
    let lost =
        (end < mark).then(|| format!("its bytes {end} to {mark}, which were certainly synced, are lost"));
    if !act {
        return Ok(lost);
    }
    if let Some(Bad { chunk, at, .. }) = bad {
        for later in chunks.into_iter().filter(|other| *other > chunk) {
            std::fs::remove_file(config.wal.chunk_path(later)).map_err(io_error)?;
        }
        cut(Path::new(&config.wal.chunk_path(chunk)), at - chunk.offset()).map_err(io_error)?;
    }
    if lost.is_some() {
        std::fs::remove_file(dir.join(super::mark::FILE)).map_err(io_error)?;
    }
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error)?;
    Ok(lost)
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    if length == 0 {
        // A file whose very first record is torn was never begun.
        std::fs::remove_file(path)?;
        return std::fs::File::open(path.parent().unwrap_or(path))?.sync_all();
    }
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}
