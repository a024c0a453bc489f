//! A message as the store keeps and shows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Priority, Status};
use crate::delivery::AttemptOutcome;
use crate::id::{InstanceId, MessageId, NodeId, ServiceName};
use crate::time::Timestamp;

/// What does not change after acceptance: the envelope that travels to the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The message's id.
    pub id: MessageId,
    /// Who sent it.
    pub sender: ServiceName,
    /// Who shall get it.
    pub target: ServiceName,
    /// E.g. `character.created`.
    pub message_type: Arc<str>,
    /// JSON text exactly as it came.
    pub content: Arc<str>,
    /// JSON text of an object, exactly as it came.
    pub metadata: Option<Arc<str>>,
    /// Higher first.
    pub priority: Priority,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// No attempt starts after this.
    pub expires_at: Option<Timestamp>,
    /// Retries after the first attempt; the service's setting if `None`.
    pub max_retries: Option<u8>,
    /// W3C trace context of the sender.
    pub traceparent: Option<Arc<str>>,
}

/// A message with its fate so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was sent.
    pub message: Message,
    /// Where it stands.
    pub status: Status,
    /// Counted retries since acceptance or the last replay.
    pub retry_count: u32,
    /// When it became final, or a dead letter.
    pub processed_at: Option<Timestamp>,
    /// Why the last attempt failed, or why it was given up.
    pub error_message: Option<Arc<str>>,
    /// Why it is a dead letter.
    pub dead_reason: Option<Arc<str>>,
    /// When it was scheduled for, if the sender said so.
    pub deliver_at: Option<Timestamp>,
    /// When the next attempt is due, while open and unclaimed.
    pub retry_at: Option<Timestamp>,
    /// All attempts, oldest first. Empty in lists.
    pub attempts: Vec<Attempt>,
}

/// One attempt, as it ended (or as it is running).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first ever; goes on over replays.
    pub number: u32,
    /// The node that made it.
    pub node: NodeId,
    /// The instance it went to, if one was chosen.
    pub instance: Option<InstanceId>,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// What came of it.
    pub outcome: AttemptOutcome,
    /// HTTP status, if the target answered.
    pub http_status: Option<u16>,
    /// The class of transport error, if it did not.
    pub error_class: Option<Arc<str>>,
    /// First KiB of the answer's body.
    pub response: Option<Arc<str>>,
}
