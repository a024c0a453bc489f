//! What the cluster agrees on about one target.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::Vector;
use serde::{Deserialize, Serialize};

use super::{Config, Counts, Stand, Transition};
use crate::id::NodeId;
use crate::time::Timestamp;

/// The three states, without what belongs to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Deliveries go out.
    Closed,
    /// None goes out.
    Open,
    /// One at a time goes out, from one node.
    HalfOpen,
}

impl State {
    /// The word used in interfaces and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The nodes' evidence.
    Auto,
    /// An operator: no delivery goes out.
    ForcedOpen,
    /// An operator: all go out, whatever nodes see.
    ForcedClosed,
    /// All go out; what would have happened is noted.
    Observe,
}

impl Mode {
    /// The word used in interfaces and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Observe => "observe",
        }
    }

    /// Traffic has no say.
    #[must_use]
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::ForcedClosed)
    }
}

/// What one node said about the target. It lapses a window's length later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// When it was said.
    pub at: Timestamp,
    /// For or against opening.
    pub stand: Stand<Timestamp>,
    /// The calls it rests on.
    pub counts: Counts,
    /// The target asked this node to be left alone until then.
    pub asked_until: Option<Timestamp>,
}

/// Closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Closed {
    /// What nodes said, at most one vote each. Nodes that abstain have none.
    pub votes: BTreeMap<NodeId, Vote>,
    /// When the votes are to be counted.
    pub decide_at: Option<Timestamp>,
    /// Since then no node called it unhealthy; what `trip_count` has fallen for already is left out.
    pub healthy_since: Option<Timestamp>,
}

/// The only lease on the target's next delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// Who has it.
    pub node: NodeId,
    /// Since when, or since its last good report.
    pub granted_at: Timestamp,
    /// A delivery may begin before this: one that does has ended, answered or not, when the lease ends.
    pub begin_before: Timestamp,
    /// When it ends, reported or not.
    pub lease_until: Timestamp,
}

/// A state with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Deliveries go out.
    Closed(Closed),
    /// None goes out.
    Open {
        /// Since when, half-open times included.
        opened_at: Timestamp,
        /// From then on a node with a due message may ask for the probe.
        retry_at: Timestamp,
        /// The target itself asked to be left alone until then.
        asked_until: Option<Timestamp>,
    },
    /// One at a time goes out.
    HalfOpen {
        /// Since when it is not closed.
        opened_at: Timestamp,
        /// Who may deliver.
        probe: Probe,
    },
}

/// One service's breaker. A service without one is closed, in mode auto, at epoch 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Rises with each change but votes: whatever carries another epoch has no effect.
    pub epoch: u64,
    /// State.
    pub phase: Phase,
    /// Who decides.
    pub mode: Mode,
    /// When the mode ends; none for auto.
    pub mode_until: Option<Timestamp>,
    /// Who set the mode.
    pub actor: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// The service's own settings; the cluster's defaults if `None`.
    pub config: Option<Config>,
    /// Openings without a long enough healthy time between them: decides how long the next one is.
    pub trip_count: u32,
    /// Probes that succeeded since the last failure.
    pub successes: u32,
    /// Failures in the evidence that decided the last transition.
    pub failure_count: u32,
    /// Newest failure over all nodes that was reported.
    pub last_failure: Option<Timestamp>,
    /// Newest success over all nodes that was reported.
    pub last_success: Option<Timestamp>,
    /// Epoch at which it last closed, by probes or by an operator: nodes then forget what they saw and start slowly.
    pub closed_epoch: u64,
    /// The last transitions, newest last.
    pub transitions: Vector<Transition>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            epoch: 0,
            phase: Phase::Closed(Closed::default()),
            mode: Mode::Auto,
            mode_until: None,
            actor: None,
            reason: None,
            config: None,
            trip_count: 0,
            successes: 0,
            failure_count: 0,
            last_failure: None,
            last_success: None,
            closed_epoch: 0,
            transitions: Vector::new(),
        }
    }
}

impl Record {
    /// Most transitions kept.
    pub const TRANSITIONS: usize = 100;

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Closed(_) => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Its settings, where it has none of its own `defaults`.
    #[must_use]
    pub fn settings(&self, defaults: &Config) -> Config {
        self.config.unwrap_or(*defaults)
    }

    /// When the next delivery may be tried, if not now for all.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Closed(_) => None,
            Phase::Open { retry_at, .. } => Some(*retry_at),
            Phase::HalfOpen { probe, .. } => Some(probe.lease_until),
        }
    }

    /// When the leader must propose an `Advance`, if nothing else comes: votes to count, a lease or a mode that ends.
    /// None for a breaker that rests: it costs no entries.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        let own = match &self.phase {
            Phase::Closed(closed) => closed.decide_at,
            Phase::Open { .. } => None,
            Phase::HalfOpen { probe, .. } => Some(probe.lease_until),
        };
        own.into_iter().chain(self.mode_until).min()
    }

    /// What `trip_count` has fallen to at `now`.
    #[must_use]
    pub fn trips_at(&self, defaults: &Config, now: Timestamp) -> u32 {
        match &self.phase {
            Phase::Closed(Closed { healthy_since: Some(since), .. }) => {
                self.trip_count.saturating_sub(self.healthy_terms(defaults, *since, now))
            }
            _ => self.trip_count,
        }
    }

    /// Whole reset times since `since`.
    pub(super) fn healthy_terms(&self, defaults: &Config, since: Timestamp, now: Timestamp) -> u32 {
        let term = self.settings(defaults).reset_timeout().as_millis().max(1);
        u32::try_from(now.since(since).as_millis() / term).unwrap_or(u32::MAX)
    }
}
