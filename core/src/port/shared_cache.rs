//! The shared cache: counters that all nodes take permits from, and messages that have come to their end. It holds nothing
//! that is not also elsewhere, or not worth keeping: emptied or gone, no outcome changes.

use std::time::Duration;

use async_trait::async_trait;

use crate::id::MessageId;
use crate::limit::{Ask, Verdict};
use crate::message::{Record, Status};

/// The cache cannot be asked now. Nobody waits for it: what it would have said is decided without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shared cache is not available: {0}")]
pub struct CacheError(pub String);

/// Whether a message in this state may be shown out of the cache: nothing changes it any more. (A dead letter can be sent
/// again, and what an operator discarded is not asked for again and again.)
#[must_use]
pub const fn can_be_shared(status: Status) -> bool {
    matches!(status, Status::Delivered | Status::Cancelled | Status::Expired)
}

/// What the nodes of a cluster share besides the stores.
#[async_trait]
pub trait SharedCache: Send + Sync + 'static {
    /// Takes permits, all demands in one step.
    async fn take(&self, ask: &Ask) -> Result<Verdict, CacheError>;

    /// A message that has come to its end, exactly as it was kept; `None` if it is not here, which says nothing about it.
    async fn ended(&self, id: MessageId) -> Result<Option<Record>, CacheError>;

    /// Keeps a message for at most `time`. Does nothing unless [`can_be_shared`] holds for its state.
    async fn keep_ended(&self, record: &Record, time: Duration) -> Result<(), CacheError>;
}
