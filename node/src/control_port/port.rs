//! The implementation of `ClusterControl`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::control::{Command, Refusal, Reply, State};
use hub_core::id::NodeId;
use hub_core::port::{
    Check, Clock, ClusterControl, ClusterError, ClusterStatus, Group, IdSource, NodeStatus, QuorumCheck,
    Readiness, Replicator, Role, Submitted,
};
use tokio::sync::watch;

use super::led::{Led, LedGroups};
use super::readiness::{Facts, GroupFacts, readiness};
use super::steer::leads;
use super::{removal, without};
use crate::clock::HubClock;

/// How often a drain looks whether the node still leads.
const LOOK: Duration = Duration::from_millis(50);

/// Which nodes answered lately.
pub trait Peers: Send + Sync + 'static {
    /// The others that did; this node is not among them.
    fn live(&self) -> BTreeSet<NodeId>;
}

/// What is to be said of a message store, whenever readiness is asked for.
pub type StoreChecks = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What it is made of.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The cluster's generation.
    pub generation: u64,
    /// The control state.
    pub state: watch::Receiver<State>,
    /// Where control commands are proposed.
    pub proposals: Arc<dyn Replicator<Command, Reply>>,
    /// The groups.
    pub groups: LedGroups,
    /// Which nodes answer.
    pub peers: Arc<dyn Peers>,
    /// The clocks.
    pub clock: Arc<HubClock>,
    /// Request ids.
    pub ids: Arc<dyn IdSource>,
    /// How the message store fares.
    pub store: StoreChecks,
}

/// The cluster as operators see and steer it through this node.
pub struct ControlPort {
    parts: Parts,
    stopping: AtomicBool,
}

impl ControlPort {
    /// Over these parts.
    #[must_use]
    pub const fn new(parts: Parts) -> Self {
        Self { parts, stopping: AtomicBool::new(false) }
    }

    /// From now on this node is not ready: it is about to stop.
    pub fn stop_taking(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn facts(&self, led: &Led) -> GroupFacts {
        let leaderless = led.followed.seen.borrow().leaderless;
        let now = self.parts.clock.instant();
        GroupFacts {
            status: led.steered.status(),
            caught_up: *led.followed.caught_up.borrow(),
            leaderless: leaderless.map(|since| now.saturating_duration_since(since)),
        }
    }

    fn draining(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Acquire) {
            return Some("the node is stopping");
        }
        let state = self.parts.state.borrow();
        let draining = state.members.get(&self.parts.node).is_some_and(|member| member.draining);
        draining.then_some("an operator drains the node; `message-hub cluster undrain` ends it")
    }

    async fn set_draining(
        &self,
        node: NodeId,
        draining: bool,
        deadline: Instant,
    ) -> Result<(), ClusterError> {
        self.change(Command::SetDraining { node, draining }, deadline).await
    }

    async fn change(&self, command: Command, deadline: Instant) -> Result<(), ClusterError> {
        let request = self.parts.ids.request_id();
        let committed = self.parts.proposals.propose(Submitted { request, command }, deadline).await?;
        match committed.reply {
            Reply::Refused(Refusal::NoNode) => Err(ClusterError::NoNode),
            Reply::Refused(refusal) => Err(ClusterError::Unsafe(refusal.to_string())),
            _ => Ok(()),
        }
    }

    /// Another live voter could lead every group that `node` leads now.
    fn can_leave(&self, status: &ClusterStatus, node: NodeId) -> Result<(), ClusterError> {
        for (group, state) in status.groups() {
            let live =
                |id: &NodeId| status.nodes.iter().any(|node| node.id == *id && node.live && !node.draining);
            let heir = state.voters.iter().any(|voter| *voter != node && live(voter));
            if state.leader == Some(node) && !heir {
                let name = group.as_str();
                return Err(ClusterError::Unsafe(format!("no other live voter could lead {name}")));
            }
        }
        Ok(())
    }
}

/// The node leads a group, or who does is not known and it may turn out to be this one.
fn may_lead(status: &ClusterStatus, node: NodeId) -> bool {
    let live = |id: NodeId| status.nodes.iter().any(|known| known.id == id && known.live);
    status.groups().any(|(_, group)| leads(group, node, live) != Some(false))
}

#[async_trait]
impl ClusterControl for ControlPort {
    fn node_id(&self) -> NodeId {
        self.parts.node
    }

    fn status(&self) -> ClusterStatus {
        let state = self.parts.state.borrow().clone();
        let live = self.parts.peers.live();
        let control = self.parts.groups.control.steered.status();
        let nodes = state.members.values().map(|member| NodeStatus {
            id: member.id,
            rest_url: member.rest_url.to_string(),
            raft_addr: member.raft_addr.to_string(),
            version: member.version.to_string(),
            role: if control.voters.contains(&member.id) { Role::Voter } else { Role::Learner },
            live: member.id == self.parts.node || live.contains(&member.id),
            draining: member.draining,
        });
        ClusterStatus {
            cluster_id: state.cluster,
            generation: self.parts.generation,
            node_id: self.parts.node,
            nodes: nodes.collect(),
            messages: self.parts.groups.messages.as_ref().map(|led| led.steered.status()),
            control,
        }
    }

    fn readiness(&self) -> Readiness {
        readiness(&Facts {
            control: self.facts(&self.parts.groups.control),
            messages: self.parts.groups.messages.as_ref().map(|led| self.facts(led)),
            is_member: self.parts.state.borrow().members.contains_key(&self.parts.node),
            store: (self.parts.store)(),
            draining: self.draining(),
            clock_off: self.parts.clock.off(),
        })
    }

    fn quorum_without(&self, node: NodeId) -> Option<QuorumCheck> {
        without(&self.status(), node)
    }

    async fn transfer(
        &self,
        group: Group,
        to: Option<NodeId>,
        deadline: Instant,
    ) -> Result<NodeId, ClusterError> {
        let led = self.parts.groups.get(group).ok_or(ClusterError::NoGroup(group))?;
        let status = led.steered.status();
        if let Some(to) = to {
            if !self.parts.state.borrow().members.contains_key(&to) {
                return Err(ClusterError::NoNode);
            }
            if !status.voters.contains(&to) {
                return Err(ClusterError::Unsafe(format!("node {to} does not vote in {}", group.as_str())));
            }
            if status.leader == Some(to) {
                return Ok(to);
            }
        }
        if status.voters.len() < 2 {
            return Err(ClusterError::Unsafe(format!("{} has no other voter", group.as_str())));
        }
        led.steered.transfer(to, deadline).await
    }

    async fn drain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        if !self.parts.state.borrow().members.contains_key(&node) {
            return Err(ClusterError::NoNode);
        }
        self.can_leave(&self.status(), node)?;
        self.set_draining(node, true, deadline).await?;
        // The node itself sees the mark and hands over; here it is only waited for.
        loop {
            if !may_lead(&self.status(), node) {
                return Ok(());
            }
            if self.parts.clock.instant() + LOOK >= deadline {
                let what = format!("node {node} is marked as draining, but may still lead a group");
                return Err(ClusterError::Unfinished(what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn undrain(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        self.set_draining(node, false, deadline).await
    }

    async fn remove(&self, node: NodeId, deadline: Instant) -> Result<(), ClusterError> {
        let status = self.status();
        let check = removal(&status, node).ok_or(ClusterError::NoNode)?;
        if !check.safe {
            return Err(ClusterError::Unsafe(check.reason));
        }
        if may_lead(&status, node) && status.nodes.iter().any(|known| known.id == node && known.live) {
            self.drain(node, deadline).await?;
        }
        self.change(Command::Remove { node }, deadline).await
    }
}
