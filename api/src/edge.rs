//! The outermost layer of every request: its place among those at work, its trace, panics, problems, metrics, the log.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hub_core::error::code;

use crate::extract::{REQUEST_ID, Trace};
use crate::hub::Hub;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::request_log::Answered;

/// `Hub-Node`: the node that answered.
pub(crate) const HUB_NODE: HeaderName = HeaderName::from_static("hub-node");

/// Stands for every path that has no route, so that callers cannot make labels.
const UNMATCHED: &str = "unmatched";

/// Paths that are answered however busy the node is.
const ALWAYS: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

/// What is known of a request before it is handled.
struct Arrival {
    started: std::time::Instant,
    trace: Trace,
    route: Option<MatchedPath>,
    method: Method,
    uri: Uri,
}

impl Arrival {
    fn route(&self) -> &str {
        self.route.as_ref().map_or(UNMATCHED, MatchedPath::as_str)
    }
}

/// Handles one request.
pub(crate) async fn edge(State(hub): State<Arc<Hub>>, mut request: Request, next: Next) -> Response {
    let arrival = Arrival {
        started: hub.clock.instant(),
        trace: Trace::of(request.headers(), &*hub.ids),
        route: request.extensions().get::<MatchedPath>().cloned(),
        method: request.method().clone(),
        uri: request.uri().clone(),
    };
    request.extensions_mut().insert(arrival.trace.clone());
    let place = hub.enter();
    let response = if place.is_some() || ALWAYS.contains(&arrival.route()) {
        AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|panic| {
            tracing::error!(
                panic = panic_text(&*panic),
                route = arrival.route(),
                "a request's handler panicked"
            );
            Problem::internal().into_response()
        })
    } else {
        hub.metrics.rejected("in_flight");
        Problem::new(code::OVERLOADED, "too many requests wait in this node")
            .retry_after(Duration::from_secs(1))
            .into_response()
    };
    finish(&hub, &arrival, response)
}

fn finish(hub: &Hub, arrival: &Arrival, mut response: Response) -> Response {
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| foreign_problem(&response));
    if let Some(problem) = &problem {
        let rendered = problem.render(&arrival.trace.id, arrival.uri.path());
        let kept = std::mem::replace(&mut response, rendered);
        for (name, value) in kept.headers() {
            if name.as_str().starts_with("hub-") || name == ALLOW {
                response.headers_mut().insert(name.clone(), value.clone());
            }
        }
    }
    let headers = response.headers_mut();
    headers.insert(HUB_NODE, HeaderValue::from(hub.cluster.node_id().0));
    headers.insert(REQUEST_ID, arrival.trace.echo.clone());
    let now = hub.clock.instant();
    let elapsed = now.saturating_duration_since(arrival.started);
    hub.metrics.answered(arrival.route(), &arrival.method, response.status(), elapsed.as_secs_f64());
    let answered = Answered {
        method: &arrival.method,
        uri: &arrival.uri,
        trace: &arrival.trace,
        status: response.status(),
        problem: problem.as_ref(),
        elapsed,
        is_probe: ALWAYS.contains(&arrival.route()),
    };
    hub.request_log.write(&answered, now);
    response
}

/// The problem of an answer that was made by the framework, without one.
fn foreign_problem(response: &Response) -> Option<Problem> {
    let status = response.status();
    let is_problem = || response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    if !(status.is_client_error() || status.is_server_error()) || is_problem() {
        return None;
    }
    Some(match status {
        StatusCode::NOT_FOUND => Problem::new(code::NO_ROUTE, "nothing is served under this path"),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(code::METHOD, "the path does not take this method"),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(code::TOO_LARGE, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(code::MEDIA_TYPE, "the body's type is not taken"),
        status if status.is_client_error() => Problem::new(code::BAD_REQUEST, "the request cannot be read"),
        _ => Problem::internal(),
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
