//! What operators do with services: pause, maintenance, secrets.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hub_core::control::Command;

use super::change::{fresh_secret, instance_id, mark_changed, owned};
use super::input::MaintenanceInput;
use super::view::{SecretView, ServiceView};
use crate::extract::{Params, no_condition, read_body};
use crate::hub::Hub;
use crate::json;
use crate::problem::Problem;
use crate::v1::control::{Change, Changed};

/// Most bytes of the small bodies here.
const MAX_BODY: usize = 16 << 10;

/// Pause deliveries
///
/// Messages for the service are taken and wait. Attempts that run are finished.
#[utoipa::path(
    put,
    path = "/services/{name}/pause",
    operation_id = "pauseService",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 200, description = "The service as it is now.", body = ServiceView)),
)]
pub(super) async fn pause(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(&hub, &change, &name, params, body, true).await
}

/// Resume deliveries
#[utoipa::path(
    put,
    path = "/services/{name}/resume",
    operation_id = "resumeService",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 200, description = "The service as it is now.", body = ServiceView)),
)]
pub(super) async fn resume(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(&hub, &change, &name, params, body, false).await
}

async fn set_paused(
    hub: &Hub,
    change: &Change,
    name: &str,
    params: Params,
    body: Body,
    paused: bool,
) -> Result<Response, Problem> {
    let service = owned(change, name)?;
    change.bare(hub, params, body).await?;
    let changed = change.propose(hub, Command::SetPaused { service, paused }, hub.deadline()).await?;
    show(hub, changed)
}

fn show(hub: &Hub, changed: Changed) -> Result<Response, Problem> {
    let index = changed.index;
    let (service, ..) = changed.service()?;
    let mut response = Json(ServiceView::from(&*service)).into_response();
    mark_changed(hub, &mut response, &service, index);
    Ok(response)
}

/// Put an instance into maintenance, or take it out
///
/// Under maintenance it gets no deliveries, whatever the checks say.
#[utoipa::path(
    put,
    path = "/services/{name}/instances/{id}/maintenance",
    operation_id = "setInstanceMaintenance",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("id" = String, Path, description = "The instance's id."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    request_body = MaintenanceInput,
    responses((status = 200, description = "The service as it is now.", body = ServiceView)),
)]
pub(super) async fn maintenance(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path((name, id)): Path<(String, String)>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let service = owned(&change, &name)?;
    params.finish()?;
    no_condition(&change.headers)?;
    let body = read_body(&hub, &change.headers, body, MAX_BODY, false).await?;
    let maintenance = read_maintenance(&body.bytes)?;
    let command = Command::SetMaintenance { service, instance: instance_id(&id)?, maintenance };
    let changed = change.propose(&hub, command, hub.deadline()).await?;
    show(&hub, changed)
}

fn read_maintenance(body: &[u8]) -> Result<bool, Problem> {
    let mut errors = Vec::new();
    let mut reader = json::read_object(body, &mut errors)?;
    let maintenance = reader.typed("maintenance", "true or false");
    if maintenance.is_none() && reader.is_good() {
        reader.invalid("maintenance", "is required");
    }
    reader.finish();
    match maintenance {
        Some(maintenance) if errors.is_empty() => Ok(maintenance),
        _ => Err(Problem::fields(errors)),
    }
}

/// Change the signing secret
///
/// The new one signs at once; the ones before it sign too for another 24 hours.
#[utoipa::path(
    post,
    path = "/services/{name}/secret/rotate",
    operation_id = "rotateServiceSecret",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare; known for a minute."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
    ),
    responses((status = 200, description = "The new secret.", body = SecretView)),
)]
pub(super) async fn rotate_secret(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let service = owned(&change, &name)?;
    change.bare(&hub, params, body).await?;
    let command = Command::RotateSecret { service, secret: fresh_secret(&hub) };
    let changed = change.propose(&hub, command, hub.deadline()).await?;
    let index = changed.index;
    let (service, _, secret) = changed.service()?;
    let Some(secret) = secret else {
        tracing::error!("a rotated secret was not told");
        return Err(Problem::internal());
    };
    let previous_valid_until = service.secrets.iter().filter_map(|held| held.valid_until).max();
    let view = SecretView { secret, previous_valid_until, revision: service.revision };
    let mut response = Json(view).into_response();
    mark_changed(&hub, &mut response, &service, index);
    let no_store = axum::http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(axum::http::header::CACHE_CONTROL, no_store);
    Ok(response)
}
