//! What travels from one store to the other: rows as both understand them.

use std::sync::Arc;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Attempt, Message, Status};
use hub_core::time::Timestamp;
use uuid::Uuid;

/// A message with everything that is kept of it.
pub(crate) struct Whole {
    /// Its place in the order of the source.
    pub(crate) seq: i64,
    pub(crate) message: Message,
    pub(crate) correlation_id: Option<Arc<str>>,
    pub(crate) deliver_at: Option<Timestamp>,
    pub(crate) too_old_at: Timestamp,
    pub(crate) status: Status,
    pub(crate) processed_at: Option<Timestamp>,
    pub(crate) retry_count: u32,
    pub(crate) attempt: u32,
    pub(crate) may_have_arrived: bool,
    pub(crate) dead_reason: Option<Arc<str>>,
    pub(crate) error: Option<Arc<str>>,
    pub(crate) last_request: Option<Uuid>,
    pub(crate) waits: Option<Waits>,
}

/// Where an open message stands. Nobody holds a claim on it.
pub(crate) struct Waits {
    pub(crate) status: Status,
    pub(crate) due: Timestamp,
    pub(crate) ends_at: Timestamp,
    pub(crate) attempt: u32,
    pub(crate) retry_count: u32,
    pub(crate) may_have_arrived: bool,
    pub(crate) error: Option<Arc<str>>,
}

/// Messages that follow each other, and their attempts.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Whole>,
    pub(crate) attempts: Vec<(MessageId, Attempt)>,
}

/// A caller's idempotency key.
pub(crate) struct Key {
    pub(crate) caller: String,
    pub(crate) key: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) message: Uuid,
    pub(crate) accepted_at: Timestamp,
    pub(crate) stored_at: Timestamp,
}

/// What only ever grows, of one target: it cannot be counted from the rows.
pub(crate) struct Grown {
    pub(crate) target: ServiceName,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
}
