//! Calls that are known, but belong to a later version: refused with their own code, so that nobody takes a 404 for a
//! service that is gone.

use hub_core::error::code;

use crate::extract::Caller;
use crate::problem::Problem;

/// Watch the registry (not in this version)
#[utoipa::path(
    get,
    path = "/services/watch",
    operation_id = "watchServices",
    tag = "services",
    responses((status = "default", description = "Always refused in this version, with HUB-1006.")),
)]
pub(super) async fn watch(_caller: Caller) -> Problem {
    Problem::new(
        code::NOT_BUILT,
        "watching the registry is not supported by this version; list it again instead",
    )
}

/// Send a heartbeat (not in this version)
#[utoipa::path(
    put,
    path = "/services/{name}/instances/{id}/heartbeat",
    operation_id = "heartbeatInstance",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("id" = String, Path, description = "The instance's id."),
    ),
    responses((status = "default", description = "Always refused in this version, with HUB-1006.")),
)]
pub(super) async fn heartbeat(_caller: Caller) -> Problem {
    Problem::new(
        code::NOT_BUILT,
        "heartbeats are not supported by this version; use a health check of kind `http`",
    )
}
