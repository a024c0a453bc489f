//! Registering, updating and removing services and their instances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hub_core::access::Scope;
use hub_core::control::Command;
use hub_core::error::code;
use hub_core::id::{InstanceId, ServiceName};
use hub_core::port::Consistency;
use hub_core::registry::Service;

use super::input::RegistrationInput;
use super::parse;
use super::view::{RegisteredView, ServiceView};
use crate::extract::{Params, if_match, read_body, service_name};
use crate::hub::Hub;
use crate::problem::Problem;
use crate::v1::PREFIX;
use crate::v1::control::{Change, mark, no_service, tag};
use crate::v1::message::read_fault;

/// Most bytes of a registration: a thousand instances with long URLs.
const MAX_BODY: usize = 1 << 20;

/// How often a drain looks whether the backlog is gone.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// Register or update a service
///
/// Registering again is idempotent, and changes what differs; instances that are not named stay. `If-Match` with a
/// revision guards an update. `secret` is shown only in the answer that made it.
#[utoipa::path(
    post,
    path = "/services/register",
    operation_id = "registerService",
    tag = "services",
    params(
        ("If-Match" = Option<String>, Header, description = "Only if the service is at this revision."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare; known for a minute."),
    ),
    request_body = RegistrationInput,
    responses(
        (status = 201, description = "Registered.", body = RegisteredView, headers(
            ("Location" = String, description = "Where the service is shown."),
            ("ETag" = String, description = "Its revision."),
        )),
        (status = 200, description = "Updated, or as it was.", body = RegisteredView, headers(
            ("ETag" = String, description = "Its revision."),
        )),
    ),
)]
pub(super) async fn register(
    State(hub): State<Arc<Hub>>,
    change: Change,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    change.caller.require_any(&[Scope::ServicesRegister, Scope::ClusterAdmin])?;
    params.finish()?;
    let revision = if_match(&change.headers)?;
    let body = read_body(&hub, &change.headers, body, MAX_BODY, false).await?;
    let registration = parse::registration(&body.bytes, revision, fresh_secret(&hub), &hub.urls)?;
    change.caller.require_owner(&registration.name)?;
    let changed = change.propose(&hub, Command::Register(Box::new(registration)), hub.deadline()).await?;
    let index = changed.index;
    let (service, created, secret) = changed.service()?;
    let view = RegisteredView { service: ServiceView::from(&*service), revision: service.revision, secret };
    let mut response = Json(view).into_response();
    *response.status_mut() = if created { StatusCode::CREATED } else { StatusCode::OK };
    mark_changed(&hub, &mut response, &service, index);
    if created && let Ok(place) = HeaderValue::from_str(&format!("{PREFIX}/services/{}", service.name)) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

/// Says which revision of a service is shown, and which log index was written.
pub(super) fn mark_changed(hub: &Hub, response: &mut Response, service: &Service, index: u64) {
    mark(hub, response.headers_mut(), index, Consistency::Linearizable);
    tag(response.headers_mut(), service);
}

/// A signing secret: `whsec_` and base64 of 32 random bytes.
pub(super) fn fresh_secret(hub: &Hub) -> Arc<str> {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    hub.ids.secret(&mut bytes);
    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes)).into()
}

/// Remove a service
///
/// Its messages wait until it registers again, or become dead letters. With `drain=true` its backlog must be gone first:
/// that is waited for, at most a minute.
#[utoipa::path(
    delete,
    path = "/services/{name}",
    operation_id = "deregisterService",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("drain" = Option<bool>, Query, description = "Wait for the backlog first."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare; known for a minute."),
    ),
    responses((status = 204, description = "Removed.")),
)]
pub(super) async fn deregister(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path(name): Path<String>,
    mut params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let service = owned(&change, &name)?;
    let drain = params.flag("drain");
    params.later("force");
    change.bare(&hub, params, body).await?;
    if drain {
        drained(&hub, &service, hub.long_deadline()).await?;
    }
    let changed = change.propose(&hub, Command::Deregister { service }, hub.deadline()).await?;
    Ok(removed(&hub, changed.index))
}

/// Waits until nothing is open for the service.
async fn drained(hub: &Hub, service: &ServiceName, deadline: Instant) -> Result<(), Problem> {
    if !hub.read_control(true, deadline).await?.services.contains_key(service) {
        return Err(no_service(service));
    }
    loop {
        let backlog = hub.store_call(deadline, hub.store.backlog(service)).await.map_err(read_fault)?;
        if backlog.depth == 0 {
            return Ok(());
        }
        if hub.clock.instant() + DRAIN_LOOK >= deadline {
            let detail =
                format!("{} messages are still open for {service}; it stays registered", backlog.depth);
            return Err(Problem::new(code::BACKLOG_LEFT, detail).retry_after(Duration::from_secs(5)));
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Remove an instance
#[utoipa::path(
    delete,
    path = "/services/{name}/instances/{id}",
    operation_id = "deregisterInstance",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("id" = String, Path, description = "The instance's id."),
        ("Hub-Reason" = Option<String>, Header, description = "Why, for the record."),
        ("Idempotency-Key" = Option<String>, Header, description = "Up to 255 characters, in quotes or bare; known for a minute."),
    ),
    responses((status = 204, description = "Removed.")),
)]
pub(super) async fn deregister_instance(
    State(hub): State<Arc<Hub>>,
    change: Change,
    Path((name, id)): Path<(String, String)>,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let service = owned(&change, &name)?;
    change.bare(&hub, params, body).await?;
    let command = Command::DeregisterInstance { service, instance: instance_id(&id)? };
    let changed = change.propose(&hub, command, hub.deadline()).await?;
    Ok(removed(&hub, changed.index))
}

/// The service of a path, if the caller may change it.
pub(super) fn owned(change: &Change, name: &str) -> Result<ServiceName, Problem> {
    change.caller.require_any(&[Scope::ServicesRegister, Scope::ClusterAdmin])?;
    let service = service_name(name)?;
    change.caller.require_owner(&service)?;
    Ok(service)
}

/// An instance named in a path. What cannot be an id cannot exist.
pub(super) fn instance_id(text: &str) -> Result<InstanceId, Problem> {
    text.parse().map_err(|_| Problem::new(code::NO_INSTANCE, "no instance can have this id"))
}

fn removed(hub: &Hub, index: u64) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    mark(hub, response.headers_mut(), index, Consistency::Linearizable);
    response
}
