//! A group of one.

use std::sync::atomic::Ordering;

use hub_core::id::RequestId;
use hub_core::port::{ProposeError, Replicator, Submitted};
use uuid::Uuid;

use crate::support::{LONG, Node, Plan, later, set, spawn, until};
use crate::toy::{Before, NEWER, Set};

async fn lone(dir: &tempfile::TempDir) -> Node {
    Node::found(Plan::new(dir.path().join("a"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_what_it_answered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    for number in 0..50 {
        node.set(&format!("key {number}"), "value").await.unwrap();
    }
    assert_eq!(node.set("key 7", "again").await.unwrap().reply, Before(1));
    let plan = node.stop().await;
    let node = Node::reopen(plan).await;
    assert_eq!(node.count("key 7").await, 2);
    assert_eq!(node.toy.view().keys.len(), 50);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_it_in_a_checkpoint_when_the_log_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(dir.path().join("a"));
    plan.toys = |options| {
        options.checkpoint_every = 50;
        options.keep_entries = 10;
    };
    let node = Node::found(plan).await;
    for number in 0..400 {
        node.set(&format!("key {}", number % 100), "value").await.unwrap();
    }
    until("a purge", || async { (node.toys.status().purged_index > 100).then_some(()) }).await;
    let plan = node.stop().await;
    let node = Node::reopen(plan.clone()).await;
    assert_eq!(node.count("key 99").await, 4);
    node.stop().await;
    // Without its snapshot the state cannot be had from the log any more, and that is said.
    std::fs::remove_file(plan.dir.join("toys/state/state.snapshot")).unwrap();
    let reopened = spawn(Node::reopen(plan)).await;
    assert!(reopened.is_err(), "the node starts with a hole in its state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_taken_away_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    node.set("key", "value").await.unwrap();
    node.toys.checkpoint().await.unwrap();
    until("a checkpoint", || async { (node.toys.status().snapshot_index > 0).then_some(()) }).await;
    let plan = node.stop().await;
    // Its votes went with it: it could vote twice.
    std::fs::remove_dir_all(plan.dir.join("toys/log")).unwrap();
    let reopened = spawn(Node::reopen(plan)).await;
    assert!(reopened.is_err(), "the node starts without its votes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_wait_together_share_entries() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    node.set("first", "value").await.unwrap();
    let before = node.toys.status().last_log_index;
    let many = (0..2_000).map(|number| {
        let toys = node.toys.clone();
        spawn(async move { toys.propose(set(&format!("key {number}"), "value"), later(LONG)).await })
    });
    for done in many.collect::<Vec<_>>() {
        done.await.unwrap().unwrap();
    }
    let entries = node.toys.status().last_log_index - before;
    assert!(entries < 1_000, "{entries} entries for 2000 proposals");
    assert_eq!(node.toy.view().keys.len(), 2_001);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_in_a_term_share_an_entry_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    node.set("first", "value").await.unwrap();
    let term = node.toys.leadership().term;
    let together = vec![set("a", "1"), set("b", "1"), set("a", "2")];
    let done = node.toys.propose_in_term(term, together, later(LONG)).await.unwrap();
    assert!(done.iter().all(|one| one.index == done[0].index));
    assert_eq!(done.iter().map(|one| one.reply.0).collect::<Vec<_>>(), [0, 0, 1]);
    let refused = node.toys.propose_in_term(term + 1, vec![set("a", "3")], later(LONG)).await;
    assert_eq!(refused, Err(ProposeError::LeadershipMoved));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_an_entry_is_refused_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    node.set("first", "value").await.unwrap();
    let before = node.toys.status().last_log_index;
    let refused = node.set("large", &"x".repeat(5 << 20)).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { bytes }) if bytes > 5 << 20));
    assert_eq!(node.toys.status().last_log_index, before);
    node.set("large", &"x".repeat(3 << 20)).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_nobody_reads_is_refused_and_one_in_the_log_skipped_or_fatal() {
    let dir = tempfile::tempdir().unwrap();
    let node = lone(&dir).await;
    let newer = |ignorable| Submitted {
        request: RequestId(Uuid::from_u128(u128::MAX)),
        command: Set::Newer { ignorable },
    };
    for ignorable in [true, false] {
        let refused = node.toys.propose(newer(ignorable), later(LONG)).await;
        assert_eq!(refused, Err(ProposeError::Unsupported));
    }
    node.set("key", "value").await.unwrap();
    // Written by a newer version, and found by this one.
    NEWER.store(true, Ordering::Relaxed);
    node.toys.propose(newer(true), later(LONG)).await.unwrap();
    let plan = node.stop().await;
    NEWER.store(false, Ordering::Relaxed);
    let node = Node::reopen(plan).await;
    assert_eq!(node.count("key").await, 1);
    assert_eq!(node.counter("hub_raft_skipped_entries_total"), 1.0);
    NEWER.store(true, Ordering::Relaxed);
    node.toys.propose(newer(false), later(LONG)).await.unwrap();
    // What comes after it in the log says that it is committed.
    node.set("key", "value").await.unwrap();
    let plan = node.stop().await;
    NEWER.store(false, Ordering::Relaxed);
    let panic = spawn(Node::reopen(plan)).await.err().unwrap().into_panic();
    let reason = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(reason.contains("version 9") && reason.contains("2012"), "{reason}");
}
