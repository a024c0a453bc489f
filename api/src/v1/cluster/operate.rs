//! Steering the cluster.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use hub_core::access::Scope;
use hub_core::id::NodeId;
use hub_core::port::{ClusterError, Group};

use super::input::{DrainInput, TransferInput};
use super::view::{DrainView, TransferView};
use crate::extract::{Params, no_condition, read_body, refuse_body};
use crate::hub::Hub;
use crate::json;
use crate::problem::Problem;
use crate::v1::control::Change;

/// Most bytes of the bodies here.
const MAX_BODY: usize = 16 << 10;

/// Drain a node
///
/// It takes no more deliveries, hands its leaderships over and turns unready, but keeps answering. Done when it leads
/// nothing.
#[utoipa::path(
    post,
    path = "/cluster/drain",
    operation_id = "drainNode",
    tag = "cluster",
    params(("Hub-Reason" = Option<String>, Header, description = "Why, for the record.")),
    request_body(content = Option<DrainInput>),
    responses((status = 200, description = "It drains.", body = DrainView)),
)]
pub(super) async fn drain(
    State(hub): State<Arc<Hub>>,
    change: Change,
    params: Params,
    body: Body,
) -> Result<Json<DrainView>, Problem> {
    set_draining(&hub, &change, params, body, true).await
}

/// End a node's drain
#[utoipa::path(
    post,
    path = "/cluster/undrain",
    operation_id = "undrainNode",
    tag = "cluster",
    params(("Hub-Reason" = Option<String>, Header, description = "Why, for the record.")),
    request_body(content = Option<DrainInput>),
    responses((status = 200, description = "It takes traffic again.", body = DrainView)),
)]
pub(super) async fn undrain(
    State(hub): State<Arc<Hub>>,
    change: Change,
    params: Params,
    body: Body,
) -> Result<Json<DrainView>, Problem> {
    set_draining(&hub, &change, params, body, false).await
}

async fn set_draining(
    hub: &Arc<Hub>,
    change: &Change,
    params: Params,
    body: Body,
    draining: bool,
) -> Result<Json<DrainView>, Problem> {
    let node = chosen_node(hub, change, params, body).await?;
    let deadline = hub.long_deadline();
    let call = if draining { hub.cluster.drain(node, deadline) } else { hub.cluster.undrain(node, deadline) };
    hub.bounded(deadline, call).await.unwrap_or_else(unfinished)?;
    change.audit();
    Ok(Json(DrainView { node_id: node.0, draining }))
}

/// Hand a leadership over
///
/// Done when another node leads.
#[utoipa::path(
    post,
    path = "/cluster/transfer-leader",
    operation_id = "transferLeader",
    tag = "cluster",
    params(("Hub-Reason" = Option<String>, Header, description = "Why, for the record.")),
    request_body = TransferInput,
    responses((status = 200, description = "Another node leads.", body = TransferView)),
)]
pub(super) async fn transfer(
    State(hub): State<Arc<Hub>>,
    change: Change,
    params: Params,
    body: Body,
) -> Result<Json<TransferView>, Problem> {
    change.caller.require(Scope::ClusterAdmin)?;
    params.finish()?;
    no_condition(&change.headers)?;
    let body = read_body(&hub, &change.headers, body, MAX_BODY, false).await?;
    let (group, to) = read_transfer(&body.bytes)?;
    let deadline = hub.long_deadline();
    let done = hub.bounded(deadline, hub.cluster.transfer(group, to, deadline)).await;
    let leader = done.unwrap_or_else(unfinished)?;
    change.audit();
    Ok(Json(TransferView { group: group.as_str(), leader: leader.0 }))
}

/// Remove a node
///
/// For good: it leaves the cluster, and is let in no more. One that leads hands over first. Refused while the cluster would
/// lose its majority by it.
#[utoipa::path(
    delete,
    path = "/cluster/members/{id}",
    operation_id = "removeNode",
    tag = "cluster",
    params(
        ("id" = u64, Path, description = "The node."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 204, description = "Removed.")),
)]
pub(super) async fn remove(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<StatusCode, Problem> {
    change.caller.require(Scope::ClusterAdmin)?;
    change.bare(&hub, params, body).await?;
    // What cannot be an id cannot be a node.
    let node = id.parse().map(NodeId).map_err(|_| Problem::from(ClusterError::NoNode))?;
    let deadline = hub.long_deadline();
    let done = hub.bounded(deadline, hub.cluster.remove(node, deadline)).await;
    done.unwrap_or_else(unfinished)?;
    change.audit();
    Ok(StatusCode::NO_CONTENT)
}

fn unfinished<T>() -> Result<T, ClusterError> {
    Err(ClusterError::Unfinished("the deadline has passed".into()))
}

/// The node of a drain: the one named in the body, or this one.
async fn chosen_node(hub: &Arc<Hub>, change: &Change, params: Params, body: Body) -> Result<NodeId, Problem> {
    change.caller.require(Scope::ClusterAdmin)?;
    params.finish()?;
    no_condition(&change.headers)?;
    if is_bare(&change.headers) {
        refuse_body(hub, body).await?;
        return Ok(hub.cluster.node_id());
    }
    let body = read_body(hub, &change.headers, body, MAX_BODY, false).await?;
    let mut errors = Vec::new();
    let mut reader = json::read_object(&body.bytes, &mut errors)?;
    let node = reader.number("node_id", 0, u64::MAX);
    reader.finish();
    if errors.is_empty() {
        Ok(node.map_or_else(|| hub.cluster.node_id(), NodeId))
    } else {
        Err(Problem::fields(errors))
    }
}

/// The request came without a body.
fn is_bare(headers: &HeaderMap) -> bool {
    !headers.contains_key(CONTENT_TYPE) || headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0")
}

fn read_transfer(body: &[u8]) -> Result<(Group, Option<NodeId>), Problem> {
    let mut errors = Vec::new();
    let mut reader = json::read_object(body, &mut errors)?;
    let name = reader.required_text("group");
    let group = name.as_deref().and_then(|name| Group::ALL.into_iter().find(|group| group.as_str() == name));
    if name.is_some() && group.is_none() {
        reader.invalid("group", "must be \"control\" or \"messages\"");
    }
    let to = reader.number("to", 0, u64::MAX).map(NodeId);
    reader.finish();
    match group {
        Some(group) if errors.is_empty() => Ok((group, to)),
        _ => Err(Problem::fields(errors)),
    }
}
