//! What every read and write of the control state shares: barriers, request ids, and the headers that say what was seen.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::ETAG;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use hub_core::control::{Command, Reply, State};
use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_core::port::Consistency;
use hub_core::registry::Service;

use crate::extract::{Caller, Params, no_condition, refuse_body, request_id};
use crate::hub::Hub;
use crate::problem::Problem;

/// `Hub-Revision`: the log index that was seen or written.
pub(crate) const HUB_REVISION: HeaderName = HeaderName::from_static("hub-revision");
/// `Hub-Consistency`: `linearizable`, or `stale` for what may lag; lists of messages always may.
pub(crate) const HUB_CONSISTENCY: HeaderName = HeaderName::from_static("hub-consistency");
/// `Hub-Known-Leader`: the leader of `control`, as this node knows.
pub(crate) const HUB_KNOWN_LEADER: HeaderName = HeaderName::from_static("hub-known-leader");

/// The control state for a read, and how fresh it is.
pub(crate) struct Seen {
    /// The state.
    pub(crate) state: State,
    consistency: Consistency,
}

/// Reads the control state.
pub(crate) async fn read(hub: &Hub, consistency: Consistency) -> Result<Seen, Problem> {
    let fresh = consistency == Consistency::Linearizable;
    let state = hub.read_control(fresh, hub.deadline()).await?;
    Ok(Seen { state, consistency })
}

impl Seen {
    /// A registered service.
    pub(crate) fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Problem> {
        self.state.services.get(name).cloned().ok_or_else(|| no_service(name))
    }

    /// An answer that says what it was read from.
    pub(crate) fn answer(&self, hub: &Hub, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        mark(hub, response.headers_mut(), self.state.revision, self.consistency);
        response
    }
}

/// Says what an answer was read from.
pub(crate) fn mark(hub: &Hub, headers: &mut HeaderMap, revision: u64, consistency: Consistency) {
    headers.insert(HUB_REVISION, HeaderValue::from(revision));
    headers.insert(HUB_CONSISTENCY, HeaderValue::from_static(word(consistency)));
    if let Some(leader) = hub.control.leadership().leader {
        headers.insert(HUB_KNOWN_LEADER, HeaderValue::from(leader.0));
    }
}

/// Says which revision of a service is shown.
pub(crate) fn tag(headers: &mut HeaderMap, service: &Service) {
    if let Ok(revision) = HeaderValue::from_str(&format!("\"{}\"", service.revision)) {
        headers.insert(ETAG, revision);
    }
}

/// There is no such service.
pub(crate) fn no_service(name: &ServiceName) -> Problem {
    Problem::new(code::NO_SERVICE, format!("no service {name} is registered"))
}

/// The word for a consistency.
pub(crate) const fn word(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Stale => "stale",
    }
}

/// A change that someone asks for.
pub(crate) struct Change {
    /// Who asks.
    pub(crate) caller: Caller,
    /// The request's headers.
    pub(crate) headers: HeaderMap,
    method: Method,
    uri: Uri,
}

impl FromRequestParts<Arc<Hub>> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let caller = Caller::of(parts, hub)?;
        let (headers, method, uri) = (parts.headers.clone(), parts.method.clone(), parts.uri.clone());
        Ok(Self { caller, headers, method, uri })
    }
}

/// A service after a change, whether it is new, and its secret if it may be shown.
pub(crate) type Shown = (Arc<Service>, bool, Option<Arc<str>>);

/// What a change led to.
pub(crate) struct Changed {
    /// Log index of the change.
    pub(crate) index: u64,
    /// What the state machine answered; never a refusal.
    pub(crate) reply: Reply,
}

impl Change {
    /// Refuses what a change that is said by its path alone does not take: a query, a condition, a body.
    pub(crate) async fn bare(&self, hub: &Hub, params: Params, body: Body) -> Result<(), Problem> {
        params.finish()?;
        no_condition(&self.headers)?;
        refuse_body(hub, body).await
    }

    /// Proposes the command, and writes the audit record when it took effect.
    pub(crate) async fn propose(
        &self,
        hub: &Hub,
        command: Command,
        deadline: Instant,
    ) -> Result<Changed, Problem> {
        let request = request_id(&self.headers, &self.caller, &self.method, self.uri.path(), &*hub.ids)?;
        let committed = hub.propose(request, command, deadline).await?;
        match committed.reply {
            Reply::Refused(refusal) => Err(refusal.into()),
            Reply::Skipped => {
                tracing::error!("the leader skipped a command that this node proposed");
                Err(Problem::internal())
            }
            reply => {
                self.audit();
                Ok(Changed { index: committed.index, reply })
            }
        }
    }

    /// Who changed what, for the record.
    pub(crate) fn audit(&self) {
        tracing::info!(
            target: "hub_api::audit",
            subject = self.caller.0.subject,
            method = %self.method,
            path = self.uri.path(),
            reason = self.headers.get("hub-reason").and_then(|value| value.to_str().ok()),
            "changed"
        );
    }
}

impl Changed {
    /// The service in the reply, with whether it is new and its secret if it may be shown.
    pub(crate) fn service(self) -> Result<Shown, Problem> {
        match self.reply {
            Reply::Service { service, created, secret } => Ok((service, created, secret)),
            other => {
                tracing::error!(reply = ?other, "a change of a service was answered with something else");
                Err(Problem::internal())
            }
        }
    }
}
