//! Proposals on their way to the leader.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hub_core::codec::Command;
use hub_core::error::find_cause;
use hub_core::id::NodeId;
use hub_core::port::{ProposeError, StateMachine};
use tokio::sync::OwnedSemaphorePermit;

use super::batcher::retry_later;
use super::core::Core;
use super::proposal::{Outcome, Pending};
use crate::network::{Lane, MAX_MESSAGE};
use crate::proto as pb;
use crate::proto::hub_client::HubClient;

/// The shortest time a batch gets: its callers give up by themselves.
const SHORTEST: Duration = Duration::from_millis(50);

impl<M: StateMachine> Core<M> {
    /// Sends a batch to the leader and tells its callers what came of it.
    pub(super) async fn forward(
        self: &Arc<Self>,
        leader: NodeId,
        batch: Vec<Pending<M::Command>>,
        place: OwnedSemaphorePermit,
    ) {
        let now = self.clock.instant();
        let latest = batch.iter().map(|pending| pending.waiter.deadline).max().unwrap_or(now);
        let limit = latest.saturating_duration_since(now).max(SHORTEST);
        let request = pb::ProposeRequest {
            group: self.options.name.to_string(),
            proposals: batch.iter().map(proposal_to).collect(),
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        };
        let mut client = HubClient::new(self.transport.inner.channel(leader, Lane::Calls))
            .max_encoding_message_size(MAX_MESSAGE)
            .max_decoding_message_size(MAX_MESSAGE);
        let answered = tokio::select! {
            answered = tokio::time::timeout(limit, client.propose(request)) => Some(answered),
            () = self.replaced(leader), if self.options.repeat_unknown => None,
        };
        drop(place);
        let Some(answered) = answered else {
            self.doubt(batch, "the leader was replaced before it answered");
            return;
        };
        match answered {
            Ok(Ok(reply)) => self.take_results(batch, reply.into_inner().results),
            // The connection was never made.
            Ok(Err(status)) if find_cause::<tonic::ConnectError>(&status).is_some() => self.not_sent(batch),
            Ok(Err(status)) => {
                self.doubt(batch, &format!("the leader's answer was lost: {}", status.message()))
            }
            Err(_) => self.doubt(batch, "the leader did not answer in time"),
        }
    }

    /// Ends when another node leads. The old leader may be frozen or cut off: who can ask again need not wait for it.
    async fn replaced(&self, leader: NodeId) {
        let mut leadership = self.leadership.clone();
        let other = leadership.wait_for(|now| now.leader.is_some_and(|now| now != leader)).await.is_ok();
        if !other {
            std::future::pending::<()>().await;
        }
    }

    fn not_sent(self: &Arc<Self>, batch: Vec<Pending<M::Command>>) {
        for pending in &batch {
            pending.waiter.ticket.take_back();
        }
        retry_later(self, batch);
    }

    fn take_results(self: &Arc<Self>, batch: Vec<Pending<M::Command>>, results: Vec<pb::ProposalResult>) {
        if results.len() != batch.len() {
            self.doubt(batch, "the leader answered another number of proposals");
            return;
        }
        let (mut again, mut doubtful) = (Vec::new(), Vec::new());
        for (pending, result) in batch.into_iter().zip(results) {
            match result.result {
                Some(pb::proposal_result::Result::Reply(pb::Reply { index, reply })) => {
                    pending.waiter.end(Outcome::Done { index, reply });
                }
                Some(pb::proposal_result::Result::Refused(refused)) => match refusal(&refused) {
                    Some(error) => pending.waiter.end(Outcome::Refused(error)),
                    None => again.push(pending),
                },
                Some(pb::proposal_result::Result::Unknown(_)) | None => doubtful.push(pending),
            }
        }
        self.not_sent(again);
        self.doubt(doubtful, "the leader does not know what came of it");
    }
}

/// What a caller is told; `None` if another node shall be asked.
fn refusal(refused: &pb::Refused) -> Option<ProposeError> {
    match refused.reason() {
        pb::refused::Reason::Overloaded => Some(ProposeError::Overloaded),
        pb::refused::Reason::TooLarge => {
            Some(ProposeError::TooLarge { bytes: usize::try_from(refused.bytes).unwrap_or(usize::MAX) })
        }
        pb::refused::Reason::Unreadable => Some(ProposeError::Unsupported),
        pb::refused::Reason::NoLeader | pb::refused::Reason::Stopped | pb::refused::Reason::NotLeader => None,
    }
}

fn proposal_to<C: Command>(pending: &Pending<C>) -> pb::Proposal {
    let request = pending.submitted.request;
    let mut command = BytesMut::new();
    pending.submitted.command.encode().write(request, &mut command);
    pb::Proposal { request: Bytes::copy_from_slice(request.0.as_bytes()), command: command.freeze() }
}
