//! Showing the cluster.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::id::NodeId;

use super::view::{ClusterView, QuorumView};
use crate::extract::{Caller, Params};
use crate::hub::Hub;
use crate::problem::Problem;

/// Who may see the cluster.
const READERS: [Scope; 2] = [Scope::ServicesRead, Scope::ClusterAdmin];

/// Show the cluster
///
/// As the node that answers knows it: nodes, groups, their leaders and how far each log is.
#[utoipa::path(
    get,
    path = "/cluster",
    operation_id = "getCluster",
    tag = "cluster",
    responses((status = 200, description = "The cluster.", body = ClusterView)),
)]
pub(super) async fn status(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    params: Params,
) -> Result<Json<ClusterView>, Problem> {
    caller.require_any(&READERS)?;
    params.finish()?;
    Ok(Json(hub.cluster.status().into()))
}

/// Can a node be stopped?
#[utoipa::path(
    get,
    path = "/cluster/quorum",
    operation_id = "checkQuorum",
    tag = "cluster",
    params(("without" = u64, Query, description = "The node that would be stopped.")),
    responses((status = 200, description = "The verdict.", body = QuorumView)),
)]
pub(super) async fn quorum(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    mut params: Params,
) -> Result<Json<QuorumView>, Problem> {
    caller.require_any(&READERS)?;
    let node = params.parsed::<u64>("without", "a node's id");
    params.finish()?;
    let node = node.ok_or_else(|| Problem::new(code::BAD_REQUEST, "in the query: `without` is required"))?;
    let verdict = hub.cluster.quorum_without(NodeId(node));
    let verdict = verdict
        .ok_or_else(|| Problem::new(code::NO_NODE, format!("no node {node} belongs to the cluster")))?;
    Ok(Json(QuorumView { safe: verdict.safe, reason: verdict.reason }))
}
