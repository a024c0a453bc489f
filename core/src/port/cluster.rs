//! The cluster as its operators see and steer it: status, readiness, hand-over and drain.

use std::time::Instant;

use async_trait::async_trait;

use super::ProposeError;
use crate::id::NodeId;

/// One of the replicated groups of a node. There is always `control`; `messages` only where the nodes themselves keep the
/// messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Members, services and settings.
    Control,
    /// The embedded message store.
    Messages,
}

impl Group {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Control, Self::Messages];

    /// The word used in interfaces and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Messages => "messages",
        }
    }
}

/// A replicated group, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// This node leads and has applied an entry of its own term.
    pub ready: bool,
    /// Index of the last entry in this node's log.
    pub last_log_index: u64,
    /// Index up to which entries are known to be committed.
    pub committed_index: u64,
    /// Index of the last entry that this node applied.
    pub applied_index: u64,
    /// Index up to which this node's log was cut off.
    pub purged_index: u64,
    /// Index of the last snapshot, or of the last checkpoint.
    pub snapshot_index: u64,
    /// The nodes that vote, in order.
    pub voters: Vec<NodeId>,
    /// The nodes that only follow, in order.
    pub learners: Vec<NodeId>,
}

/// What a node is in the group `control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It votes.
    Voter,
    /// It follows, and becomes a voter by itself.
    Learner,
}

impl Role {
    /// The word used in interfaces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
        }
    }
}

/// A node, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// `host:port` for other nodes.
    pub raft_addr: String,
    /// Its software version.
    pub version: String,
    /// What it is in `control`.
    pub role: Role,
    /// It answered lately (this node always counts itself live).
    pub live: bool,
    /// It said that it is draining.
    pub draining: bool,
}

/// The cluster, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster's id; `None` before it is founded.
    pub cluster_id: Option<u128>,
    /// Raised by a recovery or a restore; 1 for a new cluster.
    pub generation: u64,
    /// The node that says all this.
    pub node_id: NodeId,
    /// The group `control`.
    pub control: GroupStatus,
    /// The group `messages`; `None` where a database keeps the messages.
    pub messages: Option<GroupStatus>,
    /// All nodes, by id.
    pub nodes: Vec<NodeStatus>,
}

impl ClusterStatus {
    /// The groups that there are.
    pub fn groups(&self) -> impl Iterator<Item = (Group, &GroupStatus)> {
        let messages = self.messages.as_ref().map(|status| (Group::Messages, status));
        std::iter::once((Group::Control, &self.control)).chain(messages)
    }
}

/// How one check, or a whole node, fares. Later is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckStatus {
    /// As it should be.
    #[default]
    Ok,
    /// Works, with less than usual.
    Degraded,
    /// Does not work.
    Failing,
}

impl CheckStatus {
    /// The word used in interfaces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// One named check of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A stable name: `control`, `messages`, `store`, `disk`, `clock`, `drain`, …
    pub name: &'static str,
    /// How it fares.
    pub status: CheckStatus,
    /// For people: what is the case, and what to do when it is not `Ok`.
    pub detail: String,
}

/// Whether this node may take traffic, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Every check, in the order in which they are shown. A `Failing` one takes the node out of traffic.
    pub checks: Vec<Check>,
}

impl Readiness {
    /// The worst of the checks.
    #[must_use]
    pub fn status(&self) -> CheckStatus {
        self.checks.iter().map(|check| check.status).max().unwrap_or_default()
    }

    /// May take traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status() != CheckStatus::Failing
    }
}

/// Whether a node can be stopped without the cluster losing its majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumCheck {
    /// It can.
    pub safe: bool,
    /// Why, for people: how many voters there are, live and needed.
    pub reason: String,
}

/// Why an operation on the cluster was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No node of this id belongs to the cluster.
    #[error("no such node")]
    NoNode,
    /// There is no such group.
    #[error("there is no group {}", .0.as_str())]
    NoGroup(Group),
    /// It would cost the cluster its majority, or no other node could take over.
    #[error("{0}")]
    Unsafe(String),
    /// Asked for, but not seen to happen before the deadline: it may still happen.
    #[error("not finished in time: {0}")]
    Unfinished(String),
    /// The proposal behind it failed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// What operators ask of a node about its cluster. Any node answers for the whole cluster.
#[async_trait]
pub trait ClusterControl: Send + Sync + 'static {
    /// This node's id: answered without a lock, it is asked for on every request.
    fn node_id(&self) -> NodeId;

    /// The cluster, as this node knows it.
    fn status(&self) -> ClusterStatus;

    /// Whether this node may take traffic. Fail-static counts as ready, with a `Degraded` check.
    fn readiness(&self) -> Readiness;

    /// Whether `node` can be stopped without losing the majority of any group; `None` if there is no such node.
    fn quorum_without(&self, node: NodeId) -> Option<QuorumCheck>;

    /// Hands the leadership of `group` to `to`, or to the best other voter, and waits until it moved; the new leader.
    async fn transfer(
        &self,
        group: Group,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, ClusterError>;

    /// Takes `node` out of traffic: it is marked as draining, stops claiming deliveries, hands its leaderships over
    /// and turns unready, but keeps answering. Returns when it is marked and leads no group.
    async fn drain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError>;

    /// Ends a drain: the node takes traffic and deliveries again.
    async fn undrain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError>;

    /// Removes `node` for good: it leaves all groups and is let in no more. A live one that leads hands over first.
    async fn remove(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError>;
}
