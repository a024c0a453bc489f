//! The caller of a request.

use std::collections::BTreeSet;

use super::Scope;
use crate::id::ServiceName;

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's subject, as it is written there.
    pub subject: String,
    /// The service that the subject names; `None` if it cannot be a service's name.
    pub service: Option<ServiceName>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
}

impl Principal {
    /// Has the right.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Is the service itself.
    #[must_use]
    pub fn is(&self, service: &ServiceName) -> bool {
        self.service.as_ref() == Some(service)
    }

    /// May send in the name of `service`.
    #[must_use]
    pub fn may_send_as(&self, service: &ServiceName) -> bool {
        self.has(Scope::MessagesAdmin) || (self.has(Scope::MessagesSend) && self.is(service))
    }

    /// May register and change `service`.
    #[must_use]
    pub fn may_register(&self, service: &ServiceName) -> bool {
        self.has(Scope::ClusterAdmin) || (self.has(Scope::ServicesRegister) && self.is(service))
    }
}
