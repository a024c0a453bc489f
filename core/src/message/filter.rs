//! What a list of messages is filtered by, and how its pages follow each other.

use std::sync::Arc;

use super::{Record, Status};
use crate::id::{MessageId, ServiceName};
use crate::time::Timestamp;

/// Conditions that must all hold. Newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub status: Option<Status>,
    /// For this target.
    pub target: Option<ServiceName>,
    /// From this sender.
    pub sender: Option<ServiceName>,
    /// Sender or target is this service: what a caller without the admin scope may see.
    pub visible_to: Option<ServiceName>,
    /// Of this type.
    pub message_type: Option<Arc<str>>,
    /// With this correlation id in its metadata.
    pub correlation_id: Option<Arc<str>>,
    /// Accepted at or after.
    pub created_after: Option<Timestamp>,
    /// Accepted before.
    pub created_before: Option<Timestamp>,
}

/// Where a page ended: the next one holds ids below this one (keyset paging).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub MessageId);

/// Most bytes of content and metadata on one page; a page has at least one message, however large.
pub const PAGE_BYTES: usize = 8 << 20;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most as many as asked for, and fewer if they would be more than [`PAGE_BYTES`].
    pub items: Vec<Record>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Cursor>,
}
