//! The loop: makes the checks that are due, and tells the cluster of changes, all that gathered at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use hub_core::control::{Command, HealthChange, Refusal, Reply};
use hub_core::id::NodeId;
use hub_core::port::{
    CheckResult, Clock, ClusterControl, Committed, IdSource, ProposeError, Replicator, Submitted,
};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::handle::{Handle, Key};
use super::probe::{Seen, probe};
use super::schedule::{Due, Schedule};
use crate::lifecycle::Tokens;
use crate::outbound::Outbound;
use crate::worker::delivery::Registry;

/// Which nodes are live is looked at this often, and after each change of the registry.
const LOOK: Duration = Duration::from_secs(2);
/// Changes of the registry that come closer together than this are taken up together.
const SETTLE: Duration = Duration::from_millis(250);
/// How long telling the cluster may take.
const TELL: Duration = Duration::from_secs(5);
/// The pause after it could not be told.
const PAUSE: Duration = Duration::from_secs(1);
/// Most changes in one command.
const CHANGES: usize = 1_000;

/// Settings of health checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Checks under way at a time on this node; default 64.
    pub concurrency: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 64 }
    }
}

/// What the checker works with.
pub struct Ports {
    /// The control state.
    pub registry: Registry,
    /// Where changes are told.
    pub control: Arc<dyn Replicator<Command, Reply>>,
    /// Which nodes are live, and which of them this is.
    pub cluster: Arc<dyn ClusterControl>,
    /// The way to the instances.
    pub outbound: Outbound,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub ids: Arc<dyn IdSource>,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
}

impl Options {
    /// Makes the checker and the handle that shows its results.
    ///
    /// # Errors
    /// If its metrics are registered already.
    pub fn build(self, ports: Ports) -> Result<(Checker, Handle), prometheus::Error> {
        let metrics = Metrics::register(&ports.metrics)?;
        let handle = Handle::new(ports.registry.clone());
        let checker = Checker {
            concurrency: self.concurrency.max(1),
            handle: handle.clone(),
            schedule: Schedule::default(),
            running: JoinSet::new(),
            telling: None,
            ports,
            metrics,
        };
        Ok((checker, handle))
    }
}

struct Metrics {
    checks: IntCounterVec,
    seconds: Histogram,
    instances: IntGauge,
}

impl Metrics {
    fn register(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            checks: IntCounterVec::new(
                Opts::new("hub_health_checks_total", "Health checks made by this node, by result"),
                &["result"],
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("hub_health_check_seconds", "How long health checks took")
                    .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0]),
            )?,
            instances: IntGauge::new("hub_health_checked_instances", "Instances that this node checks")?,
        };
        registry.register(Box::new(metrics.checks.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.instances.clone()))?;
        Ok(metrics)
    }
}

/// Why the cluster does not know a change.
#[derive(Debug, thiserror::Error)]
enum Untold {
    /// The change may not be in the log.
    #[error(transparent)]
    Proposal(#[from] ProposeError),
    /// It is, and had no effect.
    #[error("changes of health were refused: {0}")]
    Refused(Refusal),
}

type Telling = BoxFuture<'static, Result<Vec<HealthChange>, Untold>>;
type Checked = (Key, u64, Seen, Duration);

/// Checks instances until told to stop.
pub struct Checker {
    concurrency: usize,
    handle: Handle,
    schedule: Schedule,
    running: JoinSet<Checked>,
    telling: Option<Telling>,
    ports: Ports,
    metrics: Metrics,
}

impl Checker {
    /// Runs until `tokens.soft` is cancelled. Checks under way are dropped then: another node takes them over.
    pub async fn run(mut self, tokens: Tokens) {
        let mut registry = self.ports.registry.clone();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changed = None;
        loop {
            self.start_due();
            self.tell();
            let wait = self.until_next();
            tokio::select! {
                () = tokens.soft.cancelled() => return,
                _ = look.tick() => self.assign(),
                Ok(()) = registry.changed(), if changed.is_none() => {
                    changed = Some(Box::pin(tokio::time::sleep(SETTLE)));
                }
                () = pending_or(&mut changed) => {
                    changed = None;
                    self.assign();
                }
                Some(done) = self.running.join_next() => {
                    if let Ok(checked) = done {
                        self.checked(checked);
                    }
                }
                told = pending_or(&mut self.telling) => {
                    self.telling = None;
                    self.told(told);
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks anew at who is live and what is registered.
    fn assign(&mut self) {
        let live = self.live();
        let me = self.ports.cluster.node_id();
        let state = self.ports.registry.borrow().clone();
        let now = self.ports.clock.instant();
        self.schedule.assign(&state, &live, me, now, |bound| self.ports.ids.below(bound));
        self.handle.assigned(&live, |key| self.schedule.is_mine(key));
        self.metrics.instances.set(i64::try_from(self.schedule.len()).unwrap_or(i64::MAX));
    }

    fn live(&self) -> BTreeSet<NodeId> {
        let nodes = self.ports.cluster.status().nodes;
        nodes.into_iter().filter(|node| node.live && !node.draining).map(|node| node.id).collect()
    }

    fn start_due(&mut self) {
        let now = self.ports.clock.instant();
        while self.running.len() < self.concurrency {
            let Some(due) = self.schedule.pop(now) else { return };
            let Due { key, url, check, round } = due;
            let (outbound, clock) = (self.ports.outbound.clone(), Arc::clone(&self.ports.clock));
            self.running.spawn(async move {
                let begun = clock.instant();
                let seen = probe(&outbound, &url, &check).await;
                (key, round, seen, clock.instant().saturating_duration_since(begun))
            });
        }
    }

    fn until_next(&mut self) -> Duration {
        if self.running.len() >= self.concurrency {
            return LOOK;
        }
        let now = self.ports.clock.instant();
        self.schedule.next().map_or(LOOK, |at| at.saturating_duration_since(now))
    }

    fn checked(&mut self, (key, round, seen, took): Checked) {
        let now = self.ports.clock.instant();
        let below = |bound| self.ports.ids.below(bound);
        if !self.schedule.done(&key, round, seen.health, now, below) {
            return;
        }
        let result = match seen.health {
            Some(hub_core::registry::Health::Passing) => "passing",
            Some(hub_core::registry::Health::Warning) => "warning",
            Some(hub_core::registry::Health::Critical) => "critical",
            None => "not_checked",
        };
        self.metrics.checks.with_label_values(&[result]).inc();
        self.metrics.seconds.observe(took.as_secs_f64());
        let result = CheckResult {
            at: self.ports.clock.now(),
            took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            seen: seen.health,
            detail: seen.detail,
        };
        self.handle.record(key, result);
    }

    /// Tells the cluster what changed; one command at a time, the next one takes what gathers meanwhile.
    fn tell(&mut self) {
        if self.telling.is_some() {
            return;
        }
        let changes = self.schedule.changes(CHANGES);
        if changes.is_empty() {
            return;
        }
        let control = Arc::clone(&self.ports.control);
        let deadline = self.ports.clock.instant() + TELL;
        let proposal =
            Submitted { request: self.ports.ids.request_id(), command: Command::SetHealth(changes.clone()) };
        self.telling = Some(
            async move {
                let untold = match control.propose(proposal, deadline).await {
                    Ok(Committed { reply: Reply::Refused(refusal), .. }) => Untold::Refused(refusal),
                    Ok(_) => return Ok(changes),
                    Err(error) => error.into(),
                };
                tokio::time::sleep(PAUSE).await;
                Err(untold)
            }
            .boxed(),
        );
    }

    fn told(&mut self, told: Result<Vec<HealthChange>, Untold>) {
        match told {
            Ok(changes) => {
                for change in &changes {
                    tracing::info!(
                        service = %change.service, instance = %change.instance, health = ?change.health,
                        "health changed"
                    );
                }
                self.schedule.told(&changes);
            }
            Err(error) => tracing::warn!(%error, "changes of health could not be told; trying again"),
        }
    }
}

/// Waits for the future if there is one, else for ever.
async fn pending_or<F: std::future::Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
