//! What the broker's side needs of the store that keeps the rows.
//!
//! An open row that nobody holds a claim on is in one of two states. While it has a `publish_after`, some node has undertaken
//! to publish it; once that time has passed, the broker's copy may be lost. Without one it is *parked*: it is not in the
//! broker, because it is not due, or because the broker holds enough for its target; it follows when it is due and there is
//! room.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::id::{MessageId, ServiceName};
use hub_core::port::{Claimed, StoreError};

use crate::postgres::Outgoing;

/// For how long a node that undertakes to publish a row keeps the others from doing it.
pub const UNDERTAKEN: Duration = Duration::from_secs(25);

/// Rows of one target that nodes undertook to publish and that nobody holds a claim on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undertaken {
    /// Whose.
    pub target: ServiceName,
    /// How many there are.
    pub all: u32,
    /// How many of them have passed their `publish_after`.
    pub overdue: u32,
}

/// A row to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which message.
    pub id: MessageId,
    /// How long the claim shall last.
    pub lease: Duration,
}

/// The rows. Each call is one durable step; what it returns may be acted on.
#[async_trait]
pub trait Rows: Send + Sync + 'static {
    /// Undertakes to publish parked rows of `target` that are due, for [`UNDERTAKEN`]: highest priority first.
    async fn take_parked(&self, target: &ServiceName, limit: u32) -> Result<Vec<Outgoing>, StoreError>;

    /// Undertakes once more to publish rows of `target` whose `publish_after` has passed: the oldest first.
    async fn take_overdue(&self, target: &ServiceName, limit: u32) -> Result<Vec<Outgoing>, StoreError>;

    /// The targets that have overdue rows.
    async fn undertaken(&self) -> Result<Vec<Undertaken>, StoreError>;

    /// Which of these targets have parked rows that are due.
    async fn parked(&self, of: Vec<ServiceName>) -> Result<Vec<ServiceName>, StoreError>;

    /// Parks rows that nobody holds a claim on.
    async fn park(&self, ids: Vec<MessageId>) -> Result<(), StoreError>;

    /// Claims those rows that are due and that nobody holds, all in one durable step.
    async fn claim_these(&self, wanted: Vec<Wanted>, deadline: Instant) -> Result<Vec<Claimed>, StoreError>;
}
