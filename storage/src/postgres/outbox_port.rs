//! What the store asks of a broker beside it: who publishes what was accepted.

use std::time::Duration;

use hub_core::delivery::DeadReason;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::Priority;

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which.
    pub id: MessageId,
    /// Into whose queue.
    pub target: ServiceName,
    /// Higher first.
    pub priority: Priority,
}

/// A message that became a dead letter while it waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burial {
    /// Which.
    pub id: MessageId,
    /// Whose.
    pub target: ServiceName,
    /// Why.
    pub reason: DeadReason,
}

/// The publisher of this node. With one, no message is inserted claimed: each goes through its queue.
pub trait Outbox: Send + Sync + 'static {
    /// Whether this node undertakes to publish one more message of `target` that is due: then the sweeper leaves it alone for
    /// that long (`publish_after`). `None`: there is no room in the broker, it follows later.
    fn undertake(&self, target: &ServiceName) -> Option<Duration>;
    /// One that was undertaken was not written, or was known already.
    fn not_written(&self, target: &ServiceName);
    /// These were undertaken and are committed: to be published now. Must not block.
    fn publish(&self, messages: Vec<Outgoing>);
    /// These became dead letters and are committed: to be shown in the dead-letter queues. Must not block.
    fn bury(&self, burials: Vec<Burial>);
}
