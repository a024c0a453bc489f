//! The transport of one node: its listener, its address book, its connections, and the groups that are reached through it.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hub_core::id::NodeId;
use hub_core::port::Clock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Server};

use super::dial::{self, Lane};
use super::handshake::{Hello, Purpose, Refusal};
use super::incoming::{Peer, accept};
use super::key::ClusterKey;
use super::server::{Admission, Endpoint, Service};
use crate::proto::hub_server::HubServer;
use crate::proto::raft_server::RaftServer;
use crate::spawn::Tasks;

/// Who this node is to others.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// The key that all nodes share.
    pub key: ClusterKey,
    /// The cluster's id.
    pub cluster: u128,
    /// How often the cluster was rebuilt: 1, and one more for each recovery. Nodes of an earlier one are kept out.
    pub generation: u64,
    /// This node's id.
    pub node: NodeId,
    /// This node's software version, for status.
    pub version: Arc<str>,
    /// Random, made at every start of the process: tells two processes with one identity apart.
    pub boot: u128,
}

/// What the parts of the transport share.
pub(crate) struct Inner {
    pub(super) key: ClusterKey,
    pub(crate) cluster: u128,
    pub(crate) generation: u64,
    pub(crate) node: NodeId,
    pub(crate) version: Arc<str>,
    pub(crate) boot: u128,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    book: RwLock<HashMap<NodeId, Arc<str>>>,
    gate: RwLock<Gate>,
    present: Mutex<HashMap<NodeId, Present>>,
    channels: Mutex<HashMap<(NodeId, Lane), Channel>>,
    groups: RwLock<HashMap<Arc<str>, Arc<dyn Endpoint>>>,
    pub(super) admission: OnceLock<Arc<dyn Admission>>,
    refusals: Mutex<HashMap<NodeId, Refusal>>,
    expelled: watch::Sender<Option<Refusal>>,
}

/// Who belongs to the cluster, as this node knows. Ids only rise and none is given twice: one that was given and is not
/// known any more belongs to a node that was removed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gate {
    last: NodeId,
    known: BTreeSet<NodeId>,
}

impl Gate {
    fn is_removed(&self, node: NodeId) -> bool {
        node <= self.last && !self.known.contains(&node)
    }
}

/// Which process holds an identity now, by how many connections, and what ends them.
struct Present {
    boot: u128,
    connections: usize,
    ended: CancellationToken,
}

/// The transport of one node. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    pub(crate) inner: Arc<Inner>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TransportOptions {
    /// Serves on `listener` from now on. Groups answer as soon as they are opened.
    #[must_use]
    pub fn build(self, listener: TcpListener, clock: Arc<dyn Clock>) -> Transport {
        let inner = Arc::new(Inner {
            key: self.key,
            cluster: self.cluster,
            generation: self.generation,
            node: self.node,
            version: self.version,
            boot: self.boot,
            clock,
            tasks: Tasks::new(),
            book: RwLock::default(),
            gate: RwLock::default(),
            present: Mutex::default(),
            channels: Mutex::default(),
            groups: RwLock::default(),
            admission: OnceLock::new(),
            refusals: Mutex::default(),
            expelled: watch::Sender::new(None),
        });
        serve(&inner, listener);
        Transport { inner }
    }
}

fn serve(inner: &Arc<Inner>, listener: TcpListener) {
    let (proven, incoming) = mpsc::channel(16);
    inner.tasks.spawn(accept(Arc::clone(inner), listener, proven));
    let service = Service { transport: Arc::clone(inner) };
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(4_096)
        // A node that was frozen finds many calls that their callers gave up.
        .http2_max_pending_accept_reset_streams(Some(4_096))
        .add_service(RaftServer::new(service.clone()).max_decoding_message_size(super::MAX_MESSAGE))
        .add_service(HubServer::new(service).max_decoding_message_size(super::MAX_MESSAGE));
    inner.tasks.spawn(async move {
        if let Err(error) = server.serve_with_incoming(ReceiverStream::new(incoming)).await {
            tracing::error!(%error, "server for other nodes ended");
        }
    });
}

impl Inner {
    /// Lets a caller that has the key in, or not, and counts it. What is given ends its connection.
    pub(super) fn enter(&self, hello: &Hello) -> Result<WaitForCancellationFutureOwned, Refusal> {
        if self.cluster == 0 && hello.cluster != 0 {
            return Err(Refusal::NotReady);
        }
        if hello.to != NodeId(0) && hello.to != self.node {
            return Err(Refusal::WrongNode);
        }
        let stranger = hello.cluster == 0 && hello.purpose == Purpose::Joiner;
        if hello.cluster != self.cluster && !stranger {
            return Err(Refusal::OtherCluster);
        }
        if !stranger {
            self.check_generation(hello.generation)?;
        }
        if hello.from != NodeId(0) && hello.from == self.node && hello.boot != self.boot {
            return Err(Refusal::IdentityTaken);
        }
        if hello.from == NodeId(0) {
            let joins = hello.purpose == Purpose::Joiner;
            return if joins { Ok(self.tasks.ended()) } else { Err(Refusal::Protocol) };
        }
        // Counted first: whoever is removed right now is found among those that are present.
        let mut all = locked(&self.present);
        if self.gate.read().unwrap_or_else(PoisonError::into_inner).is_removed(hello.from) {
            return Err(Refusal::Removed);
        }
        let fresh = || Present { boot: hello.boot, connections: 0, ended: self.tasks.child() };
        let present = all.entry(hello.from).or_insert_with(fresh);
        if present.boot != hello.boot {
            return Err(Refusal::IdentityTaken);
        }
        present.connections += 1;
        Ok(present.ended.clone().cancelled_owned())
    }

    fn check_generation(&self, theirs: u64) -> Result<(), Refusal> {
        match theirs.cmp(&self.generation) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(Refusal::OldGeneration),
            Ordering::Greater => {
                self.expel(Refusal::OldGeneration);
                Err(Refusal::NewGeneration)
            }
        }
    }

    /// The cluster goes on without this node.
    fn expel(&self, refusal: Refusal) {
        self.expelled.send_if_modified(|known| known.is_none() && known.replace(refusal).is_none());
    }

    /// Who belongs to the cluster from now on, and the highest id that was ever given. Connections of others end.
    pub(crate) fn admit_only(&self, last: NodeId, known: BTreeSet<NodeId>) {
        let gate = Gate { last, known };
        let present = locked(&self.present);
        if *self.gate.read().unwrap_or_else(PoisonError::into_inner) == gate {
            return;
        }
        if gate.is_removed(self.node) {
            self.expel(Refusal::Removed);
        }
        let removed = present.iter().filter(|(node, _)| gate.is_removed(**node));
        removed.for_each(|(_, present)| present.ended.cancel());
        locked(&self.channels).retain(|(to, _), _| !gate.is_removed(*to));
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = gate;
    }

    /// A connection that was let in has ended.
    pub(super) fn left(&self, peer: &Peer) {
        if peer.node == NodeId(0) {
            return;
        }
        let mut present = locked(&self.present);
        if let Some(found) = present.get_mut(&peer.node) {
            found.connections = found.connections.saturating_sub(1);
            if found.connections == 0 {
                present.remove(&peer.node);
            }
        }
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<Arc<str>> {
        self.book.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// An address from the membership: used unless a newer one is known.
    pub(crate) fn hint(&self, node: NodeId, address: &str) {
        if address.is_empty() {
            return;
        }
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        book.entry(node).or_insert_with(|| address.into());
    }

    /// A connection to `node` for one kind of traffic. It is opened when it is first used, and again when it breaks.
    pub(crate) fn channel(self: &Arc<Self>, node: NodeId, lane: Lane) -> Channel {
        let mut channels = locked(&self.channels);
        channels.entry((node, lane)).or_insert_with(|| dial::channel(Arc::downgrade(self), node)).clone()
    }

    /// Who lets nodes join from now on. Only once.
    pub(crate) fn admit_by(&self, admission: Arc<dyn Admission>) -> Result<(), Arc<dyn Admission>> {
        self.admission.set(admission)
    }

    pub(crate) fn group(&self, name: &str) -> Option<Arc<dyn Endpoint>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn groups(&self) -> Vec<Arc<dyn Endpoint>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = groups.iter().collect();
        named.sort_by_key(|(name, _)| Arc::clone(name));
        named.into_iter().map(|(_, group)| Arc::clone(group)).collect()
    }

    pub(crate) fn register(&self, name: &Arc<str>, endpoint: Arc<dyn Endpoint>) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(name), endpoint);
    }

    pub(crate) fn unregister(&self, name: &str) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Says once, not at every attempt, that a node refuses this one.
    pub(super) fn refused(&self, node: NodeId, refusal: Option<Refusal>) {
        if let Some(refusal) = refusal.filter(|refusal| refusal.is_final()) {
            self.expel(refusal);
        }
        let mut refusals = locked(&self.refusals);
        let changed = match refusal {
            Some(refusal) => refusals.insert(node, refusal) != Some(refusal),
            None => refusals.remove(&node).is_some(),
        };
        match refusal {
            Some(refusal) if changed => tracing::error!(%node, %refusal, "node refuses this one"),
            None if changed => tracing::info!(%node, "node takes this one again"),
            _ => {}
        }
    }
}

impl Transport {
    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.inner.cluster
    }

    /// The newest address of a node. Connections that break are opened to it.
    pub fn set_address(&self, node: NodeId, address: &str) {
        let mut book = self.inner.book.write().unwrap_or_else(PoisonError::into_inner);
        if book.get(&node).is_some_and(|known| **known == *address) {
            return;
        }
        book.insert(node, address.into());
        drop(book);
        // The old connections lead to where the node was.
        locked(&self.inner.channels).retain(|(to, _), _| *to != node);
    }

    /// How often the cluster was rebuilt.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// Ends when the cluster goes on without this node: it was removed, or is from before a recovery.
    pub async fn expelled(&self) -> Refusal {
        let mut expelled = self.inner.expelled.subscribe();
        let refusal = expelled.wait_for(Option::is_some).await.ok().and_then(|refusal| *refusal);
        match refusal {
            Some(refusal) => refusal,
            None => std::future::pending().await,
        }
    }

    /// Why a node last refused this one, if it does.
    #[must_use]
    pub fn refusal_of(&self, node: NodeId) -> Option<Refusal> {
        locked(&self.inner.refusals).get(&node).copied()
    }

    /// Stops serving and closes all connections.
    pub async fn shutdown(&self) {
        self.inner.tasks.stop().await;
        locked(&self.inner.channels).clear();
    }
}
