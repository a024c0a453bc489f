//! The sweeper over a store that only counts.

use std::time::Instant;

use async_trait::async_trait;
use hub_core::control::State;
use hub_core::id::MessageId;
use hub_core::message::{Cursor, Filter, NewMessage, Page, Record};
use hub_core::port::{
    AcceptMode, AcceptRefusal, Accepted, Backlog, CancelOutcome, Consistency, DeadLetterOutcome, Leadership,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::HubClock;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn waits_for_the_next_end_within_bounds() {
    let now = Timestamp::from_millis(1_000_000);
    let longest = Duration::from_secs(30);
    let wait = |more, next| until_next(&SweepReport { more, next, ..SweepReport::default() }, now, longest);
    let in_ms = |ms| Some(now.plus(Duration::from_millis(ms)));
    assert_eq!(wait(true, in_ms(5_000)), BREATH);
    assert_eq!(wait(false, None), longest);
    assert_eq!(wait(false, in_ms(5_000)), Duration::from_secs(5));
    assert_eq!(wait(false, in_ms(3_600_000)), longest);
    assert_eq!(wait(false, Some(Timestamp::EPOCH)), SHORTEST, "what is over already does not spin");
}

/// Tells of every sweep, and gives the reports that were laid out for it; then empty ones.
struct Swept {
    told: mpsc::UnboundedSender<bool>,
    reports: std::sync::Mutex<Vec<Result<SweepReport, StoreError>>>,
}

fn never<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("the sweeper only sweeps".into()))
}

#[async_trait]
impl MessageStore for Swept {
    async fn accept(
        &self,
        _: Vec<NewMessage>,
        _: AcceptMode,
        _: Instant,
    ) -> Result<Vec<Result<Accepted, AcceptRefusal>>, StoreError> {
        never()
    }
    async fn get(&self, _: MessageId, _: Consistency, _: Instant) -> Result<Option<Record>, StoreError> {
        never()
    }
    async fn list(&self, _: &Filter, _: Option<Cursor>, _: u32) -> Result<Page, StoreError> {
        never()
    }
    async fn cancel(&self, _: MessageId, _: Instant) -> Result<CancelOutcome, StoreError> {
        never()
    }
    async fn replay(&self, _: MessageId, _: Instant) -> Result<DeadLetterOutcome, StoreError> {
        never()
    }
    async fn discard(&self, _: MessageId, _: Instant) -> Result<DeadLetterOutcome, StoreError> {
        never()
    }
    async fn backlog(&self, _: &ServiceName) -> Result<Backlog, StoreError> {
        never()
    }
    async fn backlogs(&self) -> Result<Vec<(ServiceName, Backlog)>, StoreError> {
        never()
    }
    async fn sweep(
        &self,
        registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
        retention: Duration,
        limit: u32,
        _: Instant,
    ) -> Result<SweepReport, StoreError> {
        assert_eq!((retention, limit), (HOUR, 7));
        self.told.send(registered(&"combat".parse().unwrap())).unwrap();
        self.reports.lock().unwrap().pop().unwrap_or_else(|| Ok(SweepReport::default()))
    }
}

struct Stage {
    sweeps: mpsc::UnboundedReceiver<bool>,
    leadership: watch::Sender<Seen>,
    registry: watch::Sender<State>,
    metrics: prometheus::Registry,
    soft: CancellationToken,
    running: tokio::task::JoinSet<()>,
}

impl Stage {
    /// A sweeper that pauses for an hour unless something wakes it.
    fn start(reports: Vec<Result<SweepReport, StoreError>>) -> Self {
        let (told, sweeps) = mpsc::unbounded_channel();
        let (leadership, seen) = watch::channel(Seen { leadership: Leadership::default(), leaderless: None });
        let (registry, state) = watch::channel(State::default());
        let metrics = prometheus::Registry::new();
        let ports = Ports {
            store: Arc::new(Swept { told, reports: reports.into() }),
            leadership: Some(seen),
            registry: state,
            clock: Arc::new(HubClock::default()),
            metrics: metrics.clone(),
        };
        let sweeper = Options { retention: HOUR, limit: 7, longest_pause: HOUR }.build(ports).unwrap();
        let soft = CancellationToken::new();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(sweeper.run(Tokens { soft: soft.clone(), hard: CancellationToken::new() }));
        Self { sweeps, leadership, registry, metrics, soft, running }
    }

    /// The next sweep: whether it saw `combat` as registered.
    async fn swept(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(60), self.sweeps.recv())
            .await
            .expect("a sweep in time")
            .unwrap()
    }

    fn lead(&self, term: u64, ready: bool) {
        let leadership = Leadership { term, leader: None, ready };
        self.leadership.send_replace(Seen { leadership, leaderless: None });
    }

    async fn finish(mut self) {
        self.soft.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), self.running.join_next());
        ended.await.expect("ends in time").unwrap().unwrap();
    }
}

#[tokio::test]
async fn sweeps_at_once_when_it_comes_to_lead() {
    let mut stage = Stage::start(vec![]);
    assert!(!stage.swept().await, "the first sweep comes by itself");
    stage.registry.send_modify(|state| {
        let service = crate::worker::delivery::tests::service("combat", &[]);
        state.services.insert(service.name.clone(), Arc::new(service));
    });
    for term in 1..4 {
        stage.lead(term, false);
        stage.lead(term, true);
        assert!(stage.swept().await, "it sees the registry as it is");
    }
    stage.finish().await;
}

#[tokio::test]
async fn goes_on_while_there_is_more_and_after_a_failure() {
    let more = SweepReport { expired: 2, buried: 3, pruned: 4, more: true, next: None };
    // Taken from the end.
    let mut stage = Stage::start(vec![Ok(more), Err(StoreError::Overloaded), Ok(more)]);
    for _ in 0..4 {
        stage.swept().await;
    }
    let families = stage.metrics.gather();
    let counts: Vec<f64> =
        families[0].get_metric().iter().map(|metric| metric.get_counter().get_value()).collect();
    assert_eq!(counts, [6.0, 4.0, 8.0], "buried, expired, pruned");
    stage.finish().await;
}
