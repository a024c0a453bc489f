//! Crashes, copies and damage: what is on disk is whole, or it is said that it is not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Message, NewMessage};
use hub_core::port::{
    AppliedMark, Entry, QueueSignal, SnapshotFile, StateMachine, StateMachineError, Submitted, Want,
};
use hub_core::time::Timestamp;
use uuid::Uuid;

use super::command::{ClaimDue, Command, Insert, Item, Reply};
use super::fault::Fault;
use super::folder::Folder;
use super::{Feed, Options, SqliteMachine, snapshot};
use crate::suite::{TestSlots, plain_message};

const NOW: i64 = 1_800_000_000_000;

fn mark(index: u64) -> AppliedMark {
    AppliedMark { index, opaque: vec![7; 40].into() }
}

fn id(index: u64) -> MessageId {
    MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | u128::from(index)))
}

fn entry(index: u64) -> Entry<Command> {
    let now = Timestamp::from_millis(NOW);
    let plain = plain_message(id(index), "sender".parse().unwrap(), "target".parse().unwrap(), now);
    let content = format!("{{\"number\":{index},\"text\":\"{}\"}}", "abc".repeat(60)).into();
    let message = NewMessage { content, ..plain };
    let items = vec![Item { message, claim: None }];
    let command = Command::Insert(Insert { items, atomic: false, max_backlog: u64::MAX });
    let request = RequestId(Uuid::from_u128(u128::from(index)));
    Entry { index, term: 1, now, commands: vec![Submitted { request, command }] }
}

fn items(entry: &mut Entry<Command>) -> impl Iterator<Item = &mut Item> {
    entry.commands.iter_mut().flat_map(|submitted| match &mut submitted.command {
        Command::Insert(insert) => insert.items.iter_mut(),
        _ => [].iter_mut(),
    })
}

async fn open(folder: &Path) -> Result<SqliteMachine, Fault> {
    let feed = Feed::new(NodeId(1), Arc::<TestSlots>::default());
    Options { folder: folder.to_owned(), readers: 1 }.open(feed).await
}

async fn apply(machine: &mut SqliteMachine, indexes: std::ops::RangeInclusive<u64>) {
    let last = *indexes.end();
    machine.apply(indexes.map(entry).collect(), mark(last)).await.unwrap();
}

/// The messages with these indexes, as far as they are there.
async fn found(
    machine: &SqliteMachine,
    indexes: std::ops::RangeInclusive<u64>,
) -> Result<Vec<Message>, Fault> {
    let mut messages = Vec::new();
    for index in indexes {
        messages.extend(machine.reader().record(id(index)).await?.map(|record| record.message));
    }
    Ok(messages)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

/// A copy of a machine with `index` entries applied.
async fn copy_of(index: u64, dir: &Path) -> SnapshotFile {
    let source = tempfile::tempdir().unwrap();
    let mut machine = open(source.path()).await.unwrap();
    apply(&mut machine, 1..=index).await;
    machine.export(dir).await.unwrap()
}

#[tokio::test]
async fn what_was_applied_is_there_after_a_restart_and_is_not_applied_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await.unwrap();
    assert_eq!(machine.applied(), AppliedMark::default());
    apply(&mut machine, 1..=5).await;
    drop(machine);
    let mut machine = open(folder.path()).await.unwrap();
    assert_eq!(machine.applied(), mark(5));
    // The log is read again from after the mark; were it read from before it, the ids would tell.
    apply(&mut machine, 4..=9).await;
    assert_eq!(found(&machine, 1..=20).await.unwrap().len(), 9);
    let target = "target".parse().unwrap();
    assert_eq!(machine.reader().backlog(&target).await.unwrap().accepted_total, 9);
}

#[tokio::test]
async fn a_claim_ends_only_so_many_that_are_past_their_end() {
    const OLD: u64 = 2_300;
    let folder = tempfile::tempdir().unwrap();
    let feed = Feed::new(NodeId(1), Arc::<TestSlots>::default());
    let options = Options { folder: folder.path().to_owned(), readers: 1 };
    let mut machine = options.open(feed.clone()).await.unwrap();
    feed.started(1);
    let mut entries: Vec<_> = (1..=OLD + 1).map(entry).collect();
    for item in entries.iter_mut().take(2_300).flat_map(items) {
        item.message.expires_at = Some(Timestamp::from_millis(NOW + 1));
    }
    machine.apply(entries, mark(OLD + 1)).await.unwrap();
    let target: ServiceName = "target".parse().unwrap();
    while !matches!(feed.next().await, QueueSignal::Due(_)) {}
    let mut depths = Vec::new();
    for index in OLD + 2..OLD + 5 {
        let want = Want { target: target.clone(), count: 1, lease: Duration::from_secs(20) };
        let command = Command::Claim(ClaimDue { owner: NodeId(1), term: 1, wants: vec![want] });
        let commands = vec![Submitted { request: RequestId(Uuid::from_u128(9)), command }];
        let now = Timestamp::from_millis(NOW + 1);
        let replies = machine.apply(vec![Entry { index, term: 1, now, commands }], mark(index)).await;
        let granted = match &replies.unwrap()[0][0] {
            Reply::Claimed(granted) => granted.len(),
            other => panic!("{other:?}"),
        };
        depths.push((machine.reader().backlog(&target).await.unwrap().depth, granted));
        if granted == 0 {
            // It is asked again for what lies behind.
            assert_eq!(feed.next().await, QueueSignal::Due(target.clone()));
        }
    }
    assert_eq!(depths, [(1_301, 0), (301, 0), (1, 1)]);
}

#[tokio::test]
async fn a_checkpoint_is_in_the_database_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await.unwrap();
    apply(&mut machine, 1..=20).await;
    assert_eq!(machine.checkpoint().await.unwrap(), mark(20));
    apply(&mut machine, 21..=30).await;
    // Without its write-ahead log, as a power loss may leave it.
    let bare = tempfile::tempdir().unwrap();
    for name in ["current", "messages-0.db"] {
        std::fs::copy(folder.path().join(name), bare.path().join(name)).unwrap();
    }
    let old = open(bare.path()).await.unwrap();
    assert_eq!(old.applied(), mark(20));
    assert_eq!(found(&old, 1..=40).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_checkpoint_does_not_promise_what_a_reader_holds_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await.unwrap();
    apply(&mut machine, 1..=5).await;
    assert_eq!(machine.checkpoint().await.unwrap(), mark(5));
    apply(&mut machine, 6..=8).await;
    let options = super::database::options(&folder.path().join("messages-0.db"));
    let mut reader = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
    sqlx::query("SELECT count(*) FROM messages").fetch_one(&mut reader).await.unwrap();
    apply(&mut machine, 9..=12).await;
    assert_eq!(machine.checkpoint().await.unwrap(), mark(5));
    sqlx::query("COMMIT").execute(&mut reader).await.unwrap();
    assert_eq!(machine.checkpoint().await.unwrap(), mark(12));
}

#[tokio::test]
async fn a_copy_is_made_while_entries_are_applied_and_taken_in_whole() {
    let (source, target, dir) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut machine = open(source.path()).await.unwrap();
    apply(&mut machine, 1..=50).await;
    let export = machine.export(dir.path());
    let (copy, ()) = tokio::join!(export, apply(&mut machine, 51..=60));
    let copy = copy.unwrap();
    assert!((50..=60).contains(&copy.mark.index), "{copy:?}");
    let mut other = open(target.path()).await.unwrap();
    apply(&mut other, 1..=3).await;
    let reader = other.reader();
    let held = copy.mark.clone();
    other.install(copy).await.unwrap();
    assert_eq!(other.applied(), held);
    assert!(reader.record(id(50)).await.unwrap().is_some(), "a reader from before reads the new state");
    apply(&mut other, held.index + 1..=70).await;
    assert_eq!(found(&other, 1..=70).await.unwrap().len(), 70);
    assert_eq!(names(target.path()), ["current".to_owned(), format!("messages-{}.db", held.index)]);
    drop(other);
    assert_eq!(open(target.path()).await.unwrap().applied(), mark(70));
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_taking_in_a_copy_leaves_one_state_whole() {
    for steps in 0..=3 {
        let (target, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let copy = copy_of(40, dir.path()).await;
        let mut machine = open(target.path()).await.unwrap();
        apply(&mut machine, 1..=3).await;
        drop(machine);
        let mut folder = Folder::open(target.path()).unwrap();
        // Each step alone, then the process is gone.
        let name = snapshot::receive(&folder, &copy).await.unwrap();
        if steps >= 1 {
            folder.place(&name).unwrap();
        }
        if steps >= 2 {
            folder.switch(&name).unwrap();
        }
        if steps >= 3 {
            folder.clean().unwrap();
        }
        let machine = open(target.path()).await.unwrap();
        let (index, current) = if steps >= 2 { (40, "messages-40.db") } else { (3, "messages-0.db") };
        assert_eq!(machine.applied(), mark(index), "after {steps} steps");
        assert_eq!(found(&machine, 1..=60).await.unwrap().len(), index as usize, "after {steps} steps");
        assert_eq!(names(target.path()), ["current", current], "after {steps} steps");
    }
}

#[tokio::test]
async fn a_copy_that_is_not_what_was_sent_changes_nothing() {
    let (target, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut machine = open(target.path()).await.unwrap();
    apply(&mut machine, 1..=3).await;
    let good = copy_of(40, dir.path()).await;
    let bytes = std::fs::read(&good.path).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let cut = bytes[..bytes.len() - 4_096].to_vec();
    for (bytes, mark) in [(flipped, good.mark.clone()), (cut, good.mark.clone()), (bytes, mark(41))] {
        let path = dir.path().join("received");
        std::fs::write(&path, bytes).unwrap();
        let file = SnapshotFile { path, mark, ..good.clone() };
        assert!(matches!(machine.install(file).await, Err(StateMachineError::Corrupt(_))));
        assert_eq!(machine.applied(), self::mark(3));
    }
    apply(&mut machine, 4..=5).await;
    assert_eq!(found(&machine, 1..=60).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_lost_or_damaged_pointer_is_said_and_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await.unwrap();
    apply(&mut machine, 1..=3).await;
    drop(machine);
    let pointer = folder.path().join("current");
    let text = std::fs::read(&pointer).unwrap();
    std::fs::remove_file(&pointer).unwrap();
    assert!(matches!(open(folder.path()).await, Err(Fault::Corrupt(_))));
    std::fs::write(&pointer, "messages-7.db 00000000\n").unwrap();
    assert!(matches!(open(folder.path()).await, Err(Fault::Corrupt(_))));
    std::fs::write(&pointer, text).unwrap();
    assert_eq!(open(folder.path()).await.unwrap().applied(), mark(3));
}

#[tokio::test]
async fn a_flipped_byte_is_noticed_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = open(folder.path()).await.unwrap();
    apply(&mut machine, 1..=40).await;
    assert_eq!(machine.checkpoint().await.unwrap(), mark(40));
    let wanted = found(&machine, 1..=40).await.unwrap();
    drop(machine);
    let whole = std::fs::read(folder.path().join("messages-0.db")).unwrap();
    let pointer = std::fs::read(folder.path().join("current")).unwrap();
    let mut noticed = 0;
    let places: Vec<_> = (0..whole.len()).step_by(whole.len() / 150).map(|at| at | 1).collect();
    for at in &places {
        let other = tempfile::tempdir().unwrap();
        let mut damaged = whole.clone();
        damaged[*at] ^= 0x40;
        std::fs::write(other.path().join("messages-0.db"), damaged).unwrap();
        std::fs::write(other.path().join("current"), &pointer).unwrap();
        let read = match open(other.path()).await {
            Ok(machine) if machine.applied() == mark(40) => found(&machine, 1..=40).await,
            Ok(machine) => panic!("byte {at}: applied {:?}", machine.applied()),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(messages) => assert_eq!(messages, wanted, "byte {at}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > places.len() / 4, "{noticed} of {} were noticed", places.len());
}
