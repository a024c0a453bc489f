//! Three nodes: forming, replicating, reading, handing over.

use std::time::Duration;

use hub_core::control::{Command, Reply};
use hub_core::id::{NodeId, RequestId};
use hub_core::port::{Replicator, Submitted};
use hub_raft::{JoinError, Joiner, KeeperOptions, Peers, Refusal};
use uuid::Uuid;

use crate::support::{LONG, Node, Plan, key, later, random, spawn, stop_all, three, until, voters};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_writes_and_any_node_reads_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |_| {}).await;
    for (number, node) in nodes.iter().enumerate() {
        let key = format!("key {number}");
        node.set(&key, "value").await.unwrap();
        for reader in &nodes {
            assert_eq!(reader.count(&key).await, 1, "node {} reads {key}", reader.id());
        }
    }
    assert_eq!(nodes[0].view.view().members.len(), 3);
    stop_all(nodes).await;
}

/// The leader, once all nodes know it: a node that knows none refuses a transfer at once.
async fn agreed(nodes: &[Node]) -> NodeId {
    until("one leader in the eyes of all", || async {
        let seen = [nodes[0].leader().await, nodes[1].leader().await, nodes[2].leader().await];
        seen.iter().all(|leader| *leader == seen[0]).then_some(seen[0])
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked_and_no_write_fails() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |_| {}).await;
    let toys = nodes[1].toys.clone();
    let writer = spawn(async move {
        for number in 0..300 {
            toys.propose(crate::support::set(&format!("key {number}"), "value"), later(LONG)).await.unwrap();
        }
    });
    for _ in 0..3 {
        let leader = agreed(&nodes).await;
        // From any node.
        let moved = nodes[2].toys.transfer(None, later(LONG)).await.unwrap();
        assert_ne!(moved, leader);
    }
    let to = nodes[2].id();
    if agreed(&nodes).await != to {
        assert_eq!(nodes[0].toys.transfer(Some(to), later(LONG)).await.unwrap(), to);
    }
    writer.await.unwrap();
    for number in 0..300 {
        assert_eq!(nodes[2].count(&format!("key {number}")).await, 1);
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_leaves_both_groups() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |_| {}).await;
    let gone = nodes[2].id();
    let command = Command::Remove { node: gone };
    let proposal = Submitted { request: RequestId(Uuid::nil()), command };
    let done = nodes[1].control.propose(proposal, later(LONG)).await.unwrap();
    assert_eq!(done.reply, Reply::Done);
    for node in &nodes[..2] {
        voters(node, 2).await;
        until("the node gone", || async { (!node.toys.status().knows(gone)).then_some(()) }).await;
    }
    nodes[0].set("after", "value").await.unwrap();
    assert_eq!(nodes[1].count("after").await, 1);
    // It is let in no more, whoever it asks, and learns of it when it does.
    let asker = spawn(Peers::new(&nodes[2].transport).run(move || vec![NodeId(1)]));
    let refused = tokio::time::timeout(LONG, nodes[2].transport.expelled()).await.unwrap();
    assert_eq!(refused, Refusal::Removed);
    asker.abort();
    let mut nodes = nodes;
    let plan = nodes.pop().unwrap().stop().await;
    for node in &nodes {
        let joiner = Joiner { key: key(), boot: random() };
        assert_eq!(joiner.join(&node.address(), &plan.card, LONG).await, Err(JoinError::Removed));
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_voter_is_removed_once_its_successor_votes() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = KeeperOptions { remove_dead_after: Duration::from_secs(2), ..KeeperOptions::default() };
    let plan = |name: &str| Plan { keeper, ..Plan::new(dir.path().join(name)) };
    let mut nodes = vec![Node::found(plan("a")).await];
    let peers = [nodes[0].address()];
    for name in ["b", "c"] {
        nodes.push(Node::join(plan(name), &peers).await);
    }
    voters(&nodes[0], 3).await;
    let dead = nodes.pop().unwrap();
    let gone = dead.id();
    dead.stop().await;
    nodes.push(Node::join(plan("d"), &peers).await);
    for node in &nodes {
        until("the dead removed", || async {
            let left = |status: hub_raft::GroupStatus| status.voters.len() == 3 && !status.knows(gone);
            (left(node.control.status()) && left(node.toys.status())).then_some(())
        })
        .await;
    }
    nodes[2].set("key", "value").await.unwrap();
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_watched_and_ready_after_an_entry_of_its_term() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |_| {}).await;
    let leader = nodes[0].leader().await;
    let node = nodes.iter().find(|node| node.id() == leader).unwrap();
    until("a ready leader", || async { node.toys.leadership().ready.then_some(()) }).await;
    let seen = node.toys.leadership();
    let toys = node.toys.clone();
    let change = spawn(async move { toys.leadership_changed(seen).await });
    let moved = node.toys.transfer(None, later(LONG)).await.unwrap();
    let changed = tokio::time::timeout(LONG, change).await.unwrap().unwrap();
    assert!(!changed.ready && changed != seen, "{changed:?}");
    assert!(nodes.iter().any(|node| node.id() == moved));
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_node_follows_until_there_is_a_third() {
    let dir = tempfile::tempdir().unwrap();
    let first = Node::found(Plan::new(dir.path().join("a"))).await;
    let second = Node::join(Plan::new(dir.path().join("b")), &[first.address()]).await;
    until("a learner in both", || async {
        let known = |status: hub_raft::GroupStatus| status.learners == [second.id()];
        (known(first.control.status()) && known(first.toys.status())).then_some(())
    })
    .await;
    first.set("key", "value").await.unwrap();
    assert_eq!(second.count("key").await, 1);
    // It goes on without the second: it does not vote.
    let plan = second.stop().await;
    first.set("key", "again").await.unwrap();
    let second = Node::join(plan, &[first.address()]).await;
    let seen = tokio::time::timeout(Duration::from_secs(60), second.count("key")).await.unwrap();
    assert_eq!(seen, 2);
    stop_all(vec![first, second]).await;
}
