//! Showing messages, and calling them back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::id::MessageId;
use hub_core::message::{Record, Status};
use hub_core::port::{CancelOutcome, Consistency, StoreError, can_be_shared};

use super::filter::list_query;
use super::view::{CancelledView, MessagePage, MessageView, id_view, page_answer};
use crate::extract::{Caller, Params, message_id};
use crate::hub::Hub;
use crate::problem::Problem;
use crate::v1::control::Change;

/// How long a message that has come to its end is kept in the shared cache.
const KEPT: Duration = Duration::from_secs(60);

/// A message the caller takes part in. To all others it does not exist.
pub(crate) async fn find(
    hub: &Hub,
    caller: &Caller,
    id: MessageId,
    consistency: Consistency,
    deadline: Instant,
) -> Result<Record, Problem> {
    let found =
        hub.store_call(deadline, hub.store.get(id, consistency, deadline)).await.map_err(read_fault)?;
    visible(caller, found)
}

/// To those who do not take part in a message it does not exist.
fn visible(caller: &Caller, found: Option<Record>) -> Result<Record, Problem> {
    found.filter(|record| caller.takes_part_in(&record.message)).ok_or_else(no_message)
}

/// A message that the caller may change, being its sender or an administrator, by a call that is said by its path alone;
/// and when that must be done.
pub(crate) async fn changeable(
    hub: &Hub,
    change: &Change,
    id: &str,
    params: Params,
    body: Body,
) -> Result<(MessageId, Instant), Problem> {
    let caller = &change.caller;
    caller.require_any(&[Scope::MessagesSend, Scope::MessagesAdmin])?;
    change.bare(hub, params, body).await?;
    let (id, deadline) = (message_id(id)?, hub.deadline());
    if !caller.0.has(Scope::MessagesAdmin) {
        let record = find(hub, caller, id, Consistency::Linearizable, deadline).await?;
        caller.require_sender(&record.message.sender)?;
    }
    Ok((id, deadline))
}

/// A failed read is never of unknown outcome: it can simply be repeated.
pub(crate) fn read_fault(error: StoreError) -> Problem {
    match error {
        StoreError::Unknown(reason) => {
            Problem::new(code::STORE_UNAVAILABLE, reason).retry_after(Duration::from_secs(1))
        }
        other => other.into(),
    }
}

fn no_message() -> Problem {
    Problem::new(code::NO_MESSAGE, "no message with this id exists, or it is not yours to see")
}

/// Show a message
///
/// With its attempts. By id a message is seen as soon as its sender has the answer, on every node.
#[utoipa::path(
    get,
    path = "/messages/{id}",
    operation_id = "getMessage",
    tag = "messages",
    params(
        ("id" = String, Path, description = "The message's id.", format = "uuid"),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "The message.", body = MessageView)),
)]
pub(super) async fn get(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    caller.require_any(&[Scope::MessagesRead, Scope::MessagesAdmin])?;
    let consistency = params.consistency();
    params.finish()?;
    let id = message_id(&id)?;
    // What is kept there has come to its end: the store could show nothing else, however fresh.
    if let Ok(Some(record)) = hub.cache.ended(id).await {
        return id_view(&visible(&caller, Some(record))?, consistency);
    }
    let record = find(&hub, &caller, id, consistency, hub.deadline()).await?;
    keep_ended(&hub, &record).await;
    id_view(&record, consistency)
}

/// Who asks for a message that has come to its end often asks again: those to come are spared the store. Not for longer
/// than the store itself shows it.
async fn keep_ended(hub: &Hub, record: &Record) {
    let Some(ended) = record.processed_at.filter(|_| can_be_shared(record.status)) else { return };
    let left = ended.plus(hub.options.retention).since(hub.clock.now());
    if let Err(error) = hub.cache.keep_ended(record, left.min(KEPT)).await {
        tracing::debug!(%error, "a message was not kept in the cache");
    }
}

/// List messages
///
/// Newest first, without their attempts. Lists may lag a little behind writes. A page may hold fewer than `limit` although more
/// follow (large messages, rare matches): only a null `next_cursor` is the end.
#[utoipa::path(
    get,
    path = "/messages",
    operation_id = "listMessages",
    tag = "messages",
    params(
        ("status" = Option<String>, Query, description = "In this state."),
        ("target_service" = Option<String>, Query, description = "For this target."),
        ("sender_service" = Option<String>, Query, description = "From this sender."),
        ("message_type" = Option<String>, Query, description = "Of this type."),
        ("correlation_id" = Option<String>, Query, description = "With this `metadata.correlation_id`."),
        ("created_after" = Option<String>, Query, description = "Accepted at or after.", format = DateTime),
        ("created_before" = Option<String>, Query, description = "Accepted before.", format = DateTime),
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50.", minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = MessagePage)),
)]
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    let query = list_query(params, &caller, "target_service", None)?;
    let page = hub.store.list(&query.filter, query.after, query.limit);
    let page = hub.store_call(hub.deadline(), page).await.map_err(read_fault)?;
    page_answer(&page)
}

/// Call a message back
///
/// Only while no node holds a claim on it. `may_have_arrived: false` promises that the target never gets it.
#[utoipa::path(
    delete,
    path = "/messages/{id}",
    operation_id = "cancelMessage",
    tag = "messages",
    params(("id" = String, Path, description = "The message's id.", format = "uuid")),
    responses((status = 200, description = "Cancelled.", body = CancelledView)),
)]
pub(super) async fn cancel(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<Json<CancelledView>, Problem> {
    let (id, deadline) = changeable(&hub, &change, &id, params, body).await?;
    match hub.store_call(deadline, hub.store.cancel(id, deadline)).await? {
        CancelOutcome::Cancelled { may_have_arrived } => {
            Ok(Json(CancelledView { id, status: Status::Cancelled, may_have_arrived }))
        }
        CancelOutcome::Conflict(status) => Err(conflict(id, status, "called back")),
        CancelOutcome::NotFound => Err(no_message()),
    }
}

/// The message is in a state that does not allow it.
pub(crate) fn conflict(id: MessageId, status: Status, what: &str) -> Problem {
    Problem::new(code::MESSAGE_CONFLICT, format!("the message is {status} and cannot be {what}"))
        .message_id(id)
        .message_status(status.as_str())
}
