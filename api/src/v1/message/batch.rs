//! `POST /messages/batch`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::message::NewMessage;
use hub_core::port::{AcceptMode, Accepted, StoreError};
use serde_json::value::RawValue;

use super::BatchInput;
use super::admit::{Admission, Item};
use super::batch_body::{split_json, split_lines};
use super::rate::{Passage, pass};
use super::send::REPLAYED;
use super::view::{BatchItem, BatchView};
use crate::extract::{Caller, Media, Params, Trace, idempotency_key, no_preference, read_body};
use crate::hub::Hub;
use crate::json;
use crate::problem::Problem;

/// What became of one message.
type Outcome = Result<Accepted, Problem>;

/// Send several messages
///
/// Each message stands for itself: a bad one does not spoil the rest, and the answer is 200 even if all fail. With
/// `atomic=true` all are taken, or none. Each counts as one message under the rate limits: a caller that sends too fast is
/// refused the whole batch (429), a target that is sent too many its own messages. With an `Idempotency-Key` message `i` has the key `{key}#{i}`, unless it brings its
/// own.
#[utoipa::path(
    post,
    path = "/messages/batch",
    operation_id = "sendMessages",
    tag = "messages",
    params(
        ("atomic" = Option<bool>, Query, description = "All or none; at most 4 MiB."),
        ("allow_unregistered" = Option<bool>, Query, description = "Accept although a target is not registered, and wait for it."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare."),
    ),
    request_body(
        content(
            (BatchInput = "application/json"),
            (String = "application/x-ndjson", example = json!("{\"target_service\":\"inventory\",\"message_type\":\"ping\",\"content\":1}\n")),
        ),
    ),
    responses((
        status = 200,
        description = "What became of each message, in their order.",
        body = BatchView,
        headers(
            ("Idempotent-Replayed" = Option<String>, description = "`true` when an earlier request with the same key had sent them all."),
            ("RateLimit-Policy" = Option<String>, description = "The limits on the caller and on the target with the least left, if there are any: messages (`q`) in seconds (`w`)."),
            ("RateLimit" = Option<String>, description = "What is left of them (`r`), and in how many seconds all of it is there again (`t`)."),
        ),
        example = json!({"results": [
            {"id": "019ab0c4-7d1e-7a3b-8f52-2b1f6f0c9f10", "status": "pending", "created_at": "2026-11-23T08:55:00.123Z"},
            {"type": "urn:message-hub:problem:HUB-1202", "title": "Target is not registered", "status": 404, "detail": "no service nobody is registered", "code": "HUB-1202"},
        ]}),
    )),
)]
pub(super) async fn send_batch(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Extension(trace): Extension<Trace>,
    mut params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    caller.require_any(&[Scope::MessagesSend, Scope::MessagesAdmin])?;
    let atomic = params.flag("atomic");
    let allow_unregistered = params.flag("allow_unregistered");
    params.finish()?;
    no_preference(&headers)?;
    let key = idempotency_key(&headers)?;
    let options = &hub.options;
    let most = if atomic { options.max_atomic_bytes } else { options.max_batch_bytes };
    let body = read_body(&hub, &headers, body, most, true).await?;
    let text = json::text(&body.bytes)?;
    let items = match body.media {
        Media::Json => split_json(text, options.max_batch_messages)?,
        Media::Ndjson => split_lines(text, options.max_batch_messages)?,
    };
    let mut admission = Admission::new(&hub, &caller, &trace, allow_unregistered);
    let mut admitted = Vec::with_capacity(items.len());
    for (at, text) in items.into_iter().enumerate() {
        let key = key.as_ref().map(|key| format!("{key}#{at}"));
        admitted.push(admission.admit(Item { text, key }).await);
    }
    if atomic && admitted.iter().any(Result::is_err) {
        return Err(spoiled_batch(&hub, admitted));
    }
    let passage = permits(&hub, &caller, &mut admitted, atomic).await?;
    let outcomes = if atomic {
        accept_all(&hub, admitted, &admission).await
    } else {
        accept_each(&hub, admitted, &admission).await
    };
    passage.mark(outcomes.map(|outcomes| answer(&hub, &outcomes)))
}

/// Takes a permit for each good message. Those whose target takes no more for now are bad ones too.
async fn permits(
    hub: &Hub,
    caller: &Caller,
    admitted: &mut [Result<NewMessage, Problem>],
    whole: bool,
) -> Result<Passage, Problem> {
    let targets = admitted.iter().filter_map(|item| item.as_ref().ok()).map(|message| &message.target);
    let passage = pass(hub, caller, targets, whole).await;
    let passage = passage.inspect_err(|_| hub.metrics.refused.inc_by(admitted.len() as u64))?;
    for item in admitted {
        if let Some(problem) = item.as_ref().ok().and_then(|message| passage.refuses(&message.target)) {
            *item = Err(problem);
        }
    }
    Ok(passage)
}

/// Those that are good go to the store in one call; the results come back in their places.
async fn accept_each(
    hub: &Hub,
    admitted: Vec<Result<NewMessage, Problem>>,
    admission: &Admission<'_>,
) -> Result<Vec<Outcome>, Problem> {
    let ids: Vec<Option<String>> =
        admitted.iter().map(|item| item.as_ref().ok().map(|message| message.id.to_string())).collect();
    let mut places = Vec::with_capacity(admitted.len());
    let mut messages = Vec::with_capacity(admitted.len());
    for item in admitted {
        places.push(item.map(|message| messages.push(message)));
    }
    if messages.is_empty() {
        return Ok(places.into_iter().map(|place| place.and_then(|()| Err(Problem::internal()))).collect());
    }
    let mut results = write(hub, messages, AcceptMode::Each, admission, ids).await?.into_iter();
    let mut next = || results.next().unwrap_or_else(|| Err(Problem::internal()));
    Ok(places.into_iter().map(|place| place.and_then(|()| next())).collect())
}

/// An atomic batch that holds a bad message.
fn spoiled_batch(hub: &Hub, admitted: Vec<Result<NewMessage, Problem>>) -> Problem {
    let outcomes: Vec<Outcome> = admitted.into_iter().map(|item| item.and_then(|_| Err(spoiled()))).collect();
    refused_batch(hub, &outcomes)
}

/// All go to the store as one, or none at all.
async fn accept_all(
    hub: &Hub,
    admitted: Vec<Result<NewMessage, Problem>>,
    admission: &Admission<'_>,
) -> Result<Vec<Outcome>, Problem> {
    let messages: Vec<NewMessage> = admitted.into_iter().flatten().collect();
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let ids = messages.iter().map(|message| Some(message.id.to_string())).collect();
    let outcomes = write(hub, messages, AcceptMode::Atomic, admission, ids).await?;
    if outcomes.iter().any(Result::is_err) { Err(refused_batch(hub, &outcomes)) } else { Ok(outcomes) }
}

async fn write(
    hub: &Hub,
    messages: Vec<NewMessage>,
    mode: AcceptMode,
    admission: &Admission<'_>,
    ids: Vec<Option<String>>,
) -> Result<Vec<Outcome>, Problem> {
    let (deadline, count) = (admission.deadline(), messages.len());
    let written = hub.store_call(deadline, hub.store.accept(messages, mode, deadline)).await;
    let written = written.and_then(|results| {
        let fits = results.len() == count;
        if fits { Ok(results) } else { Err(StoreError::Unknown("the store gave too few results".into())) }
    });
    match written {
        Ok(results) => Ok(results.into_iter().map(|result| result.map_err(Problem::from)).collect()),
        Err(error @ StoreError::Unknown(_)) => Err(Problem::from(error).message_ids(ids)),
        Err(error) => Err(error.into()),
    }
}

fn spoiled() -> Problem {
    Problem::new(code::BATCH_REFUSED, "another message of the batch was refused; nothing was stored")
}

/// The problem of an atomic batch, with the problem of each message.
fn refused_batch(hub: &Hub, outcomes: &[Outcome]) -> Problem {
    hub.metrics.refused.inc_by(outcomes.len() as u64);
    let bodies: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(_) => spoiled(),
            Err(problem) => problem.clone(),
        })
        .collect();
    let results: Vec<_> = bodies.iter().map(|problem| problem.body(None, None)).collect();
    let problem =
        Problem::new(code::BATCH_REFUSED, "nothing was stored; `results` has the problem of each message");
    match serde_json::to_string(&results).and_then(RawValue::from_string) {
        Ok(results) => problem.results(results),
        Err(_) => problem,
    }
}

fn answer(hub: &Hub, outcomes: &[Outcome]) -> Response {
    let taken = |outcome: &&Outcome| outcome.is_ok();
    let replayed =
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(accepted) if accepted.replayed)).count();
    let accepted = outcomes.iter().filter(taken).count();
    hub.metrics.accepted.inc_by((accepted - replayed) as u64);
    hub.metrics.replayed.inc_by(replayed as u64);
    hub.metrics.refused.inc_by((outcomes.len() - accepted) as u64);
    let results = outcomes.iter().map(show).collect();
    let Ok(bytes) = serde_json::to_vec(&BatchView { results }) else {
        return Problem::internal().into_response();
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if replayed > 0 && replayed == outcomes.len() {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn show(outcome: &Outcome) -> BatchItem<'_> {
    match outcome {
        Ok(accepted) => BatchItem::Accepted(accepted.clone().into()),
        Err(problem) => BatchItem::Refused(Box::new(problem.body(None, None))),
    }
}
