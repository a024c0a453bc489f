//! Nodes that stop, come back, lag behind; strangers.

use std::time::Duration;

use hub_core::id::NodeId;
use hub_core::port::{ProposeError, Replicator};
use hub_raft::{Card, ClusterKey, JoinError, Joiner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CLUSTER, LONG, Node, key, later, random, set, spawn, stop_all, three, until};

fn take(nodes: &mut Vec<Node>, id: NodeId) -> Node {
    let at = nodes.iter().position(|node| node.id() == id).unwrap();
    nodes.remove(at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_or_done_twice_when_leaders_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path(), |_| {}).await;
    for round in 0..2 {
        let leader = nodes[0].leader().await;
        let writers: Vec<_> = nodes
            .iter()
            .filter(|node| node.id() != leader)
            .flat_map(|node| (0..20).map(|writer| (node.id(), node.toys.clone(), writer)).collect::<Vec<_>>())
            .map(|(node, toys, writer)| {
                spawn(async move {
                    for number in 0..20 {
                        let key = format!("{round} {node} {writer} {number}");
                        let done = toys.propose(set(&key, "value"), later(LONG / 2)).await;
                        assert!(done.is_ok(), "node {node}: {done:?}: {:?}", toys.status());
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let plan = take(&mut nodes, leader).stop().await;
        for writer in writers {
            writer.await.unwrap();
        }
        let peers: Vec<String> = nodes.iter().map(Node::address).collect();
        nodes.push(Node::join(plan, &peers).await);
        for node in &nodes {
            node.toys.read_barrier(later(LONG)).await.unwrap();
            let keys = node.toy.view().keys;
            assert_eq!(keys.len(), (round + 1) * 800);
            assert!(keys.values().all(|(_, count)| *count == 1), "a repeat was taken for a new request");
        }
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up_by_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path(), |_| {}).await;
    let leader = nodes[0].leader().await;
    let away = nodes.iter().map(Node::id).find(|id| *id != leader).unwrap();
    let plan = take(&mut nodes, away).stop().await;
    for number in 0..200 {
        nodes[0].set(&format!("key {number}"), "value").await.unwrap();
    }
    let peers: Vec<String> = nodes.iter().map(Node::address).collect();
    let back = Node::join(plan, &peers).await;
    assert_eq!(back.count("key 199").await, 1);
    assert_eq!(back.counter("hub_raft_snapshots_installed_total"), 0.0);
    nodes.push(back);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_catches_up_by_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path(), |options| {
        options.checkpoint_every = 50;
        options.keep_entries = 10;
    })
    .await;
    let leader = nodes[0].leader().await;
    let away = nodes.iter().map(Node::id).find(|id| *id != leader).unwrap();
    let away = take(&mut nodes, away);
    let had = away.toys.status().last_log_index;
    let plan = away.stop().await;
    let large = "x".repeat(4_000);
    for number in 0..400 {
        nodes[0].set(&format!("key {number}"), &large).await.unwrap();
    }
    for node in &nodes {
        until("the log purged past it", || async { (node.toys.status().purged_index > had).then_some(()) })
            .await;
    }
    let peers: Vec<String> = nodes.iter().map(Node::address).collect();
    let back = Node::join(plan, &peers).await;
    assert_eq!(back.count("key 399").await, 1);
    // Counted when the group has taken note, a moment after the state is there.
    until("an installed copy counted", || async {
        (back.counter("hub_raft_snapshots_installed_total") >= 1.0).then_some(())
    })
    .await;
    assert_eq!(back.toy.view(), nodes[0].toy.view());
    // What was installed is there after a restart, too.
    let plan = back.stop().await;
    let back = Node::join(plan, &peers).await;
    assert_eq!(back.count("key 0").await, 1);
    nodes.push(back);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_answer_is_that_nothing_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path(), |options| options.max_waiting = 1).await;
    let last = nodes.pop().unwrap();
    stop_all(nodes).await;
    // A moment ago something may still have been on its way to a leader; now there is none.
    until("no leader", || async { last.toys.leadership().leader.is_none().then_some(()) }).await;
    let short = || later(Duration::from_millis(500));
    assert_eq!(last.toys.propose(set("never", "value"), short()).await, Err(ProposeError::NoLeader));
    assert!(last.toys.read_barrier(short()).await.is_err());
    // While one waits there is no place for another.
    let first = last.toys.propose(set("never", "value"), short());
    let second = last.toys.propose(set("never", "value"), short());
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first, second), (Err(ProposeError::NoLeader), Err(ProposeError::Overloaded)));
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_left_of_a_lost_majority_knows_no_leader() {
    for leads in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = three(dir.path(), |_| {}).await;
        let leader = nodes[0].leader().await;
        let left = nodes.iter().map(Node::id).find(|id| (*id == leader) == leads).unwrap();
        let left = take(&mut nodes, left);
        stop_all(nodes).await;
        until("no leader", || async { left.toys.leadership().leader.is_none().then_some(()) }).await;
        assert!(!left.toys.leadership().ready);
        // Nothing was sent anywhere, and that is said.
        let refused = left.toys.propose(set("never", "value"), later(Duration::from_millis(500))).await;
        assert_eq!(refused, Err(ProposeError::NoLeader), "led before: {leads}");
        left.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_leader_stays_known() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three(dir.path(), |_| {}).await;
    let changes = || nodes.iter().map(|node| node.counter("hub_raft_leader_changes_total")).sum::<f64>();
    until("quiet", || async {
        let before = changes();
        // Longer than a silent leader is believed in. A busy machine may still cause an election.
        tokio::time::sleep(Duration::from_secs(4)).await;
        (changes() - before == 0.0).then_some(())
    })
    .await;
    stop_all(nodes).await;
}

fn card(node: Option<NodeId>, cluster: Option<u128>) -> Card {
    Card {
        node,
        cluster,
        generation: u64::from(cluster.is_some()),
        incarnation: random(),
        raft_addr: "127.0.0.1:1".to_owned(),
        rest_url: "http://127.0.0.1:1".to_owned(),
        version: "0.1.0".to_owned(),
        database: false,
    }
}

/// Its own return is what the others wait for: it must not be kept waiting for the answer of its former self.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_comes_back_to_a_lost_majority_is_told_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three(dir.path(), |_| {}).await;
    nodes.remove(2).stop().await;
    let led = until("a leader in the eyes of both", || async {
        let seen = [&nodes[0], &nodes[1]].map(|node| node.control.leadership().leader);
        seen[0].filter(|leader| seen[1] == Some(*leader) && nodes.iter().any(|node| node.id() == *leader))
    })
    .await;
    let leader = nodes.remove(nodes.iter().position(|node| node.id() == led).unwrap());
    let last = nodes.remove(0);
    let plan = leader.stop().await;
    let joiner = Joiner { key: key(), boot: random() };
    let answer = joiner.join(&last.address(), &plan.card, LONG).await;
    let Err(JoinError::Later(why)) = &answer else { panic!("{answer:?}") };
    assert!(why.starts_with("no leader"), "{why}");
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::found(crate::support::Plan::new(dir.path().join("a"))).await;
    let address = node.address();
    let ask =
        async |key: ClusterKey, card: Card| Joiner { key, boot: random() }.join(&address, &card, LONG).await;
    assert_eq!(ask(ClusterKey::new(b"another key"), card(None, None)).await, Err(JoinError::WrongKey));
    assert_eq!(ask(key(), card(None, Some(CLUSTER + 1))).await, Err(JoinError::OtherCluster));
    assert_eq!(ask(key(), card(Some(node.id()), Some(CLUSTER))).await, Err(JoinError::IdentityTaken));
    assert_eq!(ask(key(), card(Some(NodeId(99)), Some(CLUSTER))).await, Err(JoinError::Removed));
    let old = Card { generation: 0, ..card(Some(NodeId(99)), Some(CLUSTER)) };
    assert_eq!(ask(key(), old).await, Err(JoinError::OldGeneration));
    // Whoever does not even begin properly gets nothing, and the connection ends.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0; 200]).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(ended.is_err() || answer.is_empty(), "{answer:?}");
    // One that says nothing at all is not kept either.
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let ended = tokio::time::timeout(LONG, silent.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert_eq!(node.view.view().members.len(), 1);
    node.stop().await;
}
