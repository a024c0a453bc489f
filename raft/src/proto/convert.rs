//! openraft's types to and from our messages.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderResponse,
    VoteResponse,
};
use openraft::vote::RaftVote;

use super::generated as pb;
use crate::type_config::{
    self as t, C, Entry, EntryBytes, LogId, Membership, NodeAddr, Payload, StoredMembership, Vote,
};

/// A message lacks what it must have, or contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) fn log_id_to(id: &LogId) -> pb::LogId {
    let leader = id.committed_leader_id();
    pb::LogId { term: leader.term, node: leader.node_id, index: id.index() }
}

pub(crate) fn log_id_from(id: &pb::LogId) -> LogId {
    t::log_id(id.term, id.node, id.index)
}

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, node: leader.node_id, committed: RaftVote::is_committed(vote) }
}

pub(crate) fn vote_from(vote: Option<&pb::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("no vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node)
    } else {
        Vote::new(vote.term, vote.node)
    })
}

pub(crate) fn membership_to(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|set| pb::NodeSet { nodes: set.iter().copied().collect() }).collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::NodeInfo { id: *id, addr: node.addr.clone() })
            .collect(),
    }
}

pub(crate) fn membership_from(membership: &pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.iter().map(|set| set.nodes.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, NodeAddr> =
        membership.nodes.iter().map(|node| (node.id, NodeAddr { addr: node.addr.clone() })).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("membership contradicts itself"))
}

pub(crate) fn state_to(applied: Option<&LogId>, membership: &StoredMembership) -> pb::AppliedState {
    pb::AppliedState {
        last_applied: applied.map(log_id_to),
        membership: Some(pb::StoredMembership {
            log_id: membership.log_id().as_ref().map(log_id_to),
            membership: Some(membership_to(membership.membership())),
        }),
    }
}

pub(crate) fn state_from(state: &pb::AppliedState) -> Result<(Option<LogId>, StoredMembership), Malformed> {
    let membership = match &state.membership {
        Some(stored) => {
            let inner = stored.membership.as_ref().ok_or(Malformed("no membership"))?;
            StoredMembership::new(stored.log_id.as_ref().map(log_id_from), membership_from(inner)?)
        }
        None => StoredMembership::default(),
    };
    Ok((state.last_applied.as_ref().map(log_id_from), membership))
}

fn entry_to(entry: Entry) -> pb::Entry {
    use pb::entry::Payload as P;
    let log_id = log_id_to(&entry.log_id);
    let payload = match entry.payload {
        Payload::Blank => P::Blank(pb::Blank {}),
        Payload::Normal(EntryBytes(bytes)) => P::Normal(bytes),
        Payload::Membership(membership) => P::Membership(membership_to(&membership)),
    };
    pb::Entry { log_id: Some(log_id), payload: Some(payload) }
}

fn entry_from(entry: pb::Entry) -> Result<Entry, Malformed> {
    use pb::entry::Payload as P;
    let id = log_id_from(entry.log_id.as_ref().ok_or(Malformed("entry without log id"))?);
    let payload = match entry.payload.ok_or(Malformed("entry without payload"))? {
        P::Blank(_) => Payload::Blank,
        P::Normal(bytes) => Payload::Normal(EntryBytes(bytes)),
        P::Membership(membership) => Payload::Membership(membership_from(&membership)?),
    };
    Ok(Entry::new(id, payload))
}

pub(crate) fn append_request_to(group: &str, request: AppendEntriesRequest<C>) -> pb::AppendRequest {
    pb::AppendRequest {
        group: group.to_owned(),
        vote: Some(vote_to(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to),
        entries: request.entries.into_iter().map(entry_to).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to),
    }
}

pub(crate) fn append_request_from(request: pb::AppendRequest) -> Result<AppendEntriesRequest<C>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_from(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(log_id_from),
        entries: request.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from),
    })
}

pub(crate) fn append_reply_to(result: &StreamAppendResult<C>) -> pb::AppendReply {
    use pb::append_reply::Result as R;
    let result = match result {
        Ok(last) => R::Appended(pb::Appended { last: last.as_ref().map(log_id_to) }),
        Err(StreamAppendError::Conflict(id)) => R::Conflict(log_id_to(id)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(vote_to(vote)),
    };
    pb::AppendReply { result: Some(result) }
}

pub(crate) fn append_reply_from(reply: &pb::AppendReply) -> Result<StreamAppendResult<C>, Malformed> {
    use pb::append_reply::Result as R;
    Ok(match reply.result.as_ref().ok_or(Malformed("append reply without result"))? {
        R::Appended(appended) => Ok(appended.last.as_ref().map(log_id_from)),
        R::Conflict(id) => Err(StreamAppendError::Conflict(log_id_from(id))),
        R::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(crate) fn vote_reply_to(reply: &VoteResponse<C>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_to),
    }
}

pub(crate) fn vote_reply_from(reply: &pb::VoteReply) -> Result<VoteResponse<C>, Malformed> {
    Ok(VoteResponse {
        vote: vote_from(reply.vote.as_ref())?,
        vote_granted: reply.granted,
        last_log_id: reply.last_log_id.as_ref().map(log_id_from),
    })
}

pub(crate) fn transfer_reply_to(reply: &TransferLeaderResponse<C>) -> pb::TransferReply {
    use pb::transfer_reply::Result as R;
    let result = match reply {
        Ok(()) => R::Accepted(pb::Blank {}),
        Err(TransferLeaderError::VoteChanged { actual, .. }) => R::VoteChanged(vote_to(actual)),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => R::Unflushed(pb::Unflushed {
            expected: expected.as_ref().map(log_id_to),
            actual: actual.as_ref().map(log_id_to),
        }),
    };
    pb::TransferReply { result: Some(result) }
}

pub(crate) fn transfer_reply_from(
    reply: &pb::TransferReply,
    expected: &Vote,
) -> Result<TransferLeaderResponse<C>, Malformed> {
    use pb::transfer_reply::Result as R;
    Ok(match reply.result.as_ref().ok_or(Malformed("transfer reply without result"))? {
        R::Accepted(_) => Ok(()),
        R::VoteChanged(actual) => {
            Err(TransferLeaderError::VoteChanged { expected: *expected, actual: vote_from(Some(actual))? })
        }
        R::Unflushed(unflushed) => Err(TransferLeaderError::LogNotFlushed {
            expected: unflushed.expected.as_ref().map(log_id_from),
            actual: unflushed.actual.as_ref().map(log_id_from),
        }),
    })
}
