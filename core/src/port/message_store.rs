//! The message store: accepts, keeps, shows and ends messages.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::id::{MessageId, ServiceName};
use crate::message::{Cursor, Filter, NewMessage, Page, Record, Status};
use crate::time::Timestamp;

/// Why a store could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Certainly not done. `retryable` says whether waiting may help.
    #[error("message store is not available: {reason}")]
    Unavailable {
        /// For people.
        reason: String,
        /// Waiting may help.
        retryable: bool,
    },
    /// Certainly not done: this node is short of disk.
    #[error("free disk is below the limit")]
    DiskLow,
    /// Certainly not done: too much is waiting in this node.
    #[error("store is overloaded")]
    Overloaded,
    /// Certainly not done: larger than one entry may be.
    #[error("write of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Done or not: nobody can say yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The stored data is damaged.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
}

/// A message that the store took, or had taken before under the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The id under which it is kept (the first one's on a replay).
    pub id: MessageId,
    /// As it was when it was accepted.
    pub status: Status,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The key was used before with the same body: nothing new was written.
    pub replayed: bool,
}

/// Why one message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptRefusal {
    /// The key was used before with another body.
    #[error("idempotency key was used with another body")]
    KeyReused,
    /// The target's backlog is at its bound.
    #[error("backlog of {target} is full")]
    BacklogFull {
        /// Whose.
        target: ServiceName,
        /// How long to wait before another try.
        retry_after: Duration,
    },
    /// Another message of an atomic batch was refused.
    #[error("another message of the batch was refused")]
    BatchRefused,
}

/// Whether a batch stands or falls together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptMode {
    /// Each message for itself.
    Each,
    /// All or none: in one entry.
    Atomic,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read began.
    Linearizable,
    /// What this node has.
    Stale,
}

/// What a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Cancelled. `may_have_arrived` is true iff an earlier attempt ended without an answer.
    Cancelled {
        /// False promises that the target never gets it.
        may_have_arrived: bool,
    },
    /// In a state that cannot be cancelled.
    Conflict(Status),
    /// No such message.
    NotFound,
}

/// What a replay or a discard of a dead letter did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterOutcome {
    /// Done; its new state.
    Done(Status),
    /// It is not a dead letter.
    Conflict(Status),
    /// Its `expires_at` has passed: a replay is refused.
    Expired,
    /// No such message.
    NotFound,
}

/// A target's waiting messages, from counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Open messages: waiting, retrying or being delivered.
    pub depth: u64,
    /// Of them claimed now.
    pub in_flight: u64,
    /// When the oldest open one was accepted.
    pub oldest: Option<Timestamp>,
    /// Accepted since the store was made.
    pub accepted_total: u64,
    /// Delivered since the store was made.
    pub delivered_total: u64,
    /// Dead letters now.
    pub dead_letters: u64,
}

/// What one sweep ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Messages that reached `expires_at`.
    pub expired: u64,
    /// Messages that reached `too_old_at`.
    pub buried: u64,
    /// Final messages deleted after their retention.
    pub pruned: u64,
    /// There was more than one sweep's worth.
    pub more: bool,
    /// When the next message will reach an end, if known.
    pub next: Option<Timestamp>,
}

/// Where messages are kept. Every method does nothing it does not report; see [`StoreError`] for what is certain.
#[async_trait]
pub trait MessageStore: Send + Sync + 'static {
    /// Writes messages durably (group commit): one result each, in order..
    async fn accept(
        &self,
        messages: Vec<NewMessage>,
        mode: AcceptMode,
        deadline: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError>;

    /// One message with its attempts.
    async fn get(
        &self,
        id: MessageId,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<Option<Record>, StoreError>;

    /// A page, newest first, without attempts, of at most [`PAGE_BYTES`](crate::message::PAGE_BYTES); may lag behind writes.
    async fn list(&self, filter: &Filter, after: Option<Cursor>, limit: u32) -> Result<Page, StoreError>;

    /// Cancels a message that no node holds a claim on.
    async fn cancel(&self, id: MessageId, deadline: Instant) -> Result<CancelOutcome, StoreError>;

    /// Sends a dead letter again: same id, attempts kept, `retry_count` reset.
    async fn replay(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError>;

    /// Throws a dead letter away.
    async fn discard(&self, id: MessageId, deadline: Instant) -> Result<DeadLetterOutcome, StoreError>;

    /// A target's backlog, from counters; may lag.
    async fn backlog(&self, target: &ServiceName) -> Result<Backlog, StoreError>;

    /// The backlogs of all targets that have one or had one; may lag.
    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError>;

    /// Ends messages whose time has come and prunes final ones older than `retention`; at most `limit` of each. Done by
    /// whoever is in charge of it (embedded: the leader; elsewhere it returns an empty report). `registered` tells a
    /// target that is gone (`no_target`) from one that was only slow (`too_old`).
    async fn sweep(
        &self,
        registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        retention: Duration,
        limit: u32,
        deadline: Instant,
    ) -> Result<SweepReport, StoreError>;
}
