//! The cluster as it is shown.

use hub_core::port::{ClusterStatus, GroupStatus, NodeStatus};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The cluster, as one node knows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterView {
    /// The cluster's id; null before it is founded.
    #[schema(value_type = Option<String>, format = "uuid", required = true)]
    pub cluster_id: Option<Uuid>,
    /// Raised by a recovery or a restore.
    pub generation: u64,
    /// The node that says all this.
    pub node_id: u64,
    /// The replicated groups.
    pub groups: GroupsView,
    /// All nodes.
    pub nodes: Vec<NodeView>,
}

/// The replicated groups.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupsView {
    /// Members, services and settings.
    pub control: GroupView,
    /// The embedded message store; absent where a database keeps the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<GroupView>,
}

/// A replicated group, as one node knows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupView {
    /// Who leads; null if unknown.
    #[schema(required = true)]
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The node that says this leads, and is up to date.
    pub ready: bool,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Up to where entries are known to be committed.
    pub committed_index: u64,
    /// Last entry it applied.
    pub applied_index: u64,
    /// Up to where its log was cut off.
    pub purged_index: u64,
    /// Last snapshot or checkpoint.
    pub snapshot_index: u64,
    /// The nodes that vote.
    pub voters: Vec<u64>,
    /// The nodes that only follow.
    pub learners: Vec<u64>,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeView {
    /// Its id.
    pub id: u64,
    /// Base URL of its interface.
    pub rest_url: String,
    /// `host:port` for other nodes.
    pub raft_addr: String,
    /// Its software version.
    pub version: String,
    /// `voter` or `learner`.
    #[schema(value_type = String, example = "voter")]
    pub role: &'static str,
    /// It answered lately.
    pub live: bool,
    /// It is draining.
    pub draining: bool,
}

impl From<ClusterStatus> for ClusterView {
    fn from(status: ClusterStatus) -> Self {
        Self {
            cluster_id: status.cluster_id.map(Uuid::from_u128),
            generation: status.generation,
            node_id: status.node_id.0,
            groups: GroupsView {
                control: status.control.into(),
                messages: status.messages.map(GroupView::from),
            },
            nodes: status.nodes.into_iter().map(NodeView::from).collect(),
        }
    }
}

impl From<GroupStatus> for GroupView {
    fn from(group: GroupStatus) -> Self {
        Self {
            leader: group.leader.map(|node| node.0),
            term: group.term,
            ready: group.ready,
            last_log_index: group.last_log_index,
            committed_index: group.committed_index,
            applied_index: group.applied_index,
            purged_index: group.purged_index,
            snapshot_index: group.snapshot_index,
            voters: group.voters.into_iter().map(|node| node.0).collect(),
            learners: group.learners.into_iter().map(|node| node.0).collect(),
        }
    }
}

impl From<NodeStatus> for NodeView {
    fn from(node: NodeStatus) -> Self {
        Self {
            id: node.id.0,
            rest_url: node.rest_url,
            raft_addr: node.raft_addr,
            version: node.version,
            role: node.role.as_str(),
            live: node.live,
            draining: node.draining,
        }
    }
}

/// Whether a node can be stopped.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuorumView {
    /// It can: the cluster keeps its majority.
    pub safe: bool,
    /// Why.
    pub reason: String,
}

/// A node that drains, or no longer does.
#[derive(Debug, Serialize, ToSchema)]
pub struct DrainView {
    /// The node.
    pub node_id: u64,
    /// It drains.
    pub draining: bool,
}

/// A leadership that was handed over.
#[derive(Debug, Serialize, ToSchema)]
pub struct TransferView {
    /// The group.
    #[schema(value_type = String, example = "control")]
    pub group: &'static str,
    /// Its leader now.
    pub leader: u64,
}
