//! The probe: one lease in the whole cluster, and what its holder reports.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, Context, Mode, Phase, Probe, Record, Refused, Who, Why};
use crate::delivery::Evidence;
use crate::id::NodeId;
use crate::time::Timestamp;

/// How long after it got the lease a holder may begin a delivery.
const BEGIN: Duration = Duration::from_secs(3);
/// How long the lease outlasts a delivery that began at the last moment: so far the clocks of the holder and of a later leader
/// may differ, and two probes still do not meet.
const SKEW: Duration = Duration::from_secs(2);

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The target answered as it should.
    Succeeded,
    /// It failed.
    Failed {
        /// It asked to be left alone for so long, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// It asked for less.
    Throttled {
        /// It asked to be left alone for so long, in milliseconds.
        retry_after_ms: Option<u64>,
    },
}

impl Outcome {
    /// Of a call; `None` if it says nothing about the target: then the lease goes on.
    #[must_use]
    pub fn of(call: &Call) -> Option<Self> {
        let retry_after_ms = call.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        match call.evidence {
            Evidence::Success => Some(Self::Succeeded),
            Evidence::Failure => Some(Self::Failed { retry_after_ms }),
            Evidence::Throttle => Some(Self::Throttled { retry_after_ms }),
            Evidence::NotCounted => None,
        }
    }
}

fn lease(cx: &Context<'_>, node: NodeId) -> Probe {
    let begin_before = cx.clock.plus(BEGIN);
    let lease_until = begin_before.plus(cx.delivery_timeout).plus(SKEW);
    Probe { node, granted_at: cx.clock, begin_before, lease_until }
}

impl Record {
    /// A node that holds a due message asks for the probe.
    ///
    /// # Errors
    /// [`Refused`] if it asked on another epoch, or if there is nothing to probe, or not yet, or not by this node.
    pub fn ask_probe(&mut self, cx: &Context<'_>, node: NodeId, epoch: u64) -> Result<(), Refused> {
        // Who asks again after a lease that has just ended, ended it: it need not ask twice.
        self.expect(epoch)?;
        let ended = matches!(&self.phase, Phase::HalfOpen { probe, .. } if probe.lease_until <= cx.clock);
        self.touch(cx);
        if !ended {
            self.expect(epoch)?;
        }
        if self.mode != Mode::Auto {
            return Err(Refused::Mode { mode: self.mode });
        }
        match &self.phase {
            Phase::Closed(_) => Err(Refused::NotOpen),
            Phase::HalfOpen { probe, .. } => {
                Err(Refused::ProbeTaken { node: probe.node, until: probe.lease_until })
            }
            Phase::Open { retry_at, .. } if *retry_at > cx.clock => {
                Err(Refused::NotDue { retry_at: *retry_at })
            }
            Phase::Open { opened_at, .. } => {
                let phase = Phase::HalfOpen { opened_at: *opened_at, probe: lease(cx, node) };
                self.go(cx, phase, Why::ProbeGranted, Who::Node { node });
                Ok(())
            }
        }
    }

    /// The holder reports. Each epoch takes one report: a success that does not close the breaker yet renews the lease at
    /// a new epoch.
    ///
    /// # Errors
    /// [`Refused`] if the lease is no longer the one of that epoch, or is another node's.
    pub fn probe_done(
        &mut self,
        cx: &Context<'_>,
        node: NodeId,
        epoch: u64,
        outcome: Outcome,
    ) -> Result<(), Refused> {
        self.expect(epoch)?;
        self.touch(cx);
        self.expect(epoch)?;
        let Phase::HalfOpen { opened_at, probe } = self.phase else { return Err(Refused::NotOpen) };
        if probe.node != node {
            return Err(Refused::NotHolder);
        }
        let (retry_after_ms, why) = match outcome {
            Outcome::Succeeded => {
                self.last_success = self.last_success.max(Some(cx.clock));
                self.successes = self.successes.saturating_add(1);
                if self.successes >= self.settings(cx.defaults).success_threshold {
                    self.close(cx, Why::ProbesSucceeded, Who::Node { node });
                } else {
                    self.epoch = self.epoch.saturating_add(1);
                    self.phase = Phase::HalfOpen { opened_at, probe: lease(cx, node) };
                }
                return Ok(());
            }
            Outcome::Failed { retry_after_ms } => (retry_after_ms, Why::ProbeFailed),
            Outcome::Throttled { retry_after_ms } => (retry_after_ms, Why::ProbeThrottled),
        };
        self.last_failure = self.last_failure.max(Some(cx.clock));
        (self.successes, self.failure_count) = (0, 1);
        self.trip_count = self.trip_count.saturating_add(1);
        let asked = retry_after_ms.map(|wait| cx.clock.plus(Duration::from_millis(wait)));
        self.open(cx, asked, why, Who::Node { node });
        Ok(())
    }

    /// It is open, by itself, for longer than until `clock`.
    #[must_use]
    pub fn waits_past(&self, clock: Timestamp) -> bool {
        self.mode == Mode::Auto && matches!(&self.phase, Phase::Open { retry_at, .. } if *retry_at > clock)
    }

    /// An instance's health check turned green: the next probe may come at once, unless the target itself asked for more
    /// time. It never closes a breaker.
    pub fn looks_healthy(&mut self, clock: Timestamp) {
        if self.waits_past(clock)
            && let Phase::Open { retry_at, asked_until, .. } = &mut self.phase
        {
            *retry_at = (*retry_at).min(asked_until.map_or(clock, |until| until.max(clock)));
        }
    }
}
