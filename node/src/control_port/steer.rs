//! Handing leadership over.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::NodeId;
use hub_core::port::{Clock, ClusterError, GroupStatus};
use tracing::{debug, info, warn};

/// The longest that one attempt to hand over may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause after one failed.
const PAUSE: Duration = Duration::from_millis(50);

/// A replicated group, as far as this node can see and steer it.
#[async_trait]
pub trait Steered: Send + Sync + 'static {
    /// The group as this node knows it.
    fn status(&self) -> GroupStatus;

    /// Hands leadership to `to`, or to the best other voter, from any node, and waits until it moved; the new leader.
    async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, ClusterError>;
}

/// Sees to it that `me` does not lead the group, if another voter can: one that is live. Returns whether it does not.
pub async fn hand_over(
    name: &'static str,
    group: &dyn Steered,
    me: NodeId,
    is_live: &(dyn Fn(NodeId) -> bool + Send + Sync),
    clock: &dyn Clock,
    deadline: Instant,
) -> bool {
    loop {
        let status = group.status();
        if status.leader != Some(me) {
            return true;
        }
        if !status.voters.iter().any(|voter| *voter != me && is_live(*voter)) {
            debug!(group = name, "there is no other voter to hand over to");
            return false;
        }
        let now = clock.instant();
        if now >= deadline {
            warn!(group = name, "leadership was not handed over in time");
            return false;
        }
        match group.transfer(None, deadline.min(now + ATTEMPT)).await {
            Ok(leader) => info!(group = name, leader = leader.0, "leadership was handed over"),
            Err(error) => {
                debug!(group = name, %error, "hand-over failed; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
