//! A node that does not belong to the cluster yet: it asks what is at an address, and to be let in.

use std::time::Duration;

use bytes::Bytes;
use hub_core::id::NodeId;
use tonic::Status;

use crate::network::{ClusterKey, HandshakeError, Refusal, joiner_channel};
use crate::proto as pb;
use crate::proto::hub_client::HubClient;

/// A node's card, as it asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its id, if it was let in before.
    pub node: Option<NodeId>,
    /// The cluster it belongs to, if it was let in before.
    pub cluster: Option<u128>,
    /// The generation of that cluster that it knows; 0 if it belongs to none.
    pub generation: u64,
    /// Tells a copy of its folder from its restart.
    pub incarnation: u128,
    /// `host:port` for other nodes.
    pub raft_addr: String,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// Its software version.
    pub version: String,
    /// A database keeps its messages; else the group `messages` does.
    pub database: bool,
}

/// It was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// The cluster.
    pub cluster: u128,
    /// The cluster's generation.
    pub generation: u64,
    /// Where the nodes are reached.
    pub nodes: Vec<(NodeId, String)>,
}

/// Why it was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Nobody answers, or there is no leader: ask again.
    #[error("{0}")]
    Later(String),
    /// The two sides have different keys.
    #[error("the other side does not have this cluster's key")]
    WrongKey,
    /// The node belongs to another cluster than the one it asked.
    #[error("the node belongs to another cluster")]
    OtherCluster,
    /// Another process has this node's identity. Right after a restart this may be the old process.
    #[error("another process has this identity")]
    IdentityTaken,
    /// The node was removed from the cluster.
    #[error("the node was removed from the cluster")]
    Removed,
    /// The cluster keeps its messages elsewhere than the node does.
    #[error("the cluster keeps its messages elsewhere")]
    OtherStore,
    /// The cluster was recovered without the node.
    #[error("the cluster was recovered without the node")]
    OldGeneration,
}

/// Asks from outside.
#[derive(Clone, Debug)]
pub struct Joiner {
    /// The key of the cluster.
    pub key: ClusterKey,
    /// The same as the transport's.
    pub boot: u128,
}

fn later(status: &Status) -> JoinError {
    JoinError::Later(status.message().to_owned())
}

impl From<HandshakeError> for JoinError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(Refusal::WrongKey) => Self::WrongKey,
            HandshakeError::Refused(Refusal::OtherCluster) => Self::OtherCluster,
            HandshakeError::Refused(Refusal::IdentityTaken) => Self::IdentityTaken,
            HandshakeError::Refused(Refusal::Removed) => Self::Removed,
            HandshakeError::Refused(Refusal::OldGeneration) => Self::OldGeneration,
            error => Self::Later(error.to_string()),
        }
    }
}

/// An id of 128 bits; 0 if it is none.
pub(super) fn id_from(bytes: &[u8]) -> u128 {
    bytes.try_into().map_or(0, u128::from_be_bytes)
}

pub(super) fn id_to(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

impl Joiner {
    /// The cluster that the node at `peer` belongs to; `None` if it waits for one itself.
    ///
    /// # Errors
    /// It does not answer, or not to this one.
    pub async fn probe(&self, peer: &str, limit: Duration) -> Result<Option<u128>, JoinError> {
        let asked = tokio::time::timeout(limit, async {
            let channel = joiner_channel(peer, &self.key, NodeId(0), self.boot, (0, 0)).await?;
            let reply = HubClient::new(channel).status(pb::StatusRequest {}).await;
            Ok::<_, JoinError>(reply.map_err(|status| later(&status))?.into_inner())
        });
        let reply = asked.await.map_err(|_| JoinError::Later("no answer in time".to_owned()))??;
        Ok(Some(id_from(&reply.cluster)).filter(|cluster| *cluster != 0))
    }

    /// Asks the node at `peer` to be let in, or to be let in again under a new address.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(&self, peer: &str, card: &Card, limit: Duration) -> Result<Joined, JoinError> {
        let asked = tokio::time::timeout(limit, async {
            let (node, cluster) = (card.node.unwrap_or_default(), card.cluster.unwrap_or(0));
            let channel =
                joiner_channel(peer, &self.key, node, self.boot, (cluster, card.generation)).await?;
            let request = pb::JoinRequest {
                node: node.0,
                incarnation: id_to(card.incarnation),
                raft_addr: card.raft_addr.clone(),
                rest_url: card.rest_url.clone(),
                version: card.version.clone(),
                cluster: card.cluster.map(id_to).unwrap_or_default(),
                hops: 0,
                timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
                database: card.database,
            };
            let reply = HubClient::new(channel).join(request).await;
            Ok::<_, JoinError>(reply.map_err(|status| later(&status))?.into_inner())
        });
        let reply = asked.await.map_err(|_| JoinError::Later("no answer in time".to_owned()))??;
        match reply.result {
            Some(pb::join_reply::Result::Joined(joined)) => Ok(Joined {
                node: NodeId(joined.node),
                cluster: id_from(&joined.cluster),
                generation: joined.generation,
                nodes: joined.nodes.into_iter().map(|node| (NodeId(node.id), node.addr)).collect(),
            }),
            Some(pb::join_reply::Result::Refused(refused)) => Err(refusal(&refused)),
            None => Err(JoinError::Later("the answer is empty".to_owned())),
        }
    }
}

fn refusal(refused: &pb::JoinRefused) -> JoinError {
    use pb::join_refused::Reason;
    match refused.reason() {
        Reason::IdentityTaken => JoinError::IdentityTaken,
        Reason::OtherCluster => JoinError::OtherCluster,
        Reason::Removed => JoinError::Removed,
        Reason::OtherStore => JoinError::OtherStore,
        Reason::NoLeader => JoinError::Later(format!("no leader: {}", refused.detail)),
        Reason::Unknown => JoinError::Later(refused.detail.clone()),
    }
}
