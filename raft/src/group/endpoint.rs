//! What other nodes ask of this node's part of a group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use hub_core::codec::{Command, Decoded, Envelope};
use hub_core::id::NodeId;
use hub_core::port::{ProposeError, SnapshotFile, StateMachine, Submitted};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::sync::oneshot;
use tonic::Status;

use super::core::Core;
use super::proposal::{Item, Outcome, Pending, Ticket, Waiter};
use crate::network::{Endpoint, Parts};
use crate::proto::{self as pb, Malformed};
use crate::state_machine::{Incoming, SnapshotSource, mark_of};
use crate::type_config::{C, SnapshotMeta};

/// The longest that a forwarded proposal or read is worked on, whatever the caller says.
const LONGEST: Duration = Duration::from_secs(60);

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn limit(timeout_ms: u32) -> Duration {
    Duration::from_millis(u64::from(timeout_ms)).min(LONGEST)
}

fn decode<Cmd: Command>(proposal: pb::Proposal) -> Result<Submitted<Cmd>, Status> {
    let mut bytes = proposal.command;
    let invalid = |error: hub_core::codec::CodecError| Status::invalid_argument(error.to_string());
    let (request, envelope) = Envelope::read(&mut bytes).map_err(invalid)?;
    match Cmd::decode(envelope).map_err(invalid)? {
        Decoded::Value(command) => Ok(Submitted { request, command }),
        Decoded::Ignorable => Err(Status::invalid_argument("the command is unknown to this version")),
    }
}

fn refused(error: &ProposeError) -> pb::Refused {
    use pb::refused::Reason;
    let (reason, bytes) = match error {
        ProposeError::Overloaded => (Reason::Overloaded, 0),
        ProposeError::TooLarge { bytes } => (Reason::TooLarge, *bytes as u64),
        ProposeError::Unsupported => (Reason::Unreadable, 0),
        ProposeError::Stopped => (Reason::Stopped, 0),
        ProposeError::NoLeader | ProposeError::LeadershipMoved | ProposeError::Unknown(_) => {
            (Reason::NoLeader, 0)
        }
    };
    pb::Refused { reason: reason.into(), bytes, leader: 0 }
}

/// A command of a version that this node does not know.
fn unreadable() -> pb::ProposalResult {
    let refused = pb::Refused { reason: pb::refused::Reason::Unreadable.into(), bytes: 0, leader: 0 };
    pb::ProposalResult { result: Some(pb::proposal_result::Result::Refused(refused)) }
}

fn result_of(outcome: Result<Outcome, oneshot::error::RecvError>) -> pb::ProposalResult {
    use pb::proposal_result::Result as R;
    let result = match outcome {
        Ok(Outcome::Done { index, reply }) => R::Reply(pb::Reply { index, reply }),
        Ok(Outcome::Refused(error)) => R::Refused(refused(&error)),
        Ok(Outcome::NotLeader(leader)) => R::Refused(pb::Refused {
            reason: pb::refused::Reason::NotLeader.into(),
            bytes: 0,
            leader: leader.map_or(0, |leader| leader.0),
        }),
        Ok(Outcome::Unknown(reason)) => R::Unknown(reason),
        Err(_) => R::Unknown("the leader is stopping".to_owned()),
    };
    pb::ProposalResult { result: Some(result) }
}

impl<M: StateMachine> Core<M> {
    /// Notes that the leader was heard, when its request comes: the answer may have to wait for the disk.
    fn hear(&self) -> impl Fn(&AppendEntriesRequest<C>) + Send + 'static + use<M> {
        let (servers, clock, heard) =
            (self.raft.server_metrics(), Arc::clone(&self.clock), Arc::clone(&self.heard));
        move |request| {
            let known = servers.borrow_watched().vote;
            if request.vote.is_committed() && request.vote >= known {
                heard.note(clock.instant());
            }
        }
    }

    /// Receives a snapshot and gives it to openraft.
    async fn receive(
        &self,
        header: pb::SnapshotHeader,
        mut parts: Parts,
    ) -> Result<pb::SnapshotReply, Status> {
        let malformed = |error: Malformed| Status::from(error);
        let vote = pb::vote_from(header.vote.as_ref()).map_err(malformed)?;
        let state = header.state.as_ref().ok_or_else(|| Status::invalid_argument("no state"))?;
        let (last_log_id, last_membership) = pb::state_from(state).map_err(malformed)?;
        let meta = SnapshotMeta { last_log_id, last_membership };
        let disk = |error: std::io::Error| Status::aborted(error.to_string());
        let mut incoming = Incoming::create(&self.options.copies_dir).await.map_err(disk)?;
        while let Some(part) = parts.next().await {
            incoming.write(&part?).await.map_err(disk)?;
        }
        let expected = SnapshotFile {
            path: std::path::PathBuf::new(),
            mark: mark_of(&meta),
            bytes: header.bytes,
            crc32c: header.crc32c,
        };
        let copy = incoming.finish(expected).await.map_err(disk)?;
        tracing::info!(group = %self.options.name, bytes = header.bytes, "installing a snapshot");
        let snapshot = Snapshot { meta, snapshot: SnapshotSource::Received(copy) };
        let done = self.raft.install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        Ok(pb::SnapshotReply { vote: Some(pb::vote_to(&done.vote)) })
    }

    async fn take_forwarded(&self, request: pb::ProposeRequest) -> Result<pb::ProposeReply, Status> {
        let deadline = self.clock.instant() + limit(request.timeout_ms);
        let mut answers = Vec::with_capacity(request.proposals.len());
        for proposal in request.proposals {
            let (reply, outcome) = oneshot::channel();
            let Ok(submitted) = decode::<M::Command>(proposal) else {
                answers.push(async { unreadable() }.boxed());
                continue;
            };
            let bytes = submitted.command.size_hint();
            let ticket = Arc::new(Ticket::default());
            let waiter = Waiter { ticket: Arc::clone(&ticket), reply, deadline, forwarded: true };
            let place = self.admission.enter(bytes);
            if self.is_over() {
                waiter.end(Outcome::Refused(ProposeError::Stopped));
            } else if place.is_none() {
                waiter.end(Outcome::Refused(ProposeError::Overloaded));
            } else if let Err(closed) = self.queue.send(Item::One(Pending { submitted, waiter })) {
                drop(closed);
            }
            let answer = async move {
                let ended = tokio::time::timeout_at(deadline.into(), outcome).await;
                drop(place);
                match ended {
                    Ok(outcome) => result_of(outcome),
                    Err(_) if ticket.cancel() => result_of(Ok(Outcome::Refused(ProposeError::NoLeader))),
                    Err(_) => result_of(Ok(Outcome::Unknown("no answer before the deadline".to_owned()))),
                }
            };
            answers.push(answer.boxed());
        }
        Ok(pb::ProposeReply { results: futures::future::join_all(answers).await })
    }
}

#[async_trait]
impl<M: StateMachine> Endpoint for Core<M> {
    fn append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<C>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<C>, Status>> {
        let hear = self.hear();
        self.raft.stream_append(requests.inspect(hear)).map(|result| result.map_err(fatal)).boxed()
    }

    async fn heartbeat(&self, request: AppendEntriesRequest<C>) -> Result<StreamAppendResult<C>, Status> {
        self.hear()(&request);
        let one = futures::stream::once(async move { request }).boxed();
        let mut answers = self.raft.stream_append(one).boxed();
        match answers.next().await {
            Some(answer) => answer.map_err(fatal),
            None => Err(Status::unavailable("group is stopping")),
        }
    }

    async fn vote(&self, request: VoteRequest<C>) -> Result<VoteResponse<C>, Status> {
        self.raft.vote(request).await.map_err(fatal)
    }

    async fn pre_vote(&self, request: VoteRequest<C>) -> Result<VoteResponse<C>, Status> {
        self.raft.pre_vote(request).await.map_err(fatal)
    }

    async fn transfer(&self, request: TransferLeaderRequest<C>) -> Result<TransferLeaderResponse<C>, Status> {
        self.raft.handle_transfer_leader(request).await.map_err(fatal)
    }

    async fn snapshot(&self, header: pb::SnapshotHeader, parts: Parts) -> Result<pb::SnapshotReply, Status> {
        self.receive(header, parts).await
    }

    async fn propose(&self, request: pb::ProposeRequest) -> Result<pb::ProposeReply, Status> {
        self.take_forwarded(request).await
    }

    async fn read_index(&self, request: pb::ReadIndexRequest) -> Result<pb::ReadIndexReply, Status> {
        use pb::read_index_reply::Result as R;
        let result = match self.ask_here(limit(request.timeout_ms)).await {
            Ok(index) => R::LogId(pb::LogId { term: 0, node: 0, index }),
            Err(_) => R::Refused(pb::Refused {
                reason: pb::refused::Reason::NotLeader.into(),
                bytes: 0,
                leader: self.leadership.borrow().leader.map_or(0, |leader| leader.0),
            }),
        };
        Ok(pb::ReadIndexReply { result: Some(result) })
    }

    async fn hand_over(&self, request: pb::CommandRequest) -> Result<pb::CommandReply, Status> {
        let to = Some(NodeId(request.transfer_to)).filter(|to| to.0 != 0);
        let deadline = self.clock.instant() + limit(request.timeout_ms);
        Ok(match self.transfer_here(to, deadline).await {
            Ok(leader) => pb::CommandReply { leader: leader.0, error: String::new() },
            Err(error) => pb::CommandReply { leader: 0, error: error.to_string() },
        })
    }

    fn status(&self) -> pb::GroupStatus {
        (&Self::status(self)).into()
    }
}
