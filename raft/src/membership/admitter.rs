//! Lets nodes in: on the leader of `control`; the others pass the question on.

use std::time::Duration;

use async_trait::async_trait;
use hub_core::control::{Command, Machine, Refusal, Reply, State};
use hub_core::id::{NodeId, RequestId};
use hub_core::port::{ProposeError, Replicator, Submitted};
use uuid::Uuid;

use super::join::{id_from, id_to};
use crate::group::Group;
use crate::network::{Admission, Lane};
use crate::proto as pb;
use crate::proto::hub_client::HubClient;
use crate::proto::join_refused::Reason;
use crate::state_machine::{MemoryState, View};
use crate::type_config::NodeAddr;

/// The group of members, services and settings.
pub type ControlGroup = Group<MemoryState<Machine>>;

/// A question travels at most this far.
const HOPS: u32 = 2;
/// The longest that one is worked on.
const LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Admitter {
    pub(super) control: ControlGroup,
    pub(super) view: View<Machine>,
    /// A database keeps the messages: there is no group `messages`.
    pub(super) database: bool,
}

fn refused(reason: Reason, detail: impl Into<String>) -> pb::JoinReply {
    let refused = pb::JoinRefused { reason: reason.into(), detail: detail.into() };
    pb::JoinReply { result: Some(pb::join_reply::Result::Refused(refused)) }
}

#[async_trait]
impl Admission for Admitter {
    async fn join(&self, mut request: pb::JoinRequest) -> pb::JoinReply {
        let transport = &self.control.core.transport;
        let cluster = id_from(&request.cluster);
        if cluster != 0 && cluster != transport.cluster() {
            return refused(Reason::OtherCluster, "");
        }
        if request.database != self.database {
            return refused(Reason::OtherStore, "");
        }
        if self.control.core.leading().is_some() {
            return self.admit(request).await;
        }
        let leader = self.control.core.leadership.borrow().leader;
        // The one that asks has only just started: whatever is remembered of it, it does not lead, and does not answer.
        let cannot = |leader: NodeId| leader == transport.node() || leader.0 == request.node;
        let Some(leader) = leader.filter(|leader| !cannot(*leader) && request.hops < HOPS) else {
            return refused(Reason::NoLeader, "no leader of control is known");
        };
        request.hops += 1;
        let limit = Duration::from_millis(request.timeout_ms.into()).min(LONGEST);
        let mut client = HubClient::new(transport.inner.channel(leader, Lane::Calls));
        match tokio::time::timeout(limit, client.join(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => refused(Reason::Unknown, status.message()),
            Err(_) => refused(Reason::Unknown, "the leader did not answer in time"),
        }
    }
}

impl Admitter {
    /// On the leader: gives the node its id, or notes its new address, and lets it follow.
    async fn admit(&self, request: pb::JoinRequest) -> pb::JoinReply {
        let core = &self.control.core;
        let limit = Duration::from_millis(request.timeout_ms.into()).min(LONGEST);
        let deadline = core.clock.instant() + limit;
        let command = Command::Admit {
            node: Some(NodeId(request.node)).filter(|node| node.0 != 0),
            incarnation: id_from(&request.incarnation),
            raft_addr: request.raft_addr.clone().into(),
            rest_url: request.rest_url.into(),
            version: request.version.into(),
        };
        // Admitting is an upsert by incarnation: repeats need no table.
        let proposal = Submitted { request: RequestId(Uuid::nil()), command };
        let (index, node) = match self.control.propose(proposal, deadline).await {
            Ok(done) => match done.reply {
                Reply::Admitted(node) => (done.index, node),
                Reply::Refused(Refusal::IdentityTaken) => return refused(Reason::IdentityTaken, ""),
                Reply::Refused(Refusal::NoNode) => return refused(Reason::Removed, ""),
                other => return refused(Reason::Unknown, format!("{other:?}")),
            },
            Err(ProposeError::NoLeader | ProposeError::LeadershipMoved) => {
                return refused(Reason::NoLeader, "leadership moved");
            }
            Err(error) => return refused(Reason::Unknown, error.to_string()),
        };
        let Some(state) = self.view.wait_for(index, deadline).await else {
            return refused(Reason::Unknown, "this node is behind");
        };
        core.transport.set_address(node, &request.raft_addr);
        if let Err(error) = self.follow(node, &request.raft_addr, limit).await {
            return refused(Reason::Unknown, error);
        }
        let joined = pb::Joined {
            node: node.0,
            cluster: id_to(core.transport.cluster()),
            nodes: nodes_of(&state),
            generation: core.transport.generation(),
        };
        pb::JoinReply { result: Some(pb::join_reply::Result::Joined(joined)) }
    }

    /// A new node gets the log from now on; it votes later. The keeper does what is missing if this fails.
    async fn follow(&self, node: NodeId, address: &str, limit: Duration) -> Result<(), String> {
        let core = &self.control.core;
        if node == core.transport.node() || core.status().knows(node) {
            return Ok(());
        }
        let address = NodeAddr { addr: address.to_owned() };
        let added = tokio::time::timeout(limit, core.raft.add_learner(node.0, address, false)).await;
        match added {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the membership did not change in time".to_owned()),
        }
    }
}

fn nodes_of(state: &State) -> Vec<pb::NodeInfo> {
    let nodes = state.members.values();
    nodes.map(|member| pb::NodeInfo { id: member.id.0, addr: member.raft_addr.to_string() }).collect()
}
