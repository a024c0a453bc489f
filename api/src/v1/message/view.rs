//! Messages as they are shown. Content and metadata are written as they came.

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hub_core::id::MessageId;
use hub_core::message::{Attempt, Page, Record, Status};
use hub_core::port::{Accepted, Consistency};
use hub_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::problem::{self, Problem};
use crate::v1::control::{HUB_CONSISTENCY, word};

/// A message that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// Its state when it was accepted.
    #[schema(value_type = String, example = "pending")]
    pub status: Status,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// True when an earlier request with the same key had sent it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub replayed: bool,
}

impl From<Accepted> for AcceptedView {
    fn from(accepted: Accepted) -> Self {
        let Accepted { id, status, created_at, replayed } = accepted;
        Self { id, status, created_at, replayed }
    }
}

/// What became of one message of a batch: taken, or its problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchItem<'a> {
    /// It was taken.
    Accepted(AcceptedView),
    /// It was refused.
    Refused(Box<problem::Body<'a>>),
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchView<'a> {
    /// One for each message, in their order.
    pub results: Vec<BatchItem<'a>>,
}

/// A message with its fate so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageView<'a> {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// Who sent it.
    #[schema(value_type = String)]
    pub sender_service: &'a str,
    /// Who shall get it.
    #[schema(value_type = String)]
    pub target_service: &'a str,
    /// Its type.
    #[schema(value_type = String)]
    pub message_type: &'a str,
    /// As it came.
    #[schema(value_type = Value)]
    pub content: &'a RawValue,
    /// As it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<&'a RawValue>,
    /// Higher first.
    pub priority: u8,
    /// Where it stands.
    #[schema(value_type = String, example = "delivered")]
    pub status: Status,
    /// Counted retries since acceptance or the last replay.
    pub retry_count: u32,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it became final, or a dead letter.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub processed_at: Option<Timestamp>,
    /// Why the last attempt failed, or why it was given up.
    #[schema(value_type = Option<String>, required = true)]
    pub error_message: Option<&'a str>,
    /// When it was scheduled for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deliver_at: Option<Timestamp>,
    /// No attempt starts after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    /// Retries that the sender allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u8>,
    /// Why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "exhausted")]
    pub reason: Option<&'a str>,
    /// Since when it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub dead_at: Option<Timestamp>,
    /// All attempts, oldest first. Left out of lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptView>>,
}

/// One attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// 1 for the first ever.
    pub number: u32,
    /// The node that made it.
    pub node: u64,
    /// The instance it went to.
    #[schema(required = true)]
    pub instance: Option<String>,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// `delivered`, `failed`, `rejected`, `not_sent`, `no_answer` or `hub_fault`.
    #[schema(value_type = String, example = "delivered")]
    pub outcome: &'static str,
    /// The HTTP status, if the target answered.
    #[schema(required = true)]
    pub http_status: Option<u16>,
    /// The class of transport error, if it did not.
    #[schema(value_type = Option<String>, required = true)]
    pub error_class: Option<Arc<str>>,
    /// First KiB of the answer's body.
    #[schema(value_type = Option<String>, required = true)]
    pub response: Option<Arc<str>>,
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            node: attempt.node.0,
            instance: attempt.instance.as_ref().map(ToString::to_string),
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            outcome: attempt.outcome.as_str(),
            http_status: attempt.http_status,
            error_class: attempt.error_class.clone(),
            response: attempt.response.clone(),
        }
    }
}

impl<'a> MessageView<'a> {
    /// Shows a record; `whole` with its attempts.
    ///
    /// # Errors
    /// When stored content is not JSON, which the store must never hold.
    pub fn new(record: &'a Record, whole: bool) -> Result<Self, serde_json::Error> {
        let message = &record.message;
        let dead = record.status == Status::DeadLetter;
        Ok(Self {
            id: message.id,
            sender_service: message.sender.as_str(),
            target_service: message.target.as_str(),
            message_type: &message.message_type,
            content: serde_json::from_str(&message.content)?,
            metadata: message.metadata.as_deref().map(serde_json::from_str).transpose()?,
            priority: message.priority.get(),
            status: record.status,
            retry_count: record.retry_count,
            created_at: message.created_at,
            processed_at: record.processed_at,
            error_message: record.error_message.as_deref(),
            deliver_at: record.deliver_at,
            expires_at: message.expires_at,
            retry_at: record.retry_at,
            max_retries: message.max_retries,
            reason: record.dead_reason.as_deref().filter(|_| dead),
            dead_at: record.processed_at.filter(|_| dead),
            attempts: whole.then(|| record.attempts.iter().map(AttemptView::from).collect()),
        })
    }
}

/// A page of messages, newest first, without their attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessagePage<'a> {
    /// The messages.
    pub items: Vec<MessageView<'a>>,
    /// Where the next page starts; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A message that was called back.
#[derive(Debug, Serialize, ToSchema)]
pub struct CancelledView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// `cancelled`.
    #[schema(value_type = String, example = "cancelled")]
    pub status: Status,
    /// True when an earlier attempt ended without an answer. False promises that the target never gets it.
    pub may_have_arrived: bool,
}

/// JSON with its consistency.
fn json(value: &impl Serialize, consistency: Consistency) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = bytes.into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(HUB_CONSISTENCY, HeaderValue::from_static(word(consistency)));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Problem::internal().into_response()
        }
    }
}

fn damaged(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "a stored message is not JSON");
    Problem::internal()
}

/// One message with its attempts.
pub(crate) fn id_view(record: &Record, consistency: Consistency) -> Result<Response, Problem> {
    let view = MessageView::new(record, true).map_err(|error| damaged(&error))?;
    Ok(json(&view, consistency))
}

/// A page. Lists may lag behind writes, and say so.
pub(crate) fn page_answer(page: &Page) -> Result<Response, Problem> {
    let items: Result<Vec<_>, _> = page.items.iter().map(|record| MessageView::new(record, false)).collect();
    let items = items.map_err(|error| damaged(&error))?;
    let next_cursor = page.next.map(|cursor| cursor.0.to_string());
    Ok(json(&MessagePage { items, next_cursor }, Consistency::Stale))
}
