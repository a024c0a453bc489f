//! The sweeper: ends messages whose time has come and prunes old ones, on the node that is in charge of them.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::port::{Clock, MessageStore, StoreError, SweepReport};
use hub_core::time::Timestamp;
use prometheus::{IntCounterVec, Opts};

use super::delivery::Registry;
use crate::lifecycle::Tokens;

/// How long one sweep may take.
const SWEEP: Duration = Duration::from_secs(10);
/// The pause when a sweep left more to do: others get their turn.
const BREATH: Duration = Duration::from_millis(20);
/// The shortest pause before the next end that is known.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest pause: what was written since may end earlier than the last sweep knew.
const LONGEST: Duration = Duration::from_secs(30);
/// The pause after a sweep failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Settings of the sweeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long final messages are kept.
    pub retention: Duration,
    /// Most messages of each kind that one sweep ends; default 1,000.
    pub limit: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Duration::from_secs(7 * 24 * 3600), limit: 1_000 }
    }
}

impl Options {
    /// Makes the sweeper.
    ///
    /// # Errors
    /// If its metrics are registered already.
    pub fn build(
        self,
        store: Arc<dyn MessageStore>,
        registry: Registry,
        clock: Arc<dyn Clock>,
        metrics: &prometheus::Registry,
    ) -> Result<Sweeper, prometheus::Error> {
        let swept = IntCounterVec::new(
            Opts::new(
                "hub_swept_messages_total",
                "Messages ended or pruned by the sweeper, by what became of them",
            ),
            &["end"],
        )?;
        metrics.register(Box::new(swept.clone()))?;
        // Shown from the start, at zero.
        for end in ["expired", "buried", "pruned"] {
            swept.get_metric_with_label_values(&[end])?;
        }
        Ok(Sweeper { options: self, store, registry, clock, swept })
    }
}

/// Sweeps until told to stop.
pub struct Sweeper {
    options: Options,
    store: Arc<dyn MessageStore>,
    registry: Registry,
    clock: Arc<dyn Clock>,
    swept: IntCounterVec,
}

impl Sweeper {
    /// Runs until `tokens.soft` is cancelled. Each sweep is whole in itself: dropping one half-way loses nothing.
    pub async fn run(self, tokens: Tokens) {
        let mut pause = BREATH;
        loop {
            tokio::select! {
                () = tokens.soft.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = tokens.soft.cancelled() => return,
                result = self.sweep() => pause = self.pause(result),
            }
        }
    }

    async fn sweep(&self) -> Result<SweepReport, StoreError> {
        let services = self.registry.borrow().services.clone();
        let registered = move |name: &ServiceName| services.contains_key(name);
        let deadline = self.clock.instant() + SWEEP;
        self.store.sweep(&registered, self.options.retention, self.options.limit, deadline).await
    }

    fn pause(&self, result: Result<SweepReport, StoreError>) -> Duration {
        match result {
            Ok(report) => {
                for (end, count) in
                    [("expired", report.expired), ("buried", report.buried), ("pruned", report.pruned)]
                {
                    self.swept.with_label_values(&[end]).inc_by(count);
                }
                until_next(&report, self.clock.now())
            }
            Err(error) => {
                tracing::debug!(%error, "sweep failed");
                AFTER_FAILURE
            }
        }
    }
}

/// How long to wait after a sweep that went well.
fn until_next(report: &SweepReport, now: Timestamp) -> Duration {
    if report.more {
        return BREATH;
    }
    report.next.map_or(LONGEST, |next| next.since(now)).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_next_end_within_bounds() {
        let now = Timestamp::from_millis(1_000_000);
        let wait = |more, next| until_next(&SweepReport { more, next, ..SweepReport::default() }, now);
        let in_ms = |ms| Some(now.plus(Duration::from_millis(ms)));
        assert_eq!(wait(true, in_ms(5_000)), BREATH);
        assert_eq!(wait(false, None), LONGEST);
        assert_eq!(wait(false, in_ms(5_000)), Duration::from_secs(5));
        assert_eq!(wait(false, in_ms(3_600_000)), LONGEST);
        assert_eq!(wait(false, Some(Timestamp::EPOCH)), SHORTEST, "what is over already does not spin");
    }
}
