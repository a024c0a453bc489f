//! Proposing to a replicated group, and reading from it, on any node.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::state_machine::Submitted;
use crate::codec::{Command, Reply};
use crate::id::NodeId;
use crate::time::Timestamp;

/// Who leads a group, as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term this is about.
    pub term: u64,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// This node leads, and has applied an entry of its own term: what it reads is the newest.
    pub ready: bool,
}

/// A reply and where its command stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    /// Log index: the revision that the caller may wait for elsewhere.
    pub index: u64,
    /// What the state machine answered.
    pub reply: R,
}

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not written: no leader was found before the deadline.
    #[error("no leader")]
    NoLeader,
    /// Certainly not written: the leadership it was tied to is over.
    #[error("leadership moved")]
    LeadershipMoved,
    /// Certainly not written: too many proposals wait already.
    #[error("too many proposals are waiting")]
    Overloaded,
    /// Certainly not written: the command is larger than an entry may be.
    #[error("command of {bytes} bytes is larger than an entry may be")]
    TooLarge {
        /// Encoded size.
        bytes: usize,
    },
    /// Certainly not written: the node that leads cannot read the command, so it runs another version.
    #[error("the leader does not know this command; it runs another version")]
    Unsupported,
    /// Certainly not written: this node is stopping, or its group has failed.
    #[error("group is stopped")]
    Stopped,
    /// Written or not, nobody can say yet: ask again with the same request id.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Why a read barrier was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the read before the deadline.
    #[error("no leader")]
    NoLeader,
    /// This node did not catch up before the deadline.
    #[error("this node is behind")]
    Behind,
    /// This node is stopping, or its group has failed.
    #[error("group is stopped")]
    Stopped,
}

/// A replicated group, as any node sees it.
#[async_trait]
pub trait Replicator<C: Command, R: Reply>: Send + Sync + 'static {
    /// Proposes here, or at the leader, until there is a reply or the deadline has passed. Proposals that arrive
    /// together share log entries. Safe to repeat with the same request only if the state machine knows repeats.
    async fn propose(&self, proposal: Submitted<C>, deadline: Instant) -> Result<Committed<R>, ProposeError>;

    /// Proposes several as one entry: all are written or none. Only on the leader of `term`, else `LeadershipMoved`.
    async fn propose_in_term(
        &self,
        term: u64,
        proposals: Vec<Submitted<C>>,
        deadline: Instant,
    ) -> Result<Vec<Committed<R>>, ProposeError>;

    /// After `Ok(index)` the local state holds everything that was acknowledged anywhere before the call.
    async fn read_barrier(&self, deadline: Instant) -> Result<u64, ReadError>;

    /// Who leads, now.
    fn leadership(&self) -> Leadership;

    /// Waits until leadership differs from `seen`.
    async fn leadership_changed(&self, seen: Leadership) -> Leadership;

    /// How long a caller should wait before it tries again when there is no leader.
    fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Sets what only the leader can know, just before an entry is proposed there.
pub trait Stamper<C>: Send + Sync + 'static {
    /// Runs on the leader of `term`, in the order of the log; `now` is the time of the entry.
    fn stamp(&self, term: u64, now: Timestamp, proposals: &mut [Submitted<C>]);
    /// The stamped proposals were certainly not written.
    fn abandoned(&self, proposals: &[Submitted<C>]);
}
