//! Proposing to the group, and what its errors mean for a caller of the store.

use std::time::{Duration, Instant};

use hub_core::port::{ProposeError, StoreError, Submitted};

use super::Inner;
use crate::sqlite::command::{Command, Reply};

/// Before the same command is proposed again.
const PAUSE: Duration = Duration::from_millis(20);

/// A reply of the wrong sort, or to a command that was skipped.
pub(super) fn unexpected(reply: &Reply) -> StoreError {
    StoreError::Unknown(format!("unexpected reply {reply:?}"))
}

pub(super) fn failed(error: ProposeError) -> StoreError {
    match error {
        ProposeError::Overloaded => StoreError::Overloaded,
        ProposeError::TooLarge { bytes } => StoreError::TooLarge { bytes },
        ProposeError::Unknown(reason) => StoreError::Unknown(reason),
        error @ (ProposeError::NoLeader | ProposeError::LeadershipMoved) => {
            StoreError::Unavailable { reason: error.to_string(), retryable: true }
        }
        error @ (ProposeError::Stopped | ProposeError::Unsupported) => {
            StoreError::Unavailable { reason: error.to_string(), retryable: false }
        }
    }
}

impl Inner {
    /// The term in which this node leads and is up to date.
    pub(super) fn leads(&self) -> Option<u64> {
        let leadership = self.ports.replicator.leadership();
        let mine = leadership.leader == Some(self.ports.feed.node()) && leadership.ready;
        mine.then_some(leadership.term)
    }

    /// Proposes a command that may be repeated (all but claims and sweeps), and repeats it while its outcome is unknown.
    pub(super) async fn propose(&self, command: Command, deadline: Instant) -> Result<Reply, StoreError> {
        let request = self.ports.ids.request_id();
        let mut unknown = None;
        loop {
            let proposal = Submitted { request, command: command.clone() };
            match self.ports.replicator.propose(proposal, deadline).await {
                Ok(committed) => return Ok(committed.reply),
                Err(ProposeError::Unknown(reason)) => unknown = Some(reason),
                // An earlier try may have been written: what this one says about itself is not the whole answer.
                Err(error) => return Err(unknown.map_or_else(|| failed(error), StoreError::Unknown)),
            }
            if self.ports.clock.instant() + PAUSE >= deadline {
                return Err(StoreError::Unknown(unknown.unwrap_or_default()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Proposes on the leader of `term` or not at all.
    pub(super) async fn propose_in_term(
        &self,
        term: u64,
        proposal: Submitted<Command>,
        deadline: Instant,
    ) -> Result<Reply, StoreError> {
        let mut replies =
            self.ports.replicator.propose_in_term(term, vec![proposal], deadline).await.map_err(failed)?;
        replies
            .pop()
            .map(|committed| committed.reply)
            .ok_or_else(|| StoreError::Unknown("no reply".to_owned()))
    }
}
