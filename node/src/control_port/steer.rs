//! Handing leadership over.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::NodeId;
use hub_core::port::{Clock, ClusterError, GroupStatus};
use tracing::{debug, info, warn};

/// The longest that one attempt to hand over may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause after one failed, and between two looks while nobody is known to lead.
const PAUSE: Duration = Duration::from_millis(50);

/// A replicated group, as far as this node can see and steer it.
#[async_trait]
pub trait Steered: Send + Sync + 'static {
    /// The group as this node knows it.
    fn status(&self) -> GroupStatus;

    /// Hands leadership to `to`, or to the best other voter, from any node, and waits until it moved; the new leader.
    async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, ClusterError>;
}

/// Whether a node leads a group. `None` while nobody is known to, and it may turn out to be this node: it votes, another
/// voter is live, and together the live ones are enough for a leader.
pub(super) fn leads(status: &GroupStatus, node: NodeId, is_live: impl Fn(NodeId) -> bool) -> Option<bool> {
    if let Some(leader) = status.leader {
        return Some(leader == node);
    }
    let live = status.voters.iter().filter(|voter| is_live(**voter)).count();
    let open = status.voters.contains(&node) && live > 1 && live > status.voters.len() / 2;
    (!open).then_some(false)
}

/// Sees to it that `me` does not lead the group, if another voter can: one that is live. A leader that has lost its majority
/// for a moment is not told as one: while it may be that again, or another is elected, it is waited for. Returns whether
/// `me` certainly does not lead.
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
        let leads = leads(&status, me, |voter| voter == me || is_live(voter));
        if leads == Some(false) {
            return true;
        }
        if leads == Some(true) && !status.voters.iter().any(|voter| *voter != me && is_live(*voter)) {
            debug!(group = name, "there is no other voter to hand over to");
            return false;
        }
        let now = clock.instant();
        if now >= deadline {
            let known = leads.is_some();
            warn!(group = name, leader_is_known = known, "leadership was not handed over in time");
            return false;
        }
        if leads.is_none() {
            tokio::time::sleep(PAUSE).await;
            continue;
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
