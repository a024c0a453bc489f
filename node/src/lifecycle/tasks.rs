//! Starts tasks, watches them, and ends them stage by stage.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use hub_core::error::chain;
use hub_core::port::Clock;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span, warn};

use super::kind::{OnCancel, OnError, Stage, TaskKind};

/// Why a task failed.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// The first wait before a failed task starts again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A task that ran this long starts again as if it had never failed.
const LONG_RUN: Duration = Duration::from_secs(60);

/// A task that finishes by itself gets this long after its hard token.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// What tells a task to end.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Take nothing new, finish what runs, then end.
    pub soft: CancellationToken,
    /// End now; nobody waits any more.
    pub hard: CancellationToken,
}

/// A task whose failure stops the node.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its name.
    pub task: &'static str,
    /// Why.
    pub error: Arc<TaskError>,
}

/// A panic, as an error.
#[derive(Debug, thiserror::Error)]
#[error("task panicked: {0}")]
struct Panicked(String);

struct StageState {
    soft: CancellationToken,
    tracker: TaskTracker,
}

struct Inner {
    stages: BTreeMap<Stage, StageState>,
    hard: CancellationToken,
    running: Mutex<BTreeMap<(Stage, &'static str), usize>>,
    failure: watch::Sender<Option<Failure>>,
    clock: Arc<dyn Clock>,
    panics: IntCounterVec,
    restarts: IntCounterVec,
}

/// The tasks of the process. Cheap to clone.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

impl Tasks {
    /// No tasks yet; counts panics and restarts in `registry`.
    ///
    /// # Errors
    /// The names of the metrics are taken.
    pub fn new(clock: Arc<dyn Clock>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let panics = IntCounterVec::new(
            Opts::new("hub_task_panics_total", "Panics of background tasks, caught."),
            &["task"],
        )?;
        let restarts = IntCounterVec::new(
            Opts::new("hub_task_restarts_total", "Background tasks started again after a failure."),
            &["task"],
        )?;
        registry.register(Box::new(panics.clone()))?;
        registry.register(Box::new(restarts.clone()))?;
        let hard = CancellationToken::new();
        let stage = || StageState { soft: hard.child_token(), tracker: TaskTracker::new() };
        Ok(Self(Arc::new(Inner {
            stages: Stage::ALL.into_iter().map(|name| (name, stage())).collect(),
            hard,
            running: Mutex::default(),
            failure: watch::Sender::new(None),
            clock,
            panics,
            restarts,
        })))
    }

    /// The tokens of a stage. The hard one cancels the soft one too.
    #[must_use]
    pub fn tokens(&self, stage: Stage) -> Tokens {
        let soft = self.0.stages.get(&stage).map(|state| state.soft.clone());
        Tokens { soft: soft.unwrap_or_else(|| self.0.hard.child_token()), hard: self.0.hard.clone() }
    }

    /// Starts a task that can run only once; its failure is logged, or stops the node.
    pub fn once<F>(&self, kind: TaskKind, task: impl FnOnce(Tokens) -> F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let future = task(self.tokens(kind.stage));
        let tasks = self.clone();
        self.track(kind, async move {
            if let Err(error) = tasks.attempt(kind, future).await {
                tasks.failed_once(kind, error);
            }
        });
    }

    /// Starts a task that `make` can start again after a failure. It ends for good when it returns `Ok`.
    pub fn restarting<F>(&self, kind: TaskKind, mut make: impl FnMut(Tokens) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let tasks = self.clone();
        self.track(kind, async move {
            let tokens = tasks.tokens(kind.stage);
            let mut wait = FIRST_WAIT;
            loop {
                let started = tasks.0.clock.instant();
                let Err(error) = tasks.attempt(kind, make(tokens.clone())).await else { return };
                tasks.failed_once(kind, error);
                if kind.on_error == OnError::StopNode || tokens.soft.is_cancelled() {
                    return;
                }
                if tasks.0.clock.instant().saturating_duration_since(started) >= LONG_RUN {
                    wait = FIRST_WAIT;
                }
                tokio::select! {
                    () = tokens.soft.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(LONGEST_WAIT);
                tasks.0.restarts.with_label_values(&[kind.name]).inc();
            }
        });
    }

    /// Waits until a task failed whose failure stops the node.
    pub async fn failed(&self) -> Failure {
        let mut watch = self.0.failure.subscribe();
        loop {
            if let Some(failure) = watch.borrow_and_update().clone() {
                return failure;
            }
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says that something outside a task failed in a way that stops the node.
    pub fn fail(&self, task: &'static str, error: TaskError) {
        error!(task, error = %chain(&*error), "this node cannot go on");
        let failure = Failure { task, error: Arc::new(error) };
        self.0.failure.send_if_modified(|first| first.is_none().then(|| *first = Some(failure)).is_some());
    }

    /// Ends a stage and waits for its tasks until `deadline`. The names of those that still run then.
    pub async fn stop(&self, stage: Stage, deadline: Instant) -> Result<(), Vec<&'static str>> {
        let Some(state) = self.0.stages.get(&stage) else { return Ok(()) };
        state.soft.cancel();
        state.tracker.close();
        match tokio::time::timeout_at(deadline.into(), state.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
                Err(running.keys().filter(|(of, _)| *of == stage).map(|(_, name)| *name).collect())
            }
        }
    }

    /// Ends everything at once, without waiting.
    pub fn abort(&self) {
        self.0.hard.cancel();
    }

    #[expect(clippy::disallowed_methods, reason = "this is the lifecycle: the one place that starts tasks")]
    fn track(&self, kind: TaskKind, task: impl Future<Output = ()> + Send + 'static) {
        let Some(state) = self.0.stages.get(&kind.stage) else { return };
        let guard = Running::enter(self.0.clone(), kind);
        let span = info_span!(parent: None, "task", task = kind.name);
        let tracked = state.tracker.track_future(async move {
            let _guard = guard;
            task.await;
        });
        drop(tokio::spawn(tracked.instrument(span)));
    }

    /// One run: cancelled as its kind says, a panic turned into an error.
    async fn attempt(
        &self,
        kind: TaskKind,
        future: impl Future<Output = Result<(), TaskError>>,
    ) -> Result<(), TaskError> {
        let tokens = self.tokens(kind.stage);
        let end = async {
            match kind.on_cancel {
                OnCancel::Finish => {
                    tokens.hard.cancelled().await;
                    tokio::time::sleep(LAST_BREATH).await;
                }
                OnCancel::Drop => tokens.soft.cancelled().await,
            }
        };
        tokio::select! {
            () = end => Ok(()),
            done = AssertUnwindSafe(future).catch_unwind() => done.unwrap_or_else(|panic| {
                self.0.panics.with_label_values(&[kind.name]).inc();
                Err(Panicked(message(&*panic)).into())
            }),
        }
    }

    fn failed_once(&self, kind: TaskKind, error: TaskError) {
        match kind.on_error {
            OnError::Restart => warn!(task = kind.name, error = %chain(&*error), "task failed"),
            OnError::StopNode => self.fail(kind.name, error),
        }
    }
}

/// Counts a task as running for as long as it lives.
struct Running(Arc<Inner>, TaskKind);

impl Running {
    fn enter(inner: Arc<Inner>, kind: TaskKind) -> Self {
        let mut running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry((kind.stage, kind.name)).or_default() += 1;
        drop(running);
        Self(inner, kind)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.1.stage, self.1.name);
        if let Some(count) = running.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&key);
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
