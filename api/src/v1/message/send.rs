//! `POST /messages`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, http};
use hub_core::access::Scope;
use hub_core::id::MessageId;
use hub_core::message::NewMessage;
use hub_core::port::{AcceptMode, Accepted, StoreError};

use super::MessageInput;
use super::admit::{Admission, Item};
use super::rate::pass;
use super::view::AcceptedView;
use crate::extract::{Caller, Params, Trace, idempotency_key, no_preference, read_body};
use crate::hub::Hub;
use crate::json;
use crate::problem::Problem;
use crate::v1::PREFIX;

/// `Idempotent-Replayed`: an earlier request with the same key had done it.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Room in a body besides content and metadata: the other fields, and white space.
const BODY_SLACK: usize = 64 << 10;

/// Send a message
///
/// The answer leaves when the message is on stable storage. With an `Idempotency-Key` the request can be repeated safely:
/// for 24 hours the same key and body give the first answer again. Repeats count under the rate limits like any message
/// that is well-formed and allowed; what a limit refuses costs nothing.
#[utoipa::path(
    post,
    path = "/messages",
    operation_id = "sendMessage",
    tag = "messages",
    params(
        ("allow_unregistered" = Option<bool>, Query, description = "Accept although the target is not registered, and wait for it."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare."),
    ),
    request_body = MessageInput,
    responses((
        status = 202,
        description = "On stable storage.",
        body = AcceptedView,
        headers(
            ("Location" = String, description = "Where the message is shown."),
            ("Idempotent-Replayed" = Option<String>, description = "`true` when an earlier request with the same key had sent it."),
            ("RateLimit-Policy" = Option<String>, description = "The limits on the caller and on the target, if there are any: messages (`q`) in seconds (`w`)."),
            ("RateLimit" = Option<String>, description = "What is left of them (`r`), and in how many seconds all of it is there again (`t`)."),
        ),
        example = json!({"id": "019ab0c4-7d1e-7a3b-8f52-2b1f6f0c9f10", "status": "pending", "created_at": "2026-11-23T08:55:00.123Z"}),
    )),
)]
pub(super) async fn send(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require_any(&[Scope::MessagesSend, Scope::MessagesAdmin])?;
    let allow_unregistered = params.flag("allow_unregistered");
    params.finish()?;
    no_preference(&headers)?;
    let key = idempotency_key(&headers)?;
    let limits = &hub.options.limits;
    let most = limits.max_content_bytes + limits.max_metadata_bytes + BODY_SLACK;
    let body = read_body(&hub, &headers, body, most, false).await?;
    let mut admission = Admission::new(&hub, &caller, &trace, allow_unregistered);
    let admitted = admission.admit(Item { text: json::text(&body.bytes)?, key }).await;
    let message = admitted.inspect_err(|_| hub.metrics.refused.inc())?;
    let passage = pass(&hub, &caller, std::iter::once(&message.target), true).await;
    let passage = passage.inspect_err(|_| hub.metrics.refused.inc())?;
    passage.mark(write(&hub, message, admission.deadline()).await)
}

async fn write(hub: &Hub, message: NewMessage, deadline: Instant) -> Result<Response, Problem> {
    let id = message.id;
    let accepted =
        hub.store_call(deadline, hub.store.accept(vec![message], AcceptMode::Each, deadline)).await;
    match accepted.map(|mut results| results.pop()) {
        Ok(Some(Ok(accepted))) => Ok(answer(hub, accepted)),
        Ok(Some(Err(refusal))) => {
            hub.metrics.refused.inc();
            Err(refusal.into())
        }
        Ok(None) => Err(about(id, StoreError::Unknown("the store gave no result".into()))),
        Err(error) => Err(about(id, error)),
    }
}

/// Names the message in a problem whose outcome is unknown.
fn about(id: MessageId, error: StoreError) -> Problem {
    let unknown = matches!(error, StoreError::Unknown(_));
    let problem = Problem::from(error);
    if unknown { problem.message_id(id) } else { problem }
}

fn answer(hub: &Hub, accepted: Accepted) -> Response {
    let replayed = accepted.replayed;
    let counter = if replayed { &hub.metrics.replayed } else { &hub.metrics.accepted };
    counter.inc();
    let location = HeaderValue::from_str(&format!("{PREFIX}/messages/{}", accepted.id));
    let view = AcceptedView { replayed: false, ..accepted.into() };
    let Ok(bytes) = serde_json::to_vec(&view) else { return Problem::internal().into_response() };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers: &mut http::HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(location) = location {
        headers.insert(LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
