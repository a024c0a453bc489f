//! The log on disk: openraft's own suite, and what happens to it when the disk does its worst.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use hub_core::error::code;
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use prometheus::Registry;
use tempfile::TempDir;

use super::{LogOptions, LogStore, OpenError};
use crate::failure::FirstFault;
use crate::metrics::GroupMetrics;
use crate::state_machine::{Adapter, AdapterParts, MemoryOptions, MemoryState};
use crate::toy::Toy;
use crate::type_config::{C, Entry, EntryBytes, Payload, Vote, log_id};

/// Waiting for the folder of a log to be free takes no longer.
const FREE: Duration = Duration::from_secs(30);

struct Builder;

impl StoreBuilder<C, LogStore, Adapter<MemoryState<Toy>>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Adapter<MemoryState<Toy>>), StorageError<C>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = LogStore::open(&dir.path().join("log"), &LogOptions::default()).unwrap();
        let (machine, _) = MemoryOptions { dir: dir.path().join("state") }.build::<Toy>().unwrap();
        let parts = AdapterParts {
            metrics: Arc::new(GroupMetrics::register(&Registry::new(), "test").unwrap()),
            running: Arc::new(AtomicBool::new(true)),
            copies: dir.path().join("copies"),
            fault: FirstFault::default(),
        };
        let (adapter, _) = Adapter::open(machine, parts).await.unwrap();
        Ok((dir, log, adapter))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

fn entry(index: u64, text: &str) -> Entry {
    Entry::new(log_id(1, 1, index), Payload::Normal(EntryBytes(Bytes::copy_from_slice(text.as_bytes()))))
}

fn open(dir: &Path) -> Result<(LogStore, tokio::sync::oneshot::Receiver<()>), OpenError> {
    LogStore::open(dir, &LogOptions::default())
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<Entry> = entries.into_iter().collect();
    let (done, wait) = C::oneshot();
    log.append(entries, IOFlushed::signal(done)).await.unwrap();
    wait.await.unwrap().unwrap();
}

async fn close(log: LogStore, closed: tokio::sync::oneshot::Receiver<()>) {
    drop(log);
    assert!(tokio::time::timeout(FREE, closed).await.unwrap().is_err(), "ends, and says nothing");
}

async fn count(log: &mut LogStore) -> usize {
    log.get_log_reader().await.try_get_log_entries(..).await.unwrap().len()
}

/// A log of ten acknowledged entries, closed.
async fn ten(dir: &Path) -> PathBuf {
    let (mut log, closed) = open(dir).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..10 {
        append(&mut log, [entry(index, &format!("entry number {index}"))]).await;
    }
    close(log, closed).await;
    let mut chunks: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    chunks.sort();
    chunks.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_reaches_the_disk_when_nothing_is_appended_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _closed) = open(dir.path()).unwrap();
    let keeper = log.handle().keep_mark(Duration::from_millis(1));
    tokio::pin!(keeper);
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    append(&mut log, [entry(0, "first"), entry(1, "second")]).await;
    log.save_committed(Some(log_id(1, 1, 1))).await.unwrap();
    // As a process finds the folder that starts after this one was killed.
    let found = async {
        loop {
            let copy = tempfile::tempdir().unwrap();
            for file in fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()) {
                fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
            }
            // A copy that was made while the log was written may be refused.
            if let Ok((mut log, _closed)) = open(copy.path())
                && log.read_committed().await.unwrap() == Some(log_id(1, 1, 1))
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut keeper => panic!("the keeper has ended: {ended:?}"),
        found = tokio::time::timeout(FREE, found) => found.unwrap(),
    }
}

fn damaged(dir: &Path) {
    match open(dir).map(drop) {
        Err(error @ OpenError::Damaged { .. }) => assert_eq!(error.code(), code::DAMAGED),
        other => panic!("expected damage: {other:?}"),
    }
}

#[tokio::test]
async fn finds_again_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    let (mut log, _closed) = open(dir.path()).unwrap();
    assert_eq!(count(&mut log).await, 10);
    let vote = log.get_log_reader().await.read_vote().await.unwrap();
    assert_eq!(vote, Some(Vote::new_committed(1, 1)));
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 9)));
}

#[tokio::test]
async fn a_tail_that_was_never_acknowledged_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = ten(dir.path()).await;
    let whole = fs::metadata(&chunk).unwrap().len();
    // Each way in which a write can be cut short: half a header, a header with half a body, rubbish, zeros.
    for tail in [&[0, 0][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], &[0xEE; 700], &[0; 4096]] {
        let mut file = OpenOptions::new().append(true).open(&chunk).unwrap();
        file.write_all(tail).unwrap();
        drop(file);
        let (mut log, closed) = open(dir.path()).unwrap();
        assert_eq!(count(&mut log).await, 10);
        close(log, closed).await;
        assert_eq!(fs::metadata(&chunk).unwrap().len(), whole, "cut at the last whole record");
    }
    let (mut log, _closed) = open(dir.path()).unwrap();
    append(&mut log, [entry(10, "goes on")]).await;
    assert_eq!(count(&mut log).await, 11);
}

#[tokio::test]
async fn a_log_shorter_than_the_mark_is_damaged_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = ten(dir.path()).await;
    let whole = fs::metadata(&chunk).unwrap().len();
    for lost in [1, 7, whole / 2, whole] {
        let file = OpenOptions::new().write(true).open(&chunk).unwrap();
        file.set_len(whole - lost).unwrap();
        drop(file);
        damaged(dir.path());
        damaged(dir.path());
    }
    fs::remove_file(&chunk).unwrap();
    damaged(dir.path());
}

#[tokio::test]
async fn no_flipped_byte_goes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = ten(dir.path()).await;
    let bytes = fs::read(&chunk).unwrap();
    for at in 0..bytes.len() {
        let file = OpenOptions::new().write(true).open(&chunk).unwrap();
        file.write_all_at(&[bytes[at] ^ 0x04], at as u64).unwrap();
        drop(file);
        assert!(open(dir.path()).is_err(), "byte {at} of {} was flipped", bytes.len());
        fs::write(&chunk, &bytes).unwrap();
    }
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn an_overwritten_tail_with_whole_records_behind_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let chunk = ten(dir.path()).await;
    let mut file = OpenOptions::new().write(true).open(&chunk).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&[0; 40]).unwrap();
    drop(file);
    damaged(dir.path());
}

#[tokio::test]
async fn many_appends_share_a_sync_and_all_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, closed) = open(dir.path()).unwrap();
    let handle = log.handle();
    let mut waits = Vec::new();
    for index in 0..2_000 {
        let (done, wait) = C::oneshot();
        log.append([entry(index, "x")], IOFlushed::signal(done)).await.unwrap();
        waits.push(wait);
    }
    for wait in waits {
        wait.await.unwrap().unwrap();
    }
    let (syncs, ..) = handle.with_stats(super::SyncStats::take).unwrap();
    assert!(syncs < 2_000, "{syncs} syncs");
    close(log, closed).await;
    let (mut log, _closed) = open(dir.path()).unwrap();
    assert_eq!(count(&mut log).await, 2_000);
}

#[tokio::test]
async fn purged_files_go_and_the_rest_is_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let small = LogOptions { cache_bytes: 1_000, chunk_bytes: 4_000, ..LogOptions::default() };
    let files = || fs::read_dir(dir.path()).unwrap().count();
    let (mut log, closed) = LogStore::open(dir.path(), &small).unwrap();
    for index in 0..200 {
        append(&mut log, [entry(index, &"y".repeat(100))]).await;
    }
    let before = files();
    log.purge(log_id(1, 1, 149)).await.unwrap();
    append(&mut log, [entry(200, "z")]).await;
    assert_eq!(count(&mut log).await, 51);
    close(log, closed).await;
    assert!(files() < before, "{} of {before} files are left", files());
    let (mut log, _closed) = LogStore::open(dir.path(), &small).unwrap();
    assert_eq!(count(&mut log).await, 51);
    assert_eq!(log.purged_index(), Some(149));
}

#[tokio::test]
async fn reads_for_followers_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _closed) = open(dir.path()).unwrap();
    let large = "l".repeat(900_000);
    append(&mut log, (0..10).map(|index| entry(index, &large))).await;
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(0, 10).await.unwrap().len(), 2);
    append(&mut log, [entry(10, &"h".repeat(3_000_000))]).await;
    assert_eq!(reader.limited_get_log_entries(10, 11).await.unwrap().len(), 1, "a large one goes alone");
}

#[tokio::test]
async fn a_folder_that_is_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _closed) = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()).map(drop), Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn a_failed_sync_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _closed) = open(dir.path()).unwrap();
    append(&mut log, [entry(0, "good")]).await;
    log.break_syncs();
    let (done, wait) = C::oneshot();
    log.append([entry(1, "lost")], IOFlushed::signal(done)).await.unwrap();
    assert!(wait.await.unwrap().is_err());
    let (done, _wait) = C::oneshot();
    assert!(
        log.append([entry(2, "never")], IOFlushed::signal(done)).await.is_err(),
        "nothing is tried again"
    );
    assert!(log.save_vote(&Vote::new(2, 1)).await.is_err());
    assert!(log.get_log_state().await.is_err());
}
