//! The loop: listens to the queue, claims what can start at once, starts attempts. It sleeps until something happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, stream};
use hub_core::delivery::Admission;
use hub_core::id::{NodeId, ServiceName};
use hub_core::port::{Claimed, DeliveryQueue, IdSource, QueueSignal, StoreError, Want};
use hub_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Options;
use super::attempt::Attempter;
use super::metrics::Metrics;
use super::settler::Settler;
use super::shared::{Held, Shared};
use crate::lifecycle::Tokens;
use crate::outbound::Outbound;

/// How long the queue may take to claim, or to say what is due.
const CALL: Duration = Duration::from_secs(5);
/// The pause after the queue could not do it.
const PAUSE: Duration = Duration::from_millis(200);
/// The queue is not asked for what is due more often than this.
const DUE_SPACING: Duration = Duration::from_millis(20);
/// Most messages in one claim.
const CLAIM_AT_MOST: u32 = 1_000;

/// What the dispatcher works with.
pub struct Ports {
    /// Where messages come from.
    pub queue: Arc<dyn DeliveryQueue>,
    /// The way to the targets.
    pub outbound: Outbound,
    /// Chance.
    pub ids: Arc<dyn IdSource>,
    /// Who this node is, for the rows of attempts.
    pub node: NodeId,
    /// Where metrics are registered.
    pub metrics: prometheus::Registry,
}

/// Delivers messages until told to stop.
pub struct Dispatcher {
    options: Options,
    shared: Arc<Shared>,
    ports: Ports,
    metrics: Arc<Metrics>,
}

impl Dispatcher {
    pub(super) fn new(options: Options, shared: Arc<Shared>, ports: Ports, metrics: Metrics) -> Self {
        Self { options, shared, ports, metrics: Arc::new(metrics) }
    }

    /// Runs until `tokens.soft` is cancelled and all that was under way is finished and written, or until `tokens.hard`
    /// is: then attempts under way are given up, their messages become due again, and it returns within seconds.
    pub async fn run(self, tokens: Tokens) {
        let Tokens { soft: drain, hard: abort } = tokens;
        let (settle, ends) = mpsc::unbounded_channel();
        let settler = Settler {
            queue: Arc::clone(&self.ports.queue),
            shared: Arc::clone(&self.shared),
            ids: Arc::clone(&self.ports.ids),
            metrics: Arc::clone(&self.metrics),
            abort: abort.clone(),
            batch: self.options.settle_batch,
            in_flight: self.options.settles_in_flight,
        };
        let attempter = Arc::new(Attempter {
            shared: Arc::clone(&self.shared),
            outbound: self.ports.outbound,
            ids: self.ports.ids,
            node: self.ports.node,
            metrics: Arc::clone(&self.metrics),
            max_retries: self.options.max_retries,
            abort: abort.clone(),
            settle,
            failures: Mutex::new(HashMap::new()),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(settler.run(ends));
        let engine = Engine {
            queue: self.ports.queue,
            shared: self.shared,
            attempter,
            metrics: self.metrics,
            attempts: tasks.clone(),
            calls: FuturesUnordered::new(),
            leads: false,
            claiming: false,
            asking: false,
            asked_at: Timestamp::EPOCH,
            last_served: None,
        };
        engine.run(&drain, &abort).await;
        // The engine is gone; when the last attempt is too, the settler writes what is left and ends.
        tasks.close();
        tasks.wait().await;
    }
}

/// What came of a call to the queue.
enum Done {
    Claimed { asked: Vec<Held>, result: Result<Vec<Claimed>, StoreError> },
    Due(Result<(Vec<ServiceName>, Option<Timestamp>), StoreError>),
}

struct Engine {
    queue: Arc<dyn DeliveryQueue>,
    shared: Arc<Shared>,
    attempter: Arc<Attempter>,
    metrics: Arc<Metrics>,
    attempts: TaskTracker,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    /// The queue says that this node delivers.
    leads: bool,
    /// A claim is under way: the next one takes what gathers meanwhile.
    claiming: bool,
    /// The queue is being asked what is due.
    asking: bool,
    /// When it was asked last.
    asked_at: Timestamp,
    /// Where the last round over the waiting targets ended.
    last_served: Option<ServiceName>,
}

impl Engine {
    async fn run(mut self, drain: &CancellationToken, abort: &CancellationToken) {
        let queue = Arc::clone(&self.queue);
        // One future for each signal, kept over the turns of the loop: none is dropped half taken.
        let signals = stream::unfold(queue, |queue| async move { Some((queue.next().await, queue)) });
        let mut signals = std::pin::pin!(signals);
        let mut registry = self.shared.registry();
        let shared = Arc::clone(&self.shared);
        loop {
            let draining = drain.is_cancelled();
            self.shared.set_delivering(self.leads && !draining);
            let wait = self.pump();
            self.metrics.slots_used.set(i64::from(self.shared.table().used()));
            if draining && self.is_idle() {
                return;
            }
            tokio::select! {
                biased;
                () = abort.cancelled() => break,
                () = drain.cancelled(), if !draining => {}
                Some(done) = self.calls.next(), if !self.calls.is_empty() => self.done(done),
                Some(signal) = signals.next() => self.signal(signal),
                () = shared.wake.notified() => {}
                Ok(()) = registry.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.shared.set_delivering(false);
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.shared.table().used() == 0
    }

    fn may_claim(&self) -> bool {
        self.shared.is_delivering()
    }

    fn signal(&mut self, signal: QueueSignal) {
        match signal {
            QueueSignal::Claimed(list) => {
                self.metrics.claimed_at_accept(list.len());
                for claimed in list {
                    let target = claimed.message.target.clone();
                    self.shared.table().arrive(&target);
                    let held = Held::new(Arc::clone(&self.shared), target, 1);
                    self.start(claimed, held);
                }
            }
            QueueSignal::Due(target) => self.shared.table().set_waiting(target),
            QueueSignal::Later(at) => self.shared.due_at(at),
            QueueSignal::Started => {
                self.leads = true;
                self.shared.due_at(Timestamp::EPOCH);
            }
            QueueSignal::Stopped => {
                self.leads = false;
                self.shared.set_delivering(false);
                self.shared.table().clear_all_waiting();
                self.shared.forget_due();
            }
        }
    }

    /// Starts an attempt, or gives the claim back when this node does not deliver any more.
    fn start(&self, claimed: Claimed, held: Held) {
        if self.may_claim() {
            self.attempts.spawn(Arc::clone(&self.attempter).run(claimed, held));
        } else {
            self.attempter.release(claimed);
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Claimed { asked, result } => {
                self.claiming = false;
                self.claimed(asked, result);
            }
            Done::Due(result) => {
                self.asking = false;
                match result {
                    Ok((targets, next)) if self.leads => {
                        let mut table = self.shared.table();
                        for target in targets {
                            table.set_waiting(target);
                        }
                        drop(table);
                        if let Some(next) = next {
                            self.shared.due_at(next);
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the queue could not say what is due");
                        self.shared.due_at(Timestamp::EPOCH);
                    }
                }
            }
        }
    }

    /// Starts what was claimed. Where all that was asked for came, there may be more.
    fn claimed(&mut self, mut asked: Vec<Held>, result: Result<Vec<Claimed>, StoreError>) {
        match result {
            Ok(list) => {
                self.metrics.claimed(list.len());
                for claimed in list {
                    let slot = asked
                        .iter_mut()
                        .find(|held| held.target() == &claimed.message.target)
                        .and_then(Held::split)
                        .unwrap_or_else(|| self.unasked(&claimed));
                    self.start(claimed, slot);
                }
                for held in asked.iter().filter(|held| held.count() == 0) {
                    self.mark_waiting(held.target());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "nothing was claimed");
                for held in &asked {
                    self.mark_waiting(held.target());
                }
            }
        }
    }

    fn mark_waiting(&self, target: &ServiceName) {
        if self.leads {
            self.shared.table().set_waiting(target.clone());
        }
    }

    /// A slot for a claim that nobody asked for: the claim is there, so it is used.
    fn unasked(&self, claimed: &Claimed) -> Held {
        let target = claimed.message.target.clone();
        self.shared.table().take(&target, 1);
        Held::new(Arc::clone(&self.shared), target, 1)
    }

    /// Starts the calls to the queue that are called for; how long to sleep if nothing happens.
    fn pump(&mut self) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        if !self.may_claim() {
            return LONG;
        }
        let now = self.shared.clock.now();
        let wait = self.ask_for_due(now);
        if self.claiming || !self.shared.table().any_waiting() {
            return wait.min(LONG);
        }
        let (wants, asked, slowed) = self.wants(now);
        if !wants.is_empty() {
            self.claim(wants, asked);
        }
        wait.min(slowed.map_or(LONG, |until| until.since(now)).max(Duration::from_millis(1)))
    }

    /// Asks the queue what is due, if something is; how long until that is so.
    fn ask_for_due(&mut self, now: Timestamp) -> Duration {
        if self.asking {
            return Duration::MAX;
        }
        let next = self.shared.next_due().max(self.asked_at.plus(DUE_SPACING));
        if next > now {
            return next.since(now);
        }
        self.asking = true;
        self.asked_at = now;
        self.shared.forget_due();
        let queue = Arc::clone(&self.queue);
        self.calls.push(
            async move {
                let result = tokio::time::timeout(CALL, queue.due()).await.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable { reason: "timed out".to_owned(), retryable: true })
                });
                if result.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
                Done::Due(result)
            }
            .boxed(),
        );
        Duration::MAX
    }

    fn claim(&mut self, wants: Vec<Want>, asked: Vec<Held>) {
        self.claiming = true;
        let queue = Arc::clone(&self.queue);
        let deadline = self.shared.clock.instant() + CALL;
        self.calls.push(
            async move {
                let result = queue.claim(wants, deadline).await;
                if result.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
                Done::Claimed { asked, result }
            }
            .boxed(),
        );
    }

    /// What can start at once, the slots taken for it, and when the first of the slowed targets may be called again.
    fn wants(&mut self, now: Timestamp) -> (Vec<Want>, Vec<Held>, Option<Timestamp>) {
        let (mut wants, mut asked, mut slowed) = (Vec::new(), Vec::new(), None::<Timestamp>);
        let mut room = CLAIM_AT_MOST;
        let waiting = self.shared.table().waiting_after(self.last_served.as_ref());
        for target in waiting {
            if room == 0 {
                break;
            }
            let Some(service) = self.shared.service(&target) else { continue };
            self.shared.table().unslow(&target, now);
            match self.shared.may_call(&target, Some(&service)) {
                Admission::Yes => {}
                Admission::SlowedUntil(until) => {
                    slowed = Some(slowed.map_or(until, |first| first.min(until)));
                    continue;
                }
                Admission::NoTarget | Admission::Paused | Admission::NoInstance => continue,
            }
            let mut table = self.shared.table();
            table.reclaim(&target, self.shared.clock.instant());
            let count = table.free(&target, service.delivery.max_concurrency).min(room);
            if count == 0 {
                continue;
            }
            table.take(&target, count);
            table.clear_waiting(&target);
            drop(table);
            room -= count;
            asked.push(Held::new(Arc::clone(&self.shared), target.clone(), count));
            wants.push(Want { target: target.clone(), count, lease: Shared::lease(&service) });
            self.last_served = Some(target);
        }
        (wants, asked, slowed)
    }
}
