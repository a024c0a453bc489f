//! What clients send, as the document describes it. The fields are read by `hub_core::message::Draft`; these types are for
//! the document and for clients written in Rust.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A message to send.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({
    "target_service": "inventory",
    "message_type": "character.created",
    "content": {"id": 7, "name": "Ada"}
}))]
pub struct MessageInput {
    /// Who sends: the token's own service, which is also taken when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-z0-9][a-z0-9._-]*$")]
    pub sender_service: Option<String>,
    /// Who shall get it.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-z0-9][a-z0-9._-]*$")]
    pub target_service: String,
    /// Its type.
    #[schema(min_length = 1, max_length = 100)]
    pub message_type: String,
    /// Any JSON; the text is kept and delivered as it came. By default at most 1 MiB, nested at most 128 deep.
    #[schema(value_type = Value)]
    pub content: Value,
    /// At most 64 entries and 16 KiB. `correlation_id` and `reply_to` are understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// Higher first within a target; default 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9)]
    pub priority: Option<u8>,
    /// No attempt before this; at most a year ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub deliver_at: Option<String>,
    /// The same in seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 31_536_000)]
    pub delay_seconds: Option<u64>,
    /// No attempt starts after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// The same in seconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub ttl_seconds: Option<u64>,
    /// Retries after the first attempt; else the service's setting, else the hub's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub max_retries: Option<u8>,
    /// This message's own idempotency key; the header's is taken when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255)]
    pub idempotency_key: Option<String>,
}

/// Several messages to send.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct BatchInput {
    /// The messages; by default at most 1,000 and 16 MiB.
    #[schema(max_items = 1000)]
    pub messages: Vec<MessageInput>,
}
