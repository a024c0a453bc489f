//! Dead letters: messages that were given up, to be sent again or thrown away.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::id::MessageId;
use hub_core::message::Status;
use hub_core::port::DeadLetterOutcome;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::control::Change;
use super::message::{
    MessagePage, MessageView, changeable, conflict, find, id_view, list_query, page_answer, read_fault,
};
use crate::extract::{Caller, Params, message_id};
use crate::hub::Hub;
use crate::problem::Problem;

/// The calls under `/dead-letters`.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, discard)).routes(routes!(replay))
}

/// A dead letter that was dealt with.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterView {
    /// The message's id.
    #[schema(value_type = String, format = "uuid")]
    pub id: MessageId,
    /// Its state now: `pending` or `discarded`.
    #[schema(value_type = String, example = "pending")]
    pub status: Status,
}

/// List dead letters
///
/// Newest message first, without their attempts. Lists may lag a little behind writes. A page may hold fewer than `limit` although more
/// follow (large messages, rare matches): only a null `next_cursor` is the end.
#[utoipa::path(
    get,
    path = "/dead-letters",
    operation_id = "listDeadLetters",
    tag = "dead letters",
    params(
        ("service" = Option<String>, Query, description = "For this target."),
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
async fn list(State(hub): State<Arc<Hub>>, caller: Caller, params: Params) -> Result<Response, Problem> {
    let query = list_query(params, &caller, "service", Some(Status::DeadLetter))?;
    let page = hub.store.list(&query.filter, query.after, query.limit);
    let page = hub.store_call(hub.deadline(), page).await.map_err(read_fault)?;
    page_answer(&page)
}

/// Show a dead letter
#[utoipa::path(
    get,
    path = "/dead-letters/{id}",
    operation_id = "getDeadLetter",
    tag = "dead letters",
    params(
        ("id" = String, Path, description = "The message's id.", format = "uuid"),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "The message with its attempts.", body = MessageView)),
)]
async fn get(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(id): Path<String>,
    mut params: Params,
) -> Result<Response, Problem> {
    caller.require_any(&[Scope::MessagesRead, Scope::MessagesAdmin])?;
    let consistency = params.consistency();
    params.finish()?;
    let record = find(&hub, &caller, message_id(&id)?, consistency, hub.deadline()).await?;
    if record.status != Status::DeadLetter {
        return Err(no_dead_letter());
    }
    id_view(&record, consistency)
}

fn no_dead_letter() -> Problem {
    Problem::new(code::NO_MESSAGE, "no dead letter with this id exists, or it is not yours to see")
}

/// Send a dead letter again
///
/// Same id, attempts kept, `retry_count` starts anew. Refused when it has expired.
#[utoipa::path(
    post,
    path = "/dead-letters/{id}/replay",
    operation_id = "replayDeadLetter",
    tag = "dead letters",
    params(
        ("id" = String, Path, description = "The message's id.", format = "uuid"),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 200, description = "It waits for delivery.", body = DeadLetterView)),
)]
async fn replay(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<Json<DeadLetterView>, Problem> {
    let (id, deadline) = changeable(&hub, &change, &id, params, body).await?;
    let outcome = hub.store_call(deadline, hub.store.replay(id, deadline)).await?;
    answer(&change, id, outcome, "sent again")
}

/// Throw a dead letter away
#[utoipa::path(
    delete,
    path = "/dead-letters/{id}",
    operation_id = "discardDeadLetter",
    tag = "dead letters",
    params(
        ("id" = String, Path, description = "The message's id.", format = "uuid"),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 200, description = "Discarded.", body = DeadLetterView)),
)]
async fn discard(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<Json<DeadLetterView>, Problem> {
    let (id, deadline) = changeable(&hub, &change, &id, params, body).await?;
    let outcome = hub.store_call(deadline, hub.store.discard(id, deadline)).await?;
    answer(&change, id, outcome, "discarded")
}

fn answer(
    change: &Change,
    id: MessageId,
    outcome: DeadLetterOutcome,
    what: &str,
) -> Result<Json<DeadLetterView>, Problem> {
    match outcome {
        DeadLetterOutcome::Done(status) => {
            change.audit();
            Ok(Json(DeadLetterView { id, status }))
        }
        DeadLetterOutcome::Conflict(status) => Err(conflict(id, status, what)),
        DeadLetterOutcome::Expired => {
            let detail = "its `expires_at` has passed: it cannot be sent again";
            Err(Problem::new(code::EXPIRED, detail).message_id(id))
        }
        DeadLetterOutcome::NotFound => Err(no_dead_letter()),
    }
}
