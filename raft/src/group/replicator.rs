//! The `Replicator` port over a group.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use hub_core::codec::{Command, Reply};
use hub_core::port::{Committed, Leadership, ProposeError, ReadError, Replicator, StateMachine, Submitted};
use tokio::sync::oneshot;

use super::batcher::MAX_ENTRY;
use super::core::Group;
use super::proposal::{InTerm, Item, Outcome, Pending, Ticket, Waiter};

fn reply<R: Reply>(index: u64, bytes: &Bytes) -> Result<Committed<R>, ProposeError> {
    match R::decode(bytes) {
        Ok(reply) => Ok(Committed { index, reply }),
        // It is written; only what came of it cannot be read.
        Err(error) => Err(ProposeError::Unknown(format!("the reply cannot be read: {error}"))),
    }
}

#[async_trait]
impl<M: StateMachine> Replicator<M::Command, M::Reply> for Group<M> {
    async fn propose(
        &self,
        proposal: Submitted<M::Command>,
        deadline: Instant,
    ) -> Result<Committed<M::Reply>, ProposeError> {
        let core = &self.core;
        if core.is_over() {
            return Err(ProposeError::Stopped);
        }
        let bytes = proposal.command.size_hint();
        if bytes > MAX_ENTRY {
            return Err(ProposeError::TooLarge { bytes });
        }
        let Some(_place) = core.admission.enter(bytes) else { return Err(ProposeError::Overloaded) };
        let ticket = Arc::new(Ticket::default());
        let (answer, outcome) = oneshot::channel();
        let waiter = Waiter { ticket: Arc::clone(&ticket), reply: answer, deadline, forwarded: false };
        let timer = core.metrics.proposal_seconds.start_timer();
        if core.queue.send(Item::One(Pending { submitted: proposal, waiter })).is_err() {
            return Err(ProposeError::Stopped);
        }
        let ended = tokio::time::timeout_at(deadline.into(), outcome).await;
        timer.observe_duration();
        let error = match ended {
            Ok(Ok(Outcome::Done { index, reply: bytes })) => return reply(index, &bytes),
            Ok(Ok(Outcome::Refused(error))) => error,
            Ok(Ok(Outcome::NotLeader(_))) => ProposeError::NoLeader,
            Ok(Ok(Outcome::Unknown(reason))) => ProposeError::Unknown(reason),
            Ok(Err(_)) if ticket.cancel() => ProposeError::Stopped,
            Err(_) if ticket.cancel() => ProposeError::NoLeader,
            Ok(Err(_)) => ProposeError::Unknown("this node is stopping".to_owned()),
            Err(_) => ProposeError::Unknown("no answer before the deadline".to_owned()),
        };
        if matches!(error, ProposeError::Unknown(_)) {
            core.metrics.unknown_outcomes.inc();
        }
        Err(error)
    }

    async fn propose_in_term(
        &self,
        term: u64,
        proposals: Vec<Submitted<M::Command>>,
        deadline: Instant,
    ) -> Result<Vec<Committed<M::Reply>>, ProposeError> {
        let core = &self.core;
        if core.is_over() {
            return Err(ProposeError::Stopped);
        }
        if proposals.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = proposals.iter().map(|proposal| proposal.command.size_hint()).sum();
        let Some(_place) = core.admission.enter(bytes) else { return Err(ProposeError::Overloaded) };
        let ticket = Arc::new(Ticket::default());
        let (answer, outcome) = oneshot::channel();
        let item = InTerm { term, submitted: proposals, ticket: Arc::clone(&ticket), reply: answer };
        if core.queue.send(Item::Together(item)).is_err() {
            return Err(ProposeError::Stopped);
        }
        match tokio::time::timeout_at(deadline.into(), outcome).await {
            Ok(Ok(Ok((index, replies)))) => replies.iter().map(|bytes| reply(index, bytes)).collect(),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) if ticket.cancel() => Err(ProposeError::Stopped),
            Err(_) if ticket.cancel() => Err(ProposeError::LeadershipMoved),
            _ => Err(ProposeError::Unknown("no answer before the deadline".to_owned())),
        }
    }

    async fn read_barrier(&self, deadline: Instant) -> Result<u64, ReadError> {
        self.core.barrier(deadline).await
    }

    fn leadership(&self) -> Leadership {
        *self.core.leadership.borrow()
    }

    async fn leadership_changed(&self, seen: Leadership) -> Leadership {
        let mut leadership = self.core.leadership.clone();
        let changed = leadership.wait_for(|now| *now != seen).await.map(|now| *now);
        match changed {
            Ok(now) => now,
            // The group has ended; nothing will change any more.
            Err(_) => std::future::pending().await,
        }
    }

    fn retry_after(&self) -> std::time::Duration {
        self.core.options.profile.failover().max(std::time::Duration::from_secs(1))
    }
}
