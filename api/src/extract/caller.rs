//! The caller, from the bearer token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use hub_core::access::{Principal, Scope};
use hub_core::error::code;
use hub_core::id::ServiceName;
use hub_core::message::Message;

use crate::auth::{Access, TokenError};
use crate::hub::Hub;
use crate::problem::Problem;

/// A verified caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) Arc<Principal>);

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Problem> {
        Self::of(parts, hub)
    }
}

impl Caller {
    /// Reads and verifies the token.
    pub(crate) fn of(parts: &Parts, hub: &Hub) -> Result<Self, Problem> {
        let verifier = match &hub.access {
            Access::Open(everyone) => return Ok(Self(Arc::clone(everyone))),
            Access::Tokens(verifier) => verifier,
        };
        let header = parts.headers.get(AUTHORIZATION).ok_or_else(no_token)?;
        let text = header.to_str().map_err(|_| no_token())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(no_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(no_token());
        }
        verifier.verify(token.trim(), hub.clock.wall()).map(Self).map_err(refused)
    }

    /// Has at least one of `scopes`.
    pub(crate) fn require_any(&self, scopes: &[Scope]) -> Result<(), Problem> {
        if scopes.iter().any(|scope| self.0.has(*scope)) {
            return Ok(());
        }
        let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        Err(Problem::new(code::SCOPE, format!("the token needs the scope {}", names.join(" or "))))
    }

    /// Has the scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Problem> {
        self.require_any(&[scope])
    }

    /// May register and change `service`.
    pub(crate) fn require_owner(&self, service: &ServiceName) -> Result<(), Problem> {
        self.require_any(&[Scope::ServicesRegister, Scope::ClusterAdmin])?;
        if self.0.may_register(service) {
            return Ok(());
        }
        Err(foreign(&self.0, "registers and changes", service))
    }

    /// May send as `service`.
    pub(crate) fn require_sender(&self, service: &ServiceName) -> Result<(), Problem> {
        if self.0.may_send_as(service) { Ok(()) } else { Err(foreign(&self.0, "sends", service)) }
    }

    /// Is an administrator, or the message's sender or target.
    pub(crate) fn takes_part_in(&self, message: &Message) -> bool {
        self.0.has(Scope::MessagesAdmin) || self.0.is(&message.sender) || self.0.is(&message.target)
    }
}

fn foreign(caller: &Principal, does: &str, service: &ServiceName) -> Problem {
    Problem::new(
        code::FOREIGN_SERVICE,
        format!("the token's service is {:?}: it {does} only as itself, not as {service}", caller.subject),
    )
}

fn no_token() -> Problem {
    Problem::new(code::NO_TOKEN, "the call needs `Authorization: Bearer TOKEN`")
}

fn refused(error: TokenError) -> Problem {
    match error {
        TokenError::Expired | TokenError::NotYet => Problem::new(code::EXPIRED_TOKEN, error.to_string()),
        _ => Problem::new(code::BAD_TOKEN, error.to_string()),
    }
}
