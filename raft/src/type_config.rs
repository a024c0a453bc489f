//! The types that openraft is instantiated with, and short names for what follows from them.

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::raft::responder::Responder;

/// A log entry's payload, as `hub_core::codec::encode_batch` made it. The consensus layer never looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBytes(pub Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The replies to the commands of one entry, in order, each encoded.
pub(crate) type Replies = Vec<Bytes>;

/// How a node is reached: what the membership says. A newer address, if one is known, is in the address book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddr {
    /// `host:port` of its node-to-node listener.
    pub addr: String,
}

/// Gets the outcome of a write as soon as it is known, on the task that knows it. Dropped without a call when the
/// consensus layer stops: whoever waits behind it then learns that the outcome is unknown.
pub struct OnComplete<T>(Box<dyn FnOnce(T) + Send>);

impl<T> OnComplete<T> {
    /// `call` must not block.
    pub fn new(call: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(call))
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for OnComplete<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// One configuration for every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = EntryBytes;
    type R = Replies;
    type NodeId = u64;
    type Node = NodeAddr;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<EntryBytes, u64, NodeAddr>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type Responder<T>
        = OnComplete<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type C = TypeConfig;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<C>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<C>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<C>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<C>;
pub(crate) type Payload = openraft::type_config::alias::PayloadOf<C>;
pub(crate) type Membership = openraft::Membership<u64, NodeAddr>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<C>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<C>;
pub(crate) type Metrics = openraft::RaftMetrics<C>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: node }, index)
}
