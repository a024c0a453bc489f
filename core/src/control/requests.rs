//! The table of request ids: what was told to whom, for a minute, so that a repeat of a request with an unknown outcome
//! takes effect once.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};

use super::{Command, Refusal, Reply, State};
use crate::codec::Command as _;
use crate::hash::StableHash;
use crate::id::{NodeId, RequestId, ServiceName};
use crate::time::Timestamp;

/// What a command was answered, kept small: a service is named, not copied, and shown as it is when it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    Cluster(u128),
    Admitted(NodeId),
    Service { name: ServiceName, created: bool, secret: Option<Arc<str>> },
    Changed(u32),
    Refused(Refusal),
    Breaker(ServiceName),
}

impl Told {
    /// The reply as the state stands. Replies are made after the whole entry was applied, so that one revision of a
    /// service never stands for two contents. A service that is gone again is no service; a secret that no longer signs
    /// is not shown.
    pub(super) fn reply(&self, state: &State) -> Reply {
        match self {
            Self::Done => Reply::Done,
            Self::Cluster(cluster) => Reply::Cluster(*cluster),
            Self::Admitted(node) => Reply::Admitted(*node),
            Self::Service { name, created, secret } => match state.services.get(name) {
                Some(service) => {
                    let signs = |value: &&Arc<str>| service.secrets.iter().any(|held| held.value == **value);
                    let secret = secret.as_ref().filter(signs).cloned();
                    Reply::Service { service: service.clone(), created: *created, secret }
                }
                None => Reply::Refused(Refusal::NoService),
            },
            Self::Changed(count) => Reply::Changed(*count),
            Self::Breaker(service) => match state.services.get(service) {
                Some(_) => Reply::Breaker(state.breakers.get(service).cloned().unwrap_or_default()),
                None => Reply::Refused(Refusal::NoService),
            },
            Self::Refused(refusal) => Reply::Refused(refusal.clone()),
        }
    }
}

/// One request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) fingerprint: u64,
    pub(super) expires_at: Timestamp,
    pub(super) told: Told,
}

/// Requests of the last minute of state time. An entry is never dropped sooner: a full table refuses instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestTable {
    by_id: OrdMap<RequestId, Remembered>,
    /// Oldest first. State time never steps back, so this is the order of expiry too.
    order: Vector<RequestId>,
    capacity: usize,
}

impl Default for RequestTable {
    fn default() -> Self {
        Self { by_id: OrdMap::new(), order: Vector::new(), capacity: Self::CAPACITY }
    }
}

impl RequestTable {
    /// 10,000 requests a second. The same on every node: it decides replies.
    pub(super) const CAPACITY: usize = 600_000;
    /// How long a request is remembered, in state time.
    pub(super) const KEPT: Duration = Duration::from_secs(60);

    #[cfg(test)]
    pub(super) const fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_full(&self) -> bool {
        self.by_id.len() >= self.capacity
    }

    pub(super) fn get(&self, request: &RequestId) -> Option<&Remembered> {
        self.by_id.get(request)
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RequestId, &Remembered)> {
        self.order.iter().filter_map(|request| self.by_id.get_key_value(request))
    }

    /// Appends; a request that is there already stays as it is.
    pub(super) fn push(&mut self, request: RequestId, remembered: Remembered) {
        if !self.by_id.contains_key(&request) {
            self.by_id.insert(request, remembered);
            self.order.push_back(request);
        }
    }

    pub(super) fn expire(&mut self, clock: Timestamp) {
        while let Some(oldest) = self.order.front() {
            if self.by_id.get(oldest).is_some_and(|remembered| remembered.expires_at > clock) {
                return;
            }
            self.by_id.remove(oldest);
            self.order.pop_front();
        }
    }

    /// The queue names each entry of the map once.
    pub(super) fn is_consistent(&self) -> bool {
        self.order.len() == self.by_id.len()
            && self.order.iter().all(|request| self.by_id.contains_key(request))
    }
}

/// What tells a repeat from another command under the same request id. Secrets are left out: each node that a request
/// reaches makes its own. A later shape of a command must keep giving the fingerprint of its first shape for what that
/// could say, since replicas of two versions compare with what either has kept.
pub(super) fn fingerprint(command: &Command) -> u64 {
    let envelope = match command {
        Command::Register(registration) if !registration.fresh_secret.is_empty() => {
            let mut blank = registration.clone();
            blank.fresh_secret = "".into();
            Command::Register(blank).encode()
        }
        Command::RotateSecret { service, .. } => {
            Command::RotateSecret { service: service.clone(), secret: "".into() }.encode()
        }
        other => other.encode(),
    };
    StableHash::default()
        .number(u64::from(envelope.kind))
        .number(u64::from(envelope.version))
        .bytes(&envelope.body)
        .finish()
}
