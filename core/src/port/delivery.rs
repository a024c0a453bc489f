//! The delivery queue: which messages this node may attempt now, and how attempts end.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::StoreError;
use crate::delivery::{Claim, Settlement};
use crate::id::ServiceName;
use crate::message::Message;
use crate::time::Timestamp;

/// A message that this node holds a durable claim on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The claim; settle under it.
    pub claim: Claim,
    /// What to deliver.
    pub message: Message,
    /// Counted retries so far.
    pub retry_count: u32,
}

/// Free places for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Whose messages.
    pub target: ServiceName,
    /// At most this many.
    pub count: u32,
    /// How long the claims shall last: attempt timeout and 10 s.
    pub lease: Duration,
}

/// What the queue tells the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueSignal {
    /// These are claimed for this node already (they found a free slot when they were accepted).
    Claimed(Vec<Claimed>),
    /// The target has, or may have, a message that is due now and not claimed.
    Due(ServiceName),
    /// A message was written that becomes due only then (a scheduled one): look again at that time.
    Later(Timestamp),
    /// This node may deliver from now on: claim what is due.
    Started,
    /// This node must not claim any more. Running attempts may be settled; it may no longer take effect.
    Stopped,
}

/// Work for this node's dispatcher.
#[async_trait]
pub trait DeliveryQueue: Send + Sync + 'static {
    /// The next signal. Signals are kept until they are taken; one consumer.
    async fn next(&self) -> QueueSignal;

    /// Claims due messages, highest priority first within a target; everything claimed in one durable step.
    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError>;

    /// Ends attempts. `false` for each that came too late: its claim no longer holds and nothing changed.
    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError>;

    /// Targets that have due messages, and when the next of the others becomes due (leases included).
    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError>;
}

/// Free delivery slots, as the store asks when a message is accepted.
pub trait Slots: Send + Sync + 'static {
    /// Takes a slot for one message of `target` if it may be called now; the lease its claim needs.
    fn try_reserve(&self, target: &ServiceName) -> Option<Duration>;
    /// Gives a reserved slot back: the message was not written, or will not be handed over.
    fn give_back(&self, target: &ServiceName);
}
