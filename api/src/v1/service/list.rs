//! Reading the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use hub_core::access::Scope;
use hub_core::control;
use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_core::port::Consistency;
use hub_core::registry::Service;

use super::health_view::{HealthSummary, HealthSummaryPage, ServiceHealth, ServiceStatus};
use super::view::{BacklogView, RoutesView, ServicePage, ServiceView};
use crate::extract::{Caller, Params, service_name};
use crate::hub::Hub;
use crate::problem::Problem;
use crate::v1::control::{HUB_CONSISTENCY, Seen, read, tag, word};
use crate::v1::message::read_fault;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;

/// What may read the whole registry.
const READERS: [Scope; 2] = [Scope::ServicesRead, Scope::ClusterAdmin];

/// May read this service: it is the caller itself, or the caller reads them all.
fn may_read(caller: &Caller, service: &ServiceName) -> Result<(), Problem> {
    if caller.0.has(Scope::ServicesRegister) && caller.0.is(service) {
        Ok(())
    } else {
        caller.require_any(&READERS)
    }
}

/// The services of one page.
struct Selection {
    tag: Option<String>,
    status: Option<ServiceStatus>,
    after: Option<ServiceName>,
    limit: usize,
}

impl Selection {
    fn read(params: &mut Params) -> Self {
        let word = params.text("status");
        let status = word.as_deref().and_then(ServiceStatus::parse);
        if word.is_some() && status.is_none() {
            params.wrong("`status` must be passing, warning, critical or maintenance");
        }
        let after = params.parsed("cursor", "the `next_cursor` of the page before");
        let limit = params.number("limit", 1, MAX_LIMIT).unwrap_or(DEFAULT_LIMIT) as usize;
        Self { tag: params.text("tag"), status, after, limit }
    }

    fn fits(&self, service: &Service) -> bool {
        self.tag.as_deref().is_none_or(|tag| service.tags.iter().any(|own| &**own == tag))
            && self.status.is_none_or(|status| ServiceStatus::of(service) == status)
    }

    /// The page, and where the next one starts.
    fn of<T: for<'a> From<&'a Service>>(&self, state: &control::State) -> (Vec<T>, Option<String>) {
        use std::ops::Bound;
        let start = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut fitting = state
            .services
            .range::<_, ServiceName>((start, Bound::Unbounded))
            .map(|(_, service)| service)
            .filter(|service| self.fits(service));
        let mut items = Vec::new();
        let mut last = None;
        for service in fitting.by_ref().take(self.limit) {
            items.push(T::from(service));
            last = Some(service.name.to_string());
        }
        (items, last.filter(|_| fitting.next().is_some()))
    }
}

/// List services
#[utoipa::path(
    get,
    path = "/services",
    operation_id = "listServices",
    tag = "services",
    params(
        ("tag" = Option<String>, Query, description = "With this tag."),
        ("status" = Option<String>, Query, description = "`passing`, `warning`, `critical` or `maintenance`."),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; default 100.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "A page, by name.", body = ServicePage)),
)]
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    let (seen, items, next_cursor) = page::<ServiceView>(&hub, &caller, params).await?;
    Ok(seen.answer(&hub, Json(ServicePage { items, next_cursor })))
}

/// One page of the registry, and where the next one starts.
async fn page<T: for<'a> From<&'a Service>>(
    hub: &Hub,
    caller: &Caller,
    mut params: Params,
) -> Result<(Seen, Vec<T>, Option<String>), Problem> {
    caller.require_any(&READERS)?;
    let consistency = params.consistency();
    let selection = Selection::read(&mut params);
    params.finish()?;
    let seen = read(hub, consistency).await?;
    let (items, next) = selection.of(&seen.state);
    Ok((seen, items, next))
}

/// Show a service
#[utoipa::path(
    get,
    path = "/services/{name}",
    operation_id = "getService",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "The service.", body = ServiceView, headers(
        ("ETag" = String, description = "Its revision."),
    ))),
)]
pub(super) async fn get(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    let (seen, service) = one(&hub, &caller, &name, params).await?;
    let mut response = seen.answer(&hub, Json(ServiceView::from(&*service)));
    tag(response.headers_mut(), &service);
    Ok(response)
}

/// One service of the registry.
async fn one(
    hub: &Hub,
    caller: &Caller,
    name: &str,
    mut params: Params,
) -> Result<(Seen, Arc<Service>), Problem> {
    let name = service_name(name)?;
    may_read(caller, &name)?;
    let consistency = params.consistency();
    params.finish()?;
    let seen = read(hub, consistency).await?;
    let service = seen.service(&name)?;
    Ok((seen, service))
}

/// Where to call a service
///
/// The instances that deliveries may go to; without those that are critical or under maintenance.
#[utoipa::path(
    get,
    path = "/services/{name}/routes",
    operation_id = "getServiceRoutes",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "The instances.", body = RoutesView)),
)]
pub(super) async fn routes(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    let (seen, service) = one(&hub, &caller, &name, params).await?;
    Ok(seen.answer(&hub, Json(RoutesView::from(&*service))))
}

/// How a service fares
///
/// Each instance is checked by one node. The last result is shown by that node only: `checked_by` names it.
#[utoipa::path(
    get,
    path = "/services/{name}/health",
    operation_id = "getServiceHealth",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service's name."),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "The service and each of its instances.", body = ServiceHealth)),
)]
pub(super) async fn health(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    let (seen, service) = one(&hub, &caller, &name, params).await?;
    let view = ServiceHealth::new(&service, &hub.health.reports(&service.name));
    Ok(seen.answer(&hub, Json(view)))
}

/// How all services fare
#[utoipa::path(
    get,
    path = "/services/health",
    operation_id = "listServiceHealth",
    tag = "services",
    params(
        ("tag" = Option<String>, Query, description = "With this tag."),
        ("status" = Option<String>, Query, description = "`passing`, `warning`, `critical` or `maintenance`."),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; default 100.", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has; default `linearizable`."),
    ),
    responses((status = 200, description = "A page, by name.", body = HealthSummaryPage)),
)]
pub(super) async fn health_of_all(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    let (seen, items, next_cursor) = page::<HealthSummary>(&hub, &caller, params).await?;
    Ok(seen.answer(&hub, Json(HealthSummaryPage { items, next_cursor })))
}

/// What waits for a service
///
/// From counters, never from a scan; may lag a little behind writes. A service that is not registered can have a backlog.
#[utoipa::path(
    get,
    path = "/services/{name}/backlog",
    operation_id = "getServiceBacklog",
    tag = "services",
    params(("name" = String, Path, description = "The service's name.")),
    responses((status = 200, description = "The backlog.", body = BacklogView)),
)]
pub(super) async fn backlog(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    let name = service_name(&name)?;
    if !(caller.0.has(Scope::MessagesRead) && caller.0.is(&name)) {
        caller.require_any(&[Scope::ServicesRead, Scope::MessagesAdmin, Scope::ClusterAdmin])?;
    }
    params.finish()?;
    let deadline = hub.deadline();
    let backlog = hub.store_call(deadline, hub.store.backlog(&name)).await.map_err(read_fault)?;
    let known = backlog.accepted_total > 0 || backlog.depth > 0 || (hub.view)().services.contains_key(&name);
    if !known && !hub.read_control(true, deadline).await?.services.contains_key(&name) {
        return Err(Problem::new(
            code::NO_SERVICE,
            format!("no service {name} is registered, and nothing waits for it"),
        ));
    }
    let mut response = Json(BacklogView::new(&name, &backlog, hub.clock.now())).into_response();
    response.headers_mut().insert(HUB_CONSISTENCY, HeaderValue::from_static(word(Consistency::Stale)));
    Ok(response)
}
