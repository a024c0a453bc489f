//! May this target be called now? The one place that decides it.

use crate::registry::Service;
use crate::time::Timestamp;

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Call it.
    Yes,
    /// The service is not registered.
    NoTarget,
    /// An operator paused its deliveries.
    Paused,
    /// No instance may get deliveries.
    NoInstance,
    /// The target asked to be left alone until then.
    SlowedUntil(Timestamp),
}

/// Decides from the replicated registry and what this node heard from the target. Pure.
#[must_use]
pub fn may_call(service: Option<&Service>, slowed_until: Option<Timestamp>, now: Timestamp) -> Admission {
    let Some(service) = service else { return Admission::NoTarget };
    if service.paused {
        return Admission::Paused;
    }
    if service.deliverable().next().is_none() {
        return Admission::NoInstance;
    }
    match slowed_until {
        Some(until) if until > now => Admission::SlowedUntil(until),
        _ => Admission::Yes,
    }
}
