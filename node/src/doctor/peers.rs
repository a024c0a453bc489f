//! The other nodes that the configuration names.

use std::time::Duration;

use hub_core::error::code;
use hub_raft::{ClusterKey, JoinError, Joiner};

use super::Finding;
use crate::config::Config;

const PART: &str = "peer";
/// How long one may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Whether each answers, and has the same key.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let raft = &config.raft;
    let key = match (&raft.cluster_key, &config.auth.secret_key) {
        (Some(key), _) => ClusterKey::new(key.expose().as_bytes()),
        (None, Some(secret)) => ClusterKey::derived(secret.expose().as_bytes()),
        (None, None) if raft.join.is_empty() && raft.peers.is_empty() => return Vec::new(),
        (None, None) => {
            return vec![Finding::failing(PART, code::NO_KEY, "there is no key to know other nodes by")];
        }
    };
    let mut asked: Vec<String> = raft.join.iter().chain(&raft.peers).map(ToString::to_string).collect();
    asked.sort();
    asked.dedup();
    let looks = asked.into_iter().map(|peer| {
        // A process of its own, as far as others can tell.
        let joiner = Joiner { key: key.clone(), boot: u128::from(std::process::id()) };
        async move { of(&peer, joiner.probe(&peer, ANSWER).await) }
    });
    futures::future::join_all(looks).await
}

fn of(peer: &str, answer: Result<Option<u128>, JoinError>) -> Finding {
    match answer {
        Ok(Some(cluster)) => Finding::ok(PART, format!("{peer} is a node of cluster {cluster:032x}")),
        Ok(None) => Finding::ok(PART, format!("{peer} waits for a cluster")),
        Err(JoinError::WrongKey) => {
            Finding::failing(PART, code::CLUSTER_KEY, format!("{peer} has another CLUSTER_KEY"))
        }
        Err(JoinError::Later(reason)) => {
            let cure = "start it, or check the address and the network (the node to be started itself need not answer)";
            Finding::degraded(PART, format!("{peer} does not answer: {reason}"), cure)
        }
        Err(error) => Finding::failing(PART, code::OTHER_CLUSTER, format!("{peer}: {error}")),
    }
}
