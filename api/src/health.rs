//! The node's own condition, for balancers, for people and for Prometheus. None of it needs a token but, by setting,
//! `/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hub_core::error::code;
use hub_core::port::{CheckStatus, Readiness};
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::{Caller, Params};
use crate::hub::Hub;
use crate::problem::Problem;

/// When it is worth asking again whether the node is ready.
const RETRY: Duration = Duration::from_secs(1);

/// The calls at the root.
pub(crate) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(health))
        .routes(routes!(metrics))
}

/// Does the process turn?
///
/// Depends on nothing else: a failure means that it must be restarted.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "health",
    responses((status = 200, description = "It does.", body = String, content_type = "text/plain", example = json!("ok"))),
)]
async fn livez() -> &'static str {
    "ok"
}

/// May this node take traffic?
///
/// It may when it has caught up, or serves on the last state known; not while it drains. The first line is `ok` or
/// `degraded`; with `verbose` a line for each check follows.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "health",
    params(("verbose" = Option<bool>, Query, description = "A line for each check.", allow_reserved)),
    responses((status = 200, description = "It may.", body = String, content_type = "text/plain", example = json!("ok"))),
)]
async fn readyz(State(hub): State<Arc<Hub>>, mut params: Params) -> Result<String, Problem> {
    let verbose = params.flag("verbose");
    params.finish()?;
    let readiness = hub.cluster.readiness();
    let lines = lines(&readiness);
    if !readiness.is_ready() {
        let failing = readiness.checks.iter().filter(|check| check.status == CheckStatus::Failing);
        let failing: Vec<String> = failing.map(|check| format!("{}: {}", check.name, check.detail)).collect();
        let detail = if verbose { lines.join("\n") } else { failing.join("; ") };
        return Err(Problem::new(code::NOT_READY, detail).retry_after(RETRY));
    }
    let word = readiness.status().as_str();
    Ok(if verbose { format!("{word}\n{}\n", lines.join("\n")) } else { word.to_owned() })
}

fn lines(readiness: &Readiness) -> Vec<String> {
    let line = |check: &hub_core::port::Check| {
        let mark = match check.status {
            CheckStatus::Ok => '+',
            CheckStatus::Degraded => '~',
            CheckStatus::Failing => '-',
        };
        format!("[{mark}] {} {}: {}", check.name, check.status.as_str(), check.detail)
    };
    readiness.checks.iter().map(line).collect()
}

/// A node's condition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HealthReport {
    /// `ok`, `degraded` or `failing`: the worst of the checks.
    #[schema(value_type = String, example = "ok")]
    pub status: &'static str,
    /// The node.
    pub node_id: u64,
    /// Its software version.
    pub version: String,
    /// Who leads, as it knows.
    pub leaders: Leaders,
    /// Each check by its name.
    pub checks: BTreeMap<&'static str, CheckView>,
}

/// The leaders of the groups; null if unknown.
#[derive(Debug, Serialize, ToSchema)]
pub struct Leaders {
    /// Of `control`.
    #[schema(required = true)]
    pub control: Option<u64>,
    /// Of `messages`; absent where a database keeps the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, required = false)]
    pub messages: Option<Option<u64>>,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Check)]
pub struct CheckView {
    /// `ok`, `degraded` or `failing`.
    #[schema(value_type = String, example = "ok")]
    pub status: &'static str,
    /// What is the case.
    pub detail: String,
}

/// How is this node?
///
/// A summary for people. It is 200 whatever it says; balancers use `/readyz`.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "health",
    responses((status = 200, description = "The summary.", body = HealthReport)),
)]
async fn health(State(hub): State<Arc<Hub>>, params: Params) -> Result<Json<HealthReport>, Problem> {
    params.finish()?;
    let readiness = hub.cluster.readiness();
    let cluster = hub.cluster.status();
    let show = |check: &hub_core::port::Check| {
        (check.name, CheckView { status: check.status.as_str(), detail: check.detail.clone() })
    };
    Ok(Json(HealthReport {
        status: readiness.status().as_str(),
        node_id: cluster.node_id.0,
        version: hub.options.version.clone(),
        leaders: Leaders {
            control: cluster.control.leader.map(|node| node.0),
            messages: cluster.messages.map(|group| group.leader.map(|node| node.0)),
        },
        checks: readiness.checks.iter().map(show).collect(),
    }))
}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "health",
    responses((status = 200, description = "All metrics of this node.", body = String, content_type = "text/plain; version=0.0.4")),
)]
async fn metrics(State(hub): State<Arc<Hub>>, parts: Parts) -> Result<Response, Problem> {
    if !hub.options.open_metrics {
        Caller::of(&parts, &hub)?;
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder.encode(&hub.registry.gather(), &mut text).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        Problem::internal()
    })?;
    let kind = axum::http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
