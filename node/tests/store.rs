//! The conformance suite of the message store over real Raft groups: a group of one, and three nodes that are asked through
//! one that does not lead.

#![cfg(test)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::control::{Command, Machine};
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Cursor, Filter, NewMessage, Page, Record};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Clock, Consistency, DeadLetterOutcome,
    MessageStore, Replicator, StoreError, Submitted, SweepReport,
};
use hub_raft::{
    Card, ClusterKey, ControlGroup, Group, GroupOptions, Joiner, KeeperOptions, MemoryOptions, Transport,
    TransportOptions,
};
use hub_storage::sqlite::{DiskLimit, Feed, Options, SqliteMachine, Store, StoreOptions, StorePorts};
use hub_storage::suite::{self, BACKLOG_BOUND, Case, Ids, ManualClock, Stage, TestSlots};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(90);
const CLUSTER: u128 = 5;

struct World {
    clock: Arc<ManualClock>,
    slots: Arc<TestSlots>,
}

struct Node {
    card: Card,
    transport: Transport,
    control: ControlGroup,
    messages: Group<SqliteMachine>,
    store: Store,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

#[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

fn key() -> ClusterKey {
    ClusterKey::new(b"the key of the tests")
}

async fn until<T, F: Future<Output = Option<T>>>(
    clock: &ManualClock,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = clock.instant() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(clock.instant() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn new_card(incarnation: u128) -> (Card, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let card = Card {
        node: None,
        cluster: Some(CLUSTER),
        generation: 1,
        incarnation,
        raft_addr: listener.local_addr().unwrap().to_string(),
        rest_url: "http://127.0.0.1:1".to_owned(),
        version: "0.1.0".to_owned(),
        database: false,
    };
    (card, listener)
}

impl Node {
    async fn open(world: &World, card: Card, listener: TcpListener, dir: &Path) -> Self {
        let (node, boot) = (card.node.unwrap(), card.incarnation);
        let version = "0.1.0".into();
        let options = TransportOptions { key: key(), cluster: CLUSTER, generation: 1, node, version, boot };
        let transport = options.build(listener, world.clock.clone());
        let registry = Registry::new();
        let memory = MemoryOptions { dir: dir.join("control-state") };
        let (machine, view) = memory.build::<Machine>().unwrap();
        let options = GroupOptions::new("control", dir.join("control"));
        let control = Group::open(options, machine, &transport, None, &registry).await.unwrap();
        let feed = Feed::new(node, world.slots.clone());
        let options = Options { folder: dir.join("db"), readers: 2 };
        let machine = options.open(feed.clone()).await.unwrap();
        let reader = machine.reader();
        let options = GroupOptions::new("messages", dir.join("messages"));
        let messages =
            Group::open(options, machine, &transport, Some(feed.clone()), &registry).await.unwrap();
        let mut options = StoreOptions::new(dir.to_owned());
        options.max_backlog = BACKLOG_BOUND;
        options.disk_limit = DiskLimit { bytes: 0, percent: 0 };
        let ids = Arc::new(Ids::default());
        let clock = world.clock.clone();
        let ports = StorePorts { replicator: Arc::new(messages.clone()), reader, feed, clock, ids };
        let (service, store) = options.build(ports);
        let stop = CancellationToken::new();
        let keeper = KeeperOptions::default().build(&transport, &control, Some(&messages), &view);
        let tasks = vec![spawn(service.run(stop.clone())), spawn(keeper.run())];
        Self { card, transport, control, messages, store, tasks, stop }
    }

    async fn found(world: &World, dir: &Path) -> Self {
        let (mut card, listener) = new_card(1).await;
        card.node = Some(NodeId(1));
        let node = Self::open(world, card, listener, dir).await;
        let address = node.card.raft_addr.as_str();
        node.control.initialize(address).await.unwrap();
        node.messages.initialize(address).await.unwrap();
        let card = &node.card;
        let admit = Command::Admit {
            node: card.node,
            incarnation: card.incarnation,
            raft_addr: card.raft_addr.as_str().into(),
            rest_url: card.rest_url.as_str().into(),
            version: card.version.as_str().into(),
        };
        for command in [Command::Found { cluster: CLUSTER }, admit] {
            let proposal = Submitted { request: RequestId(Uuid::nil()), command };
            node.control.propose(proposal, world.clock.instant() + LONG).await.unwrap();
        }
        node
    }

    async fn join(world: &World, dir: &Path, incarnation: u128, peer: &str) -> Self {
        let (mut card, listener) = new_card(incarnation).await;
        let joiner = Joiner { key: key(), boot: incarnation };
        let ask = || async { joiner.join(peer, &card, Duration::from_secs(10)).await.ok() };
        let joined = until(&world.clock, "joining", ask).await;
        card.node = Some(joined.node);
        Self::open(world, card, listener, dir).await
    }

    async fn shutdown(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.transport.shutdown().await;
        self.messages.shutdown().await;
        self.control.shutdown().await;
    }
}

/// What can be asked of any node goes through one that does not lead; lists and counters, which may lag there, do not.
struct Through {
    other: Store,
    leader: Store,
}

#[async_trait]
impl MessageStore for Through {
    async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        deadline: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError> {
        self.other.accept(messages, mode, deadline).await
    }

    async fn get(
        &self,
        id: MessageId,
        how: Consistency,
        deadline: Instant,
    ) -> Result<Option<Record>, StoreError> {
        self.other.get(id, how, deadline).await
    }

    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: u32) -> Result<Page, StoreError> {
        self.leader.list(filter, after, limit).await
    }

    async fn cancel(&self, id: MessageId, deadline: Instant) -> Result<CancelOutcome, StoreError> {
        self.other.cancel(id, deadline).await
    }

    async fn replay(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        self.other.replay(id, deadline).await
    }

    async fn discard(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError> {
        self.other.discard(id, deadline).await
    }

    async fn backlog(&self, target: &ServiceName) -> Result<Backlog, StoreError> {
        self.leader.backlog(target).await
    }

    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError> {
        self.leader.backlogs().await
    }

    async fn sweep(
        &self,
        registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        retention: Duration,
        limit: u32,
        deadline: Instant,
    ) -> Result<SweepReport, StoreError> {
        self.leader.sweep(registered, retention, limit, deadline).await
    }
}

/// Runs a case on a fresh cluster; `None` when another node came to lead meanwhile, so that nothing is said about the store.
async fn once(case: &Case, count: usize) -> Option<suite::Verdict> {
    let folder = tempfile::tempdir().unwrap();
    let world = World { clock: Arc::default(), slots: Arc::default() };
    let mut nodes = vec![Node::found(&world, &folder.path().join("1")).await];
    let peer = nodes[0].card.raft_addr.clone();
    for number in 1..count {
        let dir = folder.path().join((number + 1).to_string());
        nodes.push(Node::join(&world, &dir, number as u128 + 1, &peer).await);
    }
    for node in &nodes {
        let all = || async { (node.messages.status().voters.len() == count).then_some(()) };
        until(&world.clock, "all voting", all).await;
    }
    let ready = || async { nodes.iter().position(|node| node.messages.leadership().ready) };
    let leader = until(&world.clock, "a leader", ready).await;
    let before = nodes[leader].messages.leadership();
    let other = (leader + 1) % count;
    let through = Through { other: nodes[other].store.clone(), leader: nodes[leader].store.clone() };
    let queue = Arc::new(nodes[leader].store.clone());
    let stage = Stage {
        store: Arc::new(through),
        queue,
        clock: world.clock.clone(),
        slots: world.slots.clone(),
        moved: None,
        has_broker: false,
    };
    let verdict = (case.run)(&stage).await;
    let moved = nodes[leader].messages.leadership() != before;
    for node in nodes {
        node.shutdown().await;
    }
    (!moved).then_some(verdict)
}

async fn every_case(count: usize) {
    for case in suite::cases() {
        let mut verdict = None;
        for _ in 0..5 {
            verdict = once(&case, count).await;
            if verdict.is_some() {
                break;
            }
        }
        match verdict {
            Some(Ok(())) => {}
            Some(Err(failure)) => panic!("{}: {failure}", case.name),
            None => panic!("{}: no leader lasted", case.name),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_passes_every_case() {
    every_case(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_pass_every_case() {
    every_case(3).await;
}
