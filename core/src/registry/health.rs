//! Health checks: their settings, the states, and the thresholds between a result and a change of state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the cluster thinks of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answers.
    #[default]
    Passing,
    /// It answers that it is busy (429).
    Warning,
    /// It does not answer, or says that it is not well: it gets no deliveries and is left out of discovery.
    Critical,
}

/// How instances of a service are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// `GET {url}{path}`: 2xx passes, 429 warns, all else fails.
    Http,
    /// Not checked: always passing.
    #[default]
    None,
}

/// A service's check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// How.
    pub kind: CheckKind,
    /// Path for `http`; default `/health`.
    pub path: Arc<str>,
    /// Seconds between checks, 1 to 3600; default 10.
    pub interval_s: u32,
    /// Seconds until a check counts as failed, 1 to 60, at most the interval; default 2.
    pub timeout_s: u32,
    /// Good results in a row until passing again; default 2.
    pub healthy: u8,
    /// Bad results in a row until critical; default 3.
    pub unhealthy: u8,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            kind: CheckKind::None,
            path: "/health".into(),
            interval_s: 10,
            timeout_s: 2,
            healthy: 2,
            unhealthy: 3,
        }
    }
}

/// Counts results in a row and says when the state changes. Lives on the checking node only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthTracker {
    current: Health,
    candidate: Health,
    in_a_row: u8,
}

impl HealthTracker {
    /// Starts from the replicated state.
    #[must_use]
    pub const fn new(current: Health) -> Self {
        Self { current, candidate: current, in_a_row: 0 }
    }

    /// Takes one result; `Some` when the state changes with it.
    pub fn observe(&mut self, result: Health, check: &HealthCheck) -> Option<Health> {
        if result == self.current {
            self.candidate = result;
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row = if result == self.candidate { self.in_a_row.saturating_add(1) } else { 1 };
        self.candidate = result;
        let needed = if result == Health::Critical { check.unhealthy } else { check.healthy };
        if self.in_a_row < needed.max(1) {
            return None;
        }
        self.current = result;
        self.in_a_row = 0;
        Some(result)
    }
}
