//! A message as it enters the store: checked, with every default filled in.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{IdempotencyKey, Message, Priority};
use crate::id::{MessageId, ServiceName};
use crate::time::Timestamp;

/// What a message may be, by configuration and by the target's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest content in bytes; default 1 MiB, at most 3 MiB.
    pub max_content_bytes: usize,
    /// Deepest nesting of content.
    pub max_depth: usize,
    /// Largest metadata in bytes.
    pub max_metadata_bytes: usize,
    /// Most metadata entries.
    pub max_metadata_entries: usize,
    /// How far ahead a delivery can be scheduled.
    pub max_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_content_bytes: 1 << 20,
            max_depth: 128,
            max_metadata_bytes: 16 << 10,
            max_metadata_entries: 64,
            max_delay: Duration::from_secs(365 * 24 * 3600),
        }
    }
}

/// A checked message, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// Made by the hub before the write: repeats of an unknown write use the same.
    pub id: MessageId,
    /// Who sends; the token's service.
    pub sender: ServiceName,
    /// Who shall get it.
    pub target: ServiceName,
    /// E.g. `character.created`; 1 to 100 characters.
    pub message_type: Arc<str>,
    /// JSON text exactly as it came.
    pub content: Arc<str>,
    /// JSON text of an object, exactly as it came.
    pub metadata: Option<Arc<str>>,
    /// `metadata.correlation_id`, taken out for the index.
    pub correlation_id: Option<Arc<str>>,
    /// Higher first.
    pub priority: Priority,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// No attempt before this.
    pub deliver_at: Option<Timestamp>,
    /// No attempt starts after this.
    pub expires_at: Option<Timestamp>,
    /// Becomes a dead letter if still open then.
    pub too_old_at: Timestamp,
    /// Retries after the first attempt; the service's setting if `None`.
    pub max_retries: Option<u8>,
    /// W3C trace context of the sender, carried on.
    pub traceparent: Option<Arc<str>>,
    /// The caller's key, if given.
    pub idempotency: Option<IdempotencyKey>,
}

impl NewMessage {
    /// The first moment at which it may be attempted.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        self.deliver_at.unwrap_or(self.created_at)
    }

    /// The message as receivers and callers see it: without what only the store needs.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message {
            id: self.id,
            sender: self.sender.clone(),
            target: self.target.clone(),
            message_type: self.message_type.clone(),
            content: self.content.clone(),
            metadata: self.metadata.clone(),
            priority: self.priority,
            created_at: self.created_at,
            expires_at: self.expires_at,
            max_retries: self.max_retries,
            traceparent: self.traceparent.clone(),
        }
    }

    /// About how many bytes it takes in the log.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        160 + self.content.len() + self.metadata.as_deref().map_or(0, str::len)
    }
}
