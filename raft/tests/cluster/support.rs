//! Nodes of a test's cluster: a control group with the real control state, and a group of toys beside it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hub_core::control::{Command, Machine};
use hub_core::id::{NodeId, RequestId};
use hub_core::port::{Clock, Committed, ProposeError, Replicator, Submitted};
use hub_core::time::Timestamp;
use hub_raft::{
    Card, ClusterKey, ControlGroup, Group, GroupOptions, JoinError, Joined, Joiner, KeeperOptions,
    MemoryOptions, MemoryState, Transport, TransportOptions, View,
};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::toy::{Before, Set, Toy};

/// Generous: these tests run on loaded machines.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const CLUSTER: u128 = 77;
const KEY: &[u8] = b"the key of the tests";

#[derive(Debug)]
struct Real;

#[expect(clippy::disallowed_methods, reason = "the tests run on real clocks")]
impl Clock for Real {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.plus(since)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn since_boot(&self) -> Duration {
        self.wall().since(Timestamp::EPOCH)
    }
}

pub(crate) fn later(after: Duration) -> Instant {
    Real.instant() + after
}

pub(crate) fn key() -> ClusterKey {
    ClusterKey::new(KEY)
}

pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    u128::from_be_bytes(bytes)
}

#[expect(clippy::disallowed_methods, reason = "a test has no lifecycle")]
pub(crate) fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// Asks again until there is an answer.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = later(LONG);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Real.instant() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn set(key: &str, value: &str) -> Submitted<Set> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let request = RequestId(Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into()));
    Submitted { request, command: Set::Key(key.to_owned(), value.to_owned()) }
}

/// How a node is started.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) card: Card,
    pub(crate) toys: fn(&mut GroupOptions),
    pub(crate) keeper: KeeperOptions,
}

impl Plan {
    pub(crate) fn new(dir: PathBuf) -> Self {
        let card = Card {
            node: None,
            cluster: None,
            generation: 1,
            incarnation: random(),
            raft_addr: String::new(),
            rest_url: "http://127.0.0.1:1".to_owned(),
            version: "0.1.0".to_owned(),
            database: false,
        };
        Self { dir, card, toys: |_| {}, keeper: KeeperOptions::default() }
    }
}

pub(crate) struct Node {
    pub(crate) plan: Plan,
    pub(crate) transport: Transport,
    pub(crate) control: ControlGroup,
    pub(crate) toys: Group<MemoryState<Toy>>,
    pub(crate) view: View<Machine>,
    pub(crate) toy: View<Toy>,
    pub(crate) registry: Registry,
    keeper: JoinHandle<()>,
}

async fn listen(card: &mut Card) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    card.raft_addr = listener.local_addr().unwrap().to_string();
    listener
}

async fn let_in(joiner: &Joiner, card: &Card, peers: &[String]) -> NodeId {
    let joined = until("joining", || ask_to_join(joiner, card, peers));
    joined.await.node
}

async fn ask_to_join(joiner: &Joiner, card: &Card, peers: &[String]) -> Option<Joined> {
    for peer in peers {
        match joiner.join(peer, card, Duration::from_secs(10)).await {
            Ok(joined) => return Some(joined),
            // Right after a stop the others may still see the old connections.
            Err(JoinError::Later(_) | JoinError::IdentityTaken) => {}
            Err(error) => panic!("not let in: {error}"),
        }
    }
    None
}

fn admit(card: &Card) -> Submitted<Command> {
    let command = Command::Admit {
        node: card.node,
        incarnation: card.incarnation,
        raft_addr: card.raft_addr.as_str().into(),
        rest_url: card.rest_url.as_str().into(),
        version: card.version.as_str().into(),
    };
    Submitted { request: RequestId(Uuid::nil()), command }
}

impl Node {
    /// The first node of a cluster.
    pub(crate) async fn found(mut plan: Plan) -> Self {
        let listener = listen(&mut plan.card).await;
        (plan.card.node, plan.card.cluster) = (Some(NodeId(1)), Some(CLUSTER));
        let node = Self::open(plan, listener, random()).await;
        node.control.initialize(&node.plan.card.raft_addr).await.unwrap();
        node.toys.initialize(&node.plan.card.raft_addr).await.unwrap();
        let found =
            Submitted { request: RequestId(Uuid::nil()), command: Command::Found { cluster: CLUSTER } };
        for proposal in [found, admit(&node.plan.card)] {
            node.control.propose(proposal, later(LONG)).await.unwrap();
        }
        node
    }

    /// A node that joins, or that comes back, perhaps at another address.
    pub(crate) async fn join(mut plan: Plan, peers: &[String]) -> Self {
        let listener = listen(&mut plan.card).await;
        let joiner = Joiner { key: key(), boot: random() };
        if plan.card.node.is_none() {
            plan.card.node = Some(let_in(&joiner, &plan.card, peers).await);
            plan.card.cluster = Some(CLUSTER);
            return Self::open(plan, listener, joiner.boot).await;
        }
        let node = Self::open(plan, listener, joiner.boot).await;
        until("being known again", || async {
            // It may be elected before anybody knows its address; then it is the one to ask.
            if node.control.leadership().leader == Some(node.id()) {
                return node.control.propose(admit(&node.plan.card), later(LONG)).await.ok().map(drop);
            }
            ask_to_join(&joiner, &node.plan.card, peers).await.map(drop)
        })
        .await;
        node
    }

    /// A lone node that comes back.
    pub(crate) async fn reopen(mut plan: Plan) -> Self {
        let listener = listen(&mut plan.card).await;
        Self::open(plan, listener, random()).await
    }

    async fn open(plan: Plan, listener: TcpListener, boot: u128) -> Self {
        let (node, version) = (plan.card.node.unwrap(), "0.1.0".into());
        let options = TransportOptions {
            key: key(),
            cluster: CLUSTER,
            generation: plan.card.generation,
            node,
            version,
            boot,
        };
        let transport = options.build(listener, Arc::new(Real));
        let registry = Registry::new();
        let memory = |name: &str| MemoryOptions { dir: plan.dir.join(name).join("state") };
        let (machine, view) = memory("control").build::<Machine>().unwrap();
        let options = GroupOptions::new("control", plan.dir.join("control"));
        let control = Group::open(options, machine, &transport, None, &registry).await.unwrap();
        let (machine, toy) = memory("toys").build::<Toy>().unwrap();
        let mut options = GroupOptions::new("toys", plan.dir.join("toys"));
        (plan.toys)(&mut options);
        let toys = Group::open(options, machine, &transport, None, &registry).await.unwrap();
        let keeper = plan.keeper.build(&transport, &control, Some(&toys), &view);
        let keeper = spawn(keeper.run());
        Self { plan, transport, control, toys, view, toy, registry, keeper }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.transport.node()
    }

    pub(crate) fn address(&self) -> String {
        self.plan.card.raft_addr.clone()
    }

    /// Ends without a word to the others, as a kill would; gives what it takes to start again.
    pub(crate) async fn stop(self) -> Plan {
        self.keeper.abort();
        drop(self.keeper.await);
        self.transport.shutdown().await;
        self.toys.shutdown().await;
        self.control.shutdown().await;
        self.plan
    }

    pub(crate) async fn set(&self, key: &str, value: &str) -> Result<Committed<Before>, ProposeError> {
        self.toys.propose(set(key, value), later(LONG)).await
    }

    /// How often the key was set, read after a barrier.
    pub(crate) async fn count(&self, key: &str) -> u64 {
        self.toys.read_barrier(later(LONG)).await.unwrap();
        self.toy.view().keys.get(key).map_or(0, |(_, count)| *count)
    }

    pub(crate) async fn leader(&self) -> NodeId {
        until("a leader", || async { self.toys.leadership().leader }).await
    }

    /// The value of a counter of the toys' group.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let ours = family
            .get_metric()
            .iter()
            .find(|one| one.get_label().iter().any(|label| label.value() == "toys"));
        ours.unwrap().get_counter().get_value()
    }
}

/// Three nodes that all vote in both groups.
pub(crate) async fn three(base: &Path, toys: fn(&mut GroupOptions)) -> Vec<Node> {
    let plan = |name: &str| Plan { toys, ..Plan::new(base.join(name)) };
    let first = Node::found(plan("a")).await;
    let peers = [first.address()];
    let second = Node::join(plan("b"), &peers).await;
    // Any node lets others in, not only the leader.
    let peers = [second.address(), first.address()];
    let third = Node::join(plan("c"), &peers).await;
    let nodes = vec![first, second, third];
    for node in &nodes {
        voters(node, 3).await;
    }
    nodes
}

pub(crate) async fn voters(node: &Node, count: usize) {
    until("all voting", || async {
        (node.control.status().voters.len() == count && node.toys.status().voters.len() == count)
            .then_some(())
    })
    .await;
}

pub(crate) async fn stop_all(nodes: Vec<Node>) {
    for node in nodes {
        node.stop().await;
    }
}
