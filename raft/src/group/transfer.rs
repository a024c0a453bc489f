//! Handing leadership over, and waiting until it moved.

use std::time::{Duration, Instant};

use hub_core::id::NodeId;
use hub_core::port::{ClusterError, StateMachine};

use super::core::{Core, Group};
use crate::network::Lane;
use crate::proto as pb;
use crate::proto::hub_client::HubClient;

/// One voter gets this long to take over, before the next is tried.
const ATTEMPT: Duration = Duration::from_secs(1);

impl<M: StateMachine> Group<M> {
    /// Hands leadership to `to`, or to the voter whose log reaches furthest, from whichever node; returns when it moved.
    ///
    /// # Errors
    /// It did not move before the deadline; it still may.
    pub async fn transfer(&self, to: Option<NodeId>, deadline: Instant) -> Result<NodeId, ClusterError> {
        if self.core.leading().is_some() {
            return self.core.transfer_here(to, deadline).await;
        }
        let leader = self.core.leadership.borrow().leader;
        let leader = leader.ok_or(ClusterError::Propose(hub_core::port::ProposeError::NoLeader))?;
        self.core.transfer_there(leader, to, deadline).await
    }
}

impl<M: StateMachine> Core<M> {
    /// Voters other than this node, those whose log reaches furthest first.
    fn heirs(&self, to: Option<NodeId>) -> Vec<NodeId> {
        let status = self.status();
        let me = self.transport.node();
        let mut heirs: Vec<NodeId> = status
            .voters
            .iter()
            .copied()
            .filter(|voter| *voter != me && to.is_none_or(|to| to == *voter))
            .collect();
        heirs.sort_by_key(|voter| std::cmp::Reverse(status.matched.get(voter).copied().unwrap_or(0)));
        heirs
    }

    /// On the leader.
    pub(super) async fn transfer_here(
        &self,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, ClusterError> {
        let me = self.transport.node();
        let heirs = self.heirs(to);
        if heirs.is_empty() {
            return Err(ClusterError::Unsafe("there is no other voter".to_owned()));
        }
        let mut leadership = self.leadership.clone();
        for heir in heirs.iter().cycle() {
            let now = self.clock.instant();
            if now >= deadline {
                break;
            }
            let asked = self.raft.trigger().transfer_leader(heir.0).await;
            asked.map_err(|_| ClusterError::Propose(hub_core::port::ProposeError::Stopped))?;
            let moved = leadership.wait_for(|seen| seen.leader.is_some_and(|leader| leader != me));
            if let Ok(Ok(seen)) = tokio::time::timeout_at(deadline.min(now + ATTEMPT).into(), moved).await
                && let Some(leader) = seen.leader
            {
                return Ok(leader);
            }
        }
        Err(ClusterError::Unfinished(format!("leadership of {} did not move", self.options.name)))
    }

    async fn transfer_there(
        &self,
        leader: NodeId,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, ClusterError> {
        let left = deadline.saturating_duration_since(self.clock.instant());
        let request = pb::CommandRequest {
            group: self.options.name.to_string(),
            transfer_to: to.map_or(0, |to| to.0),
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        };
        let mut client = HubClient::new(self.transport.inner.channel(leader, Lane::Calls));
        let unfinished = |why: String| ClusterError::Unfinished(why);
        let answered = tokio::time::timeout_at(deadline.into(), client.transfer_leader(request)).await;
        let reply = answered
            .map_err(|_| unfinished("the leader did not answer in time".to_owned()))?
            .map_err(|status| unfinished(status.message().to_owned()))?
            .into_inner();
        if reply.leader == 0 { Err(unfinished(reply.error)) } else { Ok(NodeId(reply.leader)) }
    }
}
