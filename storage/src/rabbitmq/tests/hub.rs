//! A hub as far as store and broker go, with a dispatcher that delivers all it gets, and the database behind it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hub_core::delivery::{AttemptOutcome, Claim, SettleOutcome, Settlement};
use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::message::{Attempt, NewMessage, Priority};
use hub_core::port::{AcceptMode, Clock, DeliveryQueue, IdSource, MessageStore, QueueSignal, Want};
use hub_core::time::Timestamp;
use hub_test_servers::{Kind as Server, Place};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::postgres::{self, Store};
use crate::rabbitmq::broker::Shared;
use crate::rabbitmq::{Options, Ports, Prefix, Queue};
use crate::suite::{Ids, RealClock, TestSlots};

pub(super) const LEASE: Duration = Duration::from_secs(20);

/// A new database, migrated.
pub(super) async fn database() -> String {
    let url = Place::on_shared(Server::Postgres).await.unwrap().url().to_owned();
    postgres::prepare(&SecretString::from(url.clone()), deadline()).await.unwrap();
    url
}

/// A new virtual host on the shared broker.
pub(super) async fn virtual_host() -> String {
    Place::on_shared(Server::RabbitMq).await.unwrap().url().to_owned()
}

pub(super) async fn number(database: &str, query: &str) -> i64 {
    let mut connection = PgConnection::connect(database).await.unwrap();
    sqlx::query(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap().get(0)
}

pub(super) async fn sql(database: &str, text: &str) {
    PgConnection::connect(database).await.unwrap().execute(AssertSqlSafe(text)).await.unwrap();
}

pub(super) fn options(broker: &str) -> Options {
    Options::new(SecretString::from(broker.to_owned()), Prefix::default())
}

/// Far enough for a loaded machine.
pub(super) fn deadline() -> Instant {
    RealClock.instant() + Duration::from_secs(60)
}

pub(super) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Waits until it is so.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = RealClock.instant() + Duration::from_secs(120);
    while !holds().await {
        assert!(RealClock.instant() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Store, broker and queue of one node, running.
pub(super) struct Hub {
    pub(super) store: Store,
    pub(super) queue: Queue,
    pub(super) shared: Arc<Shared>,
    pub(super) slots: Arc<TestSlots>,
    pub(super) registry: prometheus::Registry,
    node: NodeId,
    clock: Arc<dyn Clock>,
    drain: CancellationToken,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
    delivered: Arc<Mutex<Vec<MessageId>>>,
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "the test is the lifecycle")]
    tokio::spawn(task)
}

impl Hub {
    /// Node `node`, on the real clock.
    pub(super) fn start(node: u64, database: &str, options: Options) -> Self {
        Self::start_with(node, database, options, Arc::new(RealClock), 100_000)
    }

    pub(super) fn start_with(
        node: u64,
        database: &str,
        options: Options,
        clock: Arc<dyn Clock>,
        max_backlog: u64,
    ) -> Self {
        let (ids, registry) = (Arc::new(Ids::default()), prometheus::Registry::new());
        let node = NodeId(node);
        let ports = Ports {
            node,
            clock: Arc::clone(&clock),
            ids: ids.clone(),
            metrics: registry.clone(),
            services: Arc::new(Vec::new),
        };
        let broker = options.build(ports).unwrap();
        let slots = Arc::new(TestSlots::default());
        let mut settings = postgres::Options::new(SecretString::from(database.to_owned()));
        settings.max_backlog = max_backlog;
        let ports = postgres::Ports {
            node,
            clock: Arc::clone(&clock),
            ids,
            slots: slots.clone(),
            outbox: Some(Arc::new(broker.outlet())),
        };
        let (store_service, store) = settings.build(ports).unwrap();
        let (service, queue) = broker.attach(Arc::new(store.clone()), Arc::new(store.clone()));
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let running =
            vec![spawn(store_service.run(stop.clone())), spawn(service.run(drain.clone(), stop.clone()))];
        let shared = queue.shared();
        Self {
            store,
            queue,
            shared,
            slots,
            registry,
            node,
            clock,
            drain,
            stop,
            running,
            delivered: Arc::default(),
        }
    }

    /// Delivers from now on, `count` at a time.
    pub(super) fn deliver(&mut self, count: u32) {
        let worker = Worker {
            queue: self.queue.clone(),
            clock: Arc::clone(&self.clock),
            delivered: Arc::clone(&self.delivered),
            count,
        };
        let stop = self.stop.clone();
        self.running.push(spawn(async move {
            tokio::select! {
                () = worker.run() => {}
                () = stop.cancelled() => {}
            }
        }));
    }

    pub(super) async fn end(self) {
        self.drain.cancel();
        self.stop.cancel();
        for task in self.running {
            task.await.unwrap();
        }
    }

    /// Accepts so many, all at once.
    pub(super) async fn accept(&self, target: &str, count: usize) -> Vec<MessageId> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = self.clock.now();
        let messages = (0..count).map(|_| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed) | (self.node.0 << 40);
            message(now, number, target)
        });
        let messages: Vec<NewMessage> = messages.collect();
        let ids = messages.iter().map(|message| message.id).collect();
        for part in messages.chunks(500) {
            let results = self.store.accept(part.to_vec(), AcceptMode::Each, deadline()).await.unwrap();
            assert!(results.iter().all(Result::is_ok));
        }
        ids
    }

    /// What was delivered so far, in order.
    pub(super) fn delivered(&self) -> Vec<MessageId> {
        self.delivered.lock().unwrap().clone()
    }

    /// All of these were delivered, each once.
    pub(super) async fn has_delivered(&self, ids: &[MessageId]) {
        until("all is delivered", || async { self.delivered().len() >= ids.len() }).await;
        let delivered = self.delivered();
        assert_eq!(delivered.len(), ids.len(), "duplicates");
        assert_eq!(HashSet::<MessageId>::from_iter(delivered), ids.iter().copied().collect());
    }

    /// A counter or gauge without labels.
    pub(super) fn metric(&self, name: &str) -> i64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == format!("hub_rabbitmq_{name}")).unwrap();
        let metric = &family.get_metric()[0];
        #[expect(clippy::cast_possible_truncation, reason = "they count")]
        let value = (metric.get_counter().get_value() + metric.get_gauge().get_value()) as i64;
        value
    }

    pub(super) async fn is_connected(&self) {
        until("connected", || async { self.metric("connected") == 1 && self.shared.gate.is_open() }).await;
    }
}

pub(super) fn message(now: Timestamp, number: u64, target: &str) -> NewMessage {
    let id = Ids::default().message_id(now).0.as_u128() | u128::from(number) << 4;
    NewMessage {
        id: MessageId(uuid::Uuid::from_u128(id)),
        sender: service("sender"),
        target: service(target),
        message_type: "thing.happened".into(),
        content: format!("{{\"number\":{number}}}").into(),
        metadata: None,
        correlation_id: None,
        priority: Priority::default(),
        created_at: now,
        deliver_at: None,
        expires_at: None,
        too_old_at: now.plus(Duration::from_secs(7 * 24 * 3600)),
        max_retries: None,
        traceparent: None,
        idempotency: None,
    }
}

/// The end of an attempt.
pub(super) fn ending(claim: Claim, outcome: SettleOutcome) -> Settlement {
    let attempt = Attempt {
        number: claim.attempt,
        node: claim.owner,
        instance: None,
        started_at: claim.lease_end,
        duration_ms: 1,
        outcome: AttemptOutcome::Delivered,
        http_status: Some(204),
        error_class: None,
        response: None,
    };
    Settlement { claim, outcome, attempt: Some(attempt), error: None }
}

/// A dispatcher that delivers all it gets.
struct Worker {
    queue: Queue,
    clock: Arc<dyn Clock>,
    delivered: Arc<Mutex<Vec<MessageId>>>,
    count: u32,
}

impl Worker {
    async fn run(self) {
        loop {
            match self.queue.next().await {
                QueueSignal::Due(target) => self.drain(&target).await,
                QueueSignal::Started => self.look().await,
                QueueSignal::Claimed(_) | QueueSignal::Later(_) | QueueSignal::Stopped => {}
            }
        }
    }

    async fn look(&self) {
        for target in self.queue.due().await.unwrap().0 {
            self.drain(&target).await;
        }
    }

    async fn drain(&self, target: &ServiceName) {
        loop {
            let want = Want { target: target.clone(), count: self.count, lease: LEASE };
            let until = self.clock.instant() + Duration::from_secs(30);
            let claimed = self.queue.claim(vec![want], until).await.unwrap();
            if claimed.is_empty() {
                return;
            }
            let claims: Vec<Claim> = claimed.into_iter().map(|one| one.claim).collect();
            let ends = claims.iter().map(|claim| ending(claim.clone(), SettleOutcome::Delivered)).collect();
            let done = self.queue.settle(ends, until).await.unwrap();
            let done = claims.iter().zip(done).filter(|(_, done)| *done).map(|(claim, _)| claim.message);
            self.delivered.lock().unwrap().extend(done);
        }
    }
}
