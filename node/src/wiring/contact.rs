//! Talking to nodes before this one belongs to their cluster, over the transport's own protocol.

use std::time::Duration;

use async_trait::async_trait;
use hub_core::error::code;
use hub_raft::Joiner;

use super::forming::{Card, Contact, JoinError, Joined, Probe};
use crate::coded::CodedError;

/// One question may take this long.
const PROBE: Duration = Duration::from_secs(2);
/// Being let in may take an election.
const JOIN: Duration = Duration::from_secs(5);

/// The version of this software, as other nodes and people see it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Asks real nodes.
pub struct Wire(pub Joiner);

#[async_trait]
impl Contact for Wire {
    async fn probe(&self, peer: &str) -> Probe {
        match self.0.probe(peer, PROBE).await {
            Ok(Some(cluster)) => Probe::Member(cluster),
            Ok(None) => Probe::Fresh,
            Err(_) => Probe::Silent,
        }
    }

    async fn join(&self, peer: &str, card: &Card) -> Result<Joined, JoinError> {
        let asks = hub_raft::Card {
            node: card.node,
            cluster: card.cluster,
            generation: card.generation,
            incarnation: card.incarnation,
            raft_addr: card.raft_addr.clone(),
            rest_url: card.rest_url.clone(),
            version: VERSION.to_owned(),
            database: card.database,
        };
        let joined = self.0.join(peer, &asks, JOIN).await.map_err(|error| refusal(peer, error))?;
        let hub_raft::Joined { node, cluster, generation, nodes } = joined;
        Ok(Joined { node, cluster, generation, nodes })
    }
}

fn refusal(peer: &str, error: hub_raft::JoinError) -> JoinError {
    use hub_raft::JoinError as E;
    let coded = |code, what: &str| CodedError::new(code, format!("{peer}: {what}"));
    match error {
        E::Later(reason) => JoinError::Later(reason),
        E::WrongKey => {
            JoinError::Never(coded(code::CLUSTER_KEY, "the node has another CLUSTER_KEY than this one"))
        }
        E::OtherCluster => {
            JoinError::Never(coded(code::OTHER_CLUSTER, "this node's data folder belongs to another cluster"))
        }
        E::OldGeneration => JoinError::Never(coded(
            code::OTHER_CLUSTER,
            "the cluster was recovered without this node; what only this node has is in its data folder",
        )),
        E::Removed => JoinError::Never(coded(code::OTHER_CLUSTER, "this node was removed from the cluster")),
        E::OtherStore => {
            let what = "the cluster keeps its messages elsewhere than this node would: give all nodes the same DATABASE_URL, or none";
            JoinError::Never(coded(code::OTHER_STORE, what))
        }
        // Right after a restart the peer may still hold connections of the old process.
        E::IdentityTaken => JoinError::Perhaps(coded(
            code::IDENTITY_TAKEN,
            "another process with this node's identity is connected",
        )),
    }
}
