//! The sweeper: ends messages whose time has come and prunes old ones, on the node that is in charge of them.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::port::{Clock, MessageStore, StoreError, SweepReport};
use hub_core::time::Timestamp;
use prometheus::{IntCounterVec, Opts};
use tokio::sync::watch;

use super::delivery::Registry;
use crate::control_port::Seen;
use crate::lifecycle::Tokens;

/// How long one sweep may take.
const SWEEP: Duration = Duration::from_secs(10);
/// The pause when a sweep left more to do: others get their turn.
const BREATH: Duration = Duration::from_millis(20);
/// The shortest pause before the next end that is known.
const SHORTEST: Duration = Duration::from_millis(100);
/// The pause after a sweep failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Settings of the sweeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long final messages are kept.
    pub retention: Duration,
    /// Most messages of each kind that one sweep ends; default 1,000.
    pub limit: u32,
    /// The longest pause; default 5 s. What was written since the last sweep may end earlier than that sweep knew, and is
    /// then ended so much late. (No attempt starts after the end in any case.)
    pub longest_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 3600),
            limit: 1_000,
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// What the sweeper works with.
pub struct Ports {
    /// The messages.
    pub store: Arc<dyn MessageStore>,
    /// Who leads the messages, where a group keeps them: who comes to lead them sweeps at once.
    pub leadership: Option<watch::Receiver<Seen>>,
    /// The control state.
    pub registry: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
}

impl Options {
    /// Makes the sweeper.
    ///
    /// # Errors
    /// If its metrics are registered already.
    pub fn build(self, ports: Ports) -> Result<Sweeper, prometheus::Error> {
        let swept = IntCounterVec::new(
            Opts::new(
                "hub_swept_messages_total",
                "Messages ended or pruned by the sweeper, by what became of them",
            ),
            &["end"],
        )?;
        ports.metrics.register(Box::new(swept.clone()))?;
        // Shown from the start, at zero.
        for end in ["expired", "buried", "pruned"] {
            swept.get_metric_with_label_values(&[end])?;
        }
        Ok(Sweeper { options: self, ports, swept })
    }
}

/// Sweeps until told to stop.
pub struct Sweeper {
    options: Options,
    ports: Ports,
    swept: IntCounterVec,
}

impl Sweeper {
    /// Runs until `tokens.soft` is cancelled. Each sweep is whole in itself: dropping one half-way loses nothing.
    pub async fn run(self, tokens: Tokens) {
        let mut leadership = self.ports.leadership.clone();
        let mut pause = BREATH;
        loop {
            tokio::select! {
                () = tokens.soft.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = comes_to_lead(&mut leadership) => {}
            }
            tokio::select! {
                () = tokens.soft.cancelled() => return,
                result = self.sweep() => pause = self.pause(result),
            }
        }
    }

    async fn sweep(&self) -> Result<SweepReport, StoreError> {
        let services = self.ports.registry.borrow().services.clone();
        let registered = move |name: &ServiceName| services.contains_key(name);
        let deadline = self.ports.clock.instant() + SWEEP;
        self.ports.store.sweep(&registered, self.options.retention, self.options.limit, deadline).await
    }

    fn pause(&self, result: Result<SweepReport, StoreError>) -> Duration {
        match result {
            Ok(report) => {
                for (end, count) in
                    [("expired", report.expired), ("buried", report.buried), ("pruned", report.pruned)]
                {
                    self.swept.with_label_values(&[end]).inc_by(count);
                }
                until_next(&report, self.ports.clock.now(), self.options.longest_pause)
            }
            Err(error) => {
                tracing::debug!(%error, "sweep failed");
                AFTER_FAILURE
            }
        }
    }
}

/// How long to wait after a sweep that went well.
fn until_next(report: &SweepReport, now: Timestamp, longest: Duration) -> Duration {
    if report.more {
        return BREATH;
    }
    report.next.map_or(longest, |next| next.since(now)).clamp(SHORTEST.min(longest), longest)
}

/// Waits until leadership has changed, and is this node's.
async fn comes_to_lead(leadership: &mut Option<watch::Receiver<Seen>>) {
    let Some(leadership) = leadership else { return std::future::pending().await };
    while leadership.changed().await.is_ok() {
        if leadership.borrow_and_update().leadership.ready {
            return;
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
