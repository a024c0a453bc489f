//! How a record moves: what every transition has in common.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Closed, Config, Mode, Phase, Record, State, Vote};
use crate::hash::StableHash;
use crate::id::{NodeId, ServiceName};
use crate::time::Timestamp;

/// Why a record moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The votes were counted, and it opened.
    Votes {
        /// Nodes that called the target unhealthy.
        unhealthy: u32,
        /// Nodes that objected.
        objections: u32,
    },
    /// The same in mode observe: it would have opened.
    WouldOpen {
        /// Nodes that called the target unhealthy.
        unhealthy: u32,
        /// Nodes that objected.
        objections: u32,
    },
    /// A node got the probe.
    ProbeGranted,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// A probe failed.
    ProbeFailed,
    /// A probe was throttled.
    ProbeThrottled,
    /// The probe's lease ended without a report.
    LeaseEnded,
    /// An operator set this mode.
    ModeSet {
        /// Which.
        mode: Mode,
    },
    /// This mode's time was over.
    ModeEnded {
        /// Which.
        mode: Mode,
    },
    /// An operator closed it and zeroed its counters.
    Reset,
    /// An operator changed its settings.
    Configured,
}

/// Who moved it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Who {
    /// The nodes together.
    Cluster,
    /// This node.
    Node {
        /// Which.
        node: NodeId,
    },
    /// An operator.
    Operator {
        /// Who.
        actor: Arc<str>,
        /// In the operator's words, why.
        reason: Option<Arc<str>>,
    },
}

/// One move, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub at: Timestamp,
    /// The record's epoch from then on.
    pub epoch: u64,
    /// From this state.
    pub from: State,
    /// To this one.
    pub to: State,
    /// Why.
    pub why: Why,
    /// By whom.
    pub who: Who,
}

/// Why a breaker did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The record is at another epoch.
    #[error("the breaker is at epoch {current}")]
    Stale {
        /// Its current one.
        current: u64,
    },
    /// It is not open: there is nothing to probe.
    #[error("the breaker is not open")]
    NotOpen,
    /// It is too early for a probe.
    #[error("the next probe may begin at {retry_at}")]
    NotDue {
        /// When it may.
        retry_at: Timestamp,
    },
    /// A node has the probe already.
    #[error("node {node} has the probe until {until}")]
    ProbeTaken {
        /// Who.
        node: NodeId,
        /// Until when at most.
        until: Timestamp,
    },
    /// The reporting node does not have the probe.
    #[error("the node does not have the probe")]
    NotHolder,
    /// An operator decides at the moment.
    #[error("the breaker is in mode {}", .mode.as_str())]
    Mode {
        /// Its mode.
        mode: Mode,
    },
    /// Nodes' verdicts count only while it is closed.
    #[error("the breaker is not closed")]
    NotClosed,
    /// The calls that the verdict rests on do not make one under the breaker's settings.
    #[error("the evidence does not support the verdict")]
    NoEvidence,
}

/// What a transition needs to know besides the record.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose breaker.
    pub service: &'a ServiceName,
    /// The state's time.
    pub clock: Timestamp,
    /// How many nodes may vote.
    pub nodes: usize,
    /// How long a delivery may take, as the service is registered.
    pub delivery_timeout: Duration,
    /// The cluster's default settings.
    pub defaults: &'a Config,
}

/// How long a breaker stays open that opened `trips` times: doubled each time up to the most, and up to 20 % more, spread by
/// service and epoch so that targets that fell together do not all come back together.
#[must_use]
pub fn open_time(service: &ServiceName, epoch: u64, trips: u32, config: &Config) -> Duration {
    let most = config.max_open().as_millis();
    let doubled = config.reset_timeout().as_millis() << trips.saturating_sub(1).min(32);
    let base = u64::try_from(doubled.min(most)).unwrap_or(u64::MAX);
    let spread = StableHash::default().text(service.as_str()).number(epoch).finish() % 201;
    Duration::from_millis(base.saturating_add(base.saturating_mul(spread) / 1_000))
}

impl Vote {
    /// It is older than the window: it counts no more.
    #[must_use]
    pub fn has_lapsed(&self, config: &Config, now: Timestamp) -> bool {
        now.since(self.at) > config.window()
    }
}

impl Record {
    /// Refuses what was decided on another state of this record. Changes nothing.
    pub(super) const fn expect(&self, epoch: u64) -> Result<(), Refused> {
        if self.epoch == epoch { Ok(()) } else { Err(Refused::Stale { current: self.epoch }) }
    }

    /// Goes to `phase` at a new epoch, and notes it.
    pub(super) fn go(&mut self, cx: &Context<'_>, phase: Phase, why: Why, who: Who) {
        let from = self.state();
        self.epoch = self.epoch.saturating_add(1);
        self.phase = phase;
        self.note(cx, from, why, who);
    }

    pub(super) fn note(&mut self, cx: &Context<'_>, from: State, why: Why, who: Who) {
        let to = self.state();
        self.transitions.push_back(Transition { at: cx.clock, epoch: self.epoch, from, to, why, who });
        while self.transitions.len() > Self::TRANSITIONS {
            self.transitions.pop_front();
        }
    }

    /// Opens for a time that grows with `trip_count`, which is to be counted up before. What the target asked for can only
    /// make it longer, up to the most.
    pub(super) fn open(&mut self, cx: &Context<'_>, asked_until: Option<Timestamp>, why: Why, who: Who) {
        let config = self.settings(cx.defaults);
        let opened_at = match &self.phase {
            Phase::Closed(_) => cx.clock,
            Phase::Open { opened_at, .. } | Phase::HalfOpen { opened_at, .. } => *opened_at,
        };
        let own =
            cx.clock.plus(open_time(cx.service, self.epoch.saturating_add(1), self.trip_count, &config));
        let asked_until = asked_until.map(|until| until.min(cx.clock.plus(config.max_open())));
        let retry_at = asked_until.map_or(own, |until| until.max(own));
        self.go(cx, Phase::Open { opened_at, retry_at, asked_until }, why, who);
    }

    /// Closes: what nodes saw before is forgotten.
    pub(super) fn close(&mut self, cx: &Context<'_>, why: Why, who: Who) {
        let closed = Closed { healthy_since: Some(cx.clock), ..Closed::default() };
        (self.successes, self.failure_count) = (0, 0);
        self.closed_epoch = self.epoch.saturating_add(1);
        self.go(cx, Phase::Closed(closed), why, who);
    }

    /// Does what time alone has brought about by now.
    pub(super) fn touch(&mut self, cx: &Context<'_>) {
        self.end_mode(cx);
        if let Phase::HalfOpen { opened_at, probe } = self.phase
            && probe.lease_until <= cx.clock
        {
            let phase = Phase::Open { opened_at, retry_at: probe.lease_until, asked_until: None };
            self.go(cx, phase, Why::LeaseEnded, Who::Node { node: probe.node });
        }
        self.settle(cx);
    }

    fn end_mode(&mut self, cx: &Context<'_>) {
        if self.mode == Mode::Auto || self.mode_until.is_some_and(|until| until > cx.clock) {
            return;
        }
        let mode = self.mode;
        (self.mode, self.mode_until, self.actor, self.reason) = (Mode::Auto, None, None, None);
        // Nodes say again what they think; a breaker that was held open is probed before it closes.
        let phase = match &self.phase {
            Phase::Closed(_) => Phase::Closed(Closed { healthy_since: Some(cx.clock), ..Closed::default() }),
            other => other.clone(),
        };
        self.go(cx, phase, Why::ModeEnded { mode }, Who::Cluster);
    }

    /// While closed: drops votes that have lapsed, and lets `trip_count` fall.
    fn settle(&mut self, cx: &Context<'_>) {
        let config = self.settings(cx.defaults);
        let trips = self.trips_at(cx.defaults, cx.clock);
        let terms = match &self.phase {
            Phase::Closed(Closed { healthy_since: Some(since), .. }) => {
                self.healthy_terms(cx.defaults, *since, cx.clock)
            }
            _ => 0,
        };
        self.trip_count = trips;
        let Phase::Closed(closed) = &mut self.phase else { return };
        closed.votes.retain(|_, vote| !vote.has_lapsed(&config, cx.clock));
        if let Some(since) = &mut closed.healthy_since {
            *since = since.plus(config.reset_timeout().saturating_mul(terms));
        }
        closed.mark_health(cx.clock);
    }
}

impl Closed {
    /// Keeps `healthy_since` and `decide_at` in step with the votes.
    pub(super) fn mark_health(&mut self, clock: Timestamp) {
        if self.is_accused() {
            self.healthy_since = None;
        } else {
            self.decide_at = None;
            self.healthy_since = self.healthy_since.or(Some(clock));
        }
    }

    pub(super) fn is_accused(&self) -> bool {
        self.votes.values().any(Vote::accuses)
    }
}
