//! Databases and hubs of the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{NewMessage, Priority};
use hub_core::port::{
    AcceptMode, Accepted, Claimed, Clock, DeliveryQueue, IdSource, MessageStore, QueueSignal, StoreError,
    Want,
};
use hub_core::time::Timestamp;
use hub_storage::postgres::{self, Options, Ports, Store};
use hub_storage::suite::{Ids, ManualClock, RealClock, TestSlots};
use hub_test_servers::{Kind, Place};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(20);

/// A database of the test's own, migrated.
pub(crate) struct Base {
    pub(crate) url: String,
}

impl Base {
    pub(crate) async fn empty() -> Self {
        Self { url: Place::on_shared(Kind::Postgres).await.unwrap().url().to_owned() }
    }

    pub(crate) async fn migrated() -> Self {
        let base = Self::empty().await;
        postgres::prepare(&base.secret(), deadline()).await.unwrap();
        base
    }

    /// A database whose clock stands still until it is moved.
    pub(crate) async fn with_hands() -> Self {
        let base = Self::migrated().await;
        base.sql(
            "CREATE TABLE hands (at timestamptz NOT NULL); INSERT INTO hands VALUES (hub_time(1800000000000)); \
             CREATE OR REPLACE FUNCTION hub_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM hands'",
        )
        .await;
        base
    }

    pub(crate) fn secret(&self) -> SecretString {
        SecretString::from(self.url.clone())
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub(crate) async fn sql(&self, text: &str) {
        self.connect().await.execute(AssertSqlSafe(text.to_owned())).await.unwrap();
    }

    /// One number.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        let row =
            sqlx::query(AssertSqlSafe(text.to_owned())).fetch_one(&mut self.connect().await).await.unwrap();
        row.get(0)
    }

    /// Moves its clock.
    pub(crate) async fn set_clock(&self, to: Timestamp) {
        self.sql(&format!("UPDATE hands SET at = hub_time({})", to.as_millis())).await;
    }

    /// The counters are what counting gives.
    pub(crate) async fn audit(&self) {
        let wrong = self
            .number(
                "SELECT count(*) FROM (SELECT target, sum(depth) AS depth, sum(in_flight) AS held, \
                  sum(accepted_total) AS taken FROM backlog GROUP BY target) b FULL JOIN \
                 (SELECT target, count(*) AS depth, count(owner) AS held FROM deliveries GROUP BY target) d \
                  USING (target) FULL JOIN (SELECT target_service AS target, count(*) AS taken FROM messages \
                  GROUP BY target_service) m USING (target) \
                 WHERE coalesce(b.depth, 0) <> coalesce(d.depth, 0) OR coalesce(b.held, 0) <> coalesce(d.held, 0) \
                  OR coalesce(b.taken, 0) <> coalesce(m.taken, 0)",
            )
            .await;
        assert_eq!(wrong, 0, "targets whose counters are not what they count");
    }
}

/// Ids of a node that no other node of the test gives.
pub(crate) struct NodeIds {
    ids: Ids,
    node: u64,
}

impl IdSource for NodeIds {
    fn message_id(&self, now: Timestamp) -> MessageId {
        MessageId(Uuid::from_u128(self.ids.message_id(now).0.as_u128() | (u128::from(self.node) << 48)))
    }

    fn request_id(&self) -> RequestId {
        RequestId(Uuid::from_u128(self.ids.request_id().0.as_u128() | (u128::from(self.node) << 90)))
    }

    fn below(&self, bound: u64) -> u64 {
        (bound / 2 + self.node * 7_919) % bound.max(1)
    }

    fn secret(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// A hub as far as the store goes.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) slots: Arc<TestSlots>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<NodeIds>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Node {
    /// Node `number`, on the real clock.
    pub(crate) fn start(url: &str, number: u64) -> Self {
        Self::start_with(url, number, Arc::new(RealClock), |_| {})
    }

    pub(crate) fn start_with(
        url: &str,
        number: u64,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = Options::new(SecretString::from(url.to_owned()));
        change(&mut options);
        let slots = Arc::new(TestSlots::default());
        let ids = Arc::new(NodeIds { ids: Ids::default(), node: number });
        let ports = Ports {
            node: NodeId(number),
            clock: Arc::clone(&clock),
            ids: ids.clone(),
            slots: slots.clone(),
            outbox: None,
        };
        let (service, store) = options.build(ports).unwrap();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        let running = tokio::spawn(service.run(stop.clone()));
        Self { store, slots, clock, ids, stop, running }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    pub(crate) fn message(&self, target: &str) -> NewMessage {
        let now = self.clock.now();
        let id = self.ids.message_id(now);
        NewMessage {
            id,
            sender: "sender".parse().unwrap(),
            target: target.parse().unwrap(),
            message_type: "thing.happened".into(),
            content: format!("{{\"id\":\"{id}\"}}").into(),
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

    pub(crate) async fn accept(&self, message: NewMessage) -> Result<Accepted, StoreError> {
        self.accept_within(message, Duration::from_secs(60)).await
    }

    pub(crate) async fn accept_within(
        &self,
        message: NewMessage,
        within: Duration,
    ) -> Result<Accepted, StoreError> {
        let until = self.clock.instant() + within;
        let mut results = self.store.accept(vec![message], AcceptMode::Each, until).await?;
        Ok(results.pop().unwrap().unwrap())
    }

    pub(crate) async fn claim(&self, target: &str, count: u32) -> Vec<Claimed> {
        let want = Want { target: service(target), count, lease: LEASE };
        self.store.claim(vec![want], deadline()).await.unwrap()
    }

    /// The next signal that hands messages over.
    pub(crate) async fn handed(&self) -> Vec<Claimed> {
        loop {
            let signal = tokio::time::timeout(Duration::from_secs(60), self.store.next()).await;
            if let QueueSignal::Claimed(claimed) = signal.expect("a message that is handed over") {
                return claimed;
            }
        }
    }
}

pub(crate) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Far enough for a loaded machine.
pub(crate) fn deadline() -> Instant {
    RealClock.instant() + Duration::from_secs(60)
}

/// Waits until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = deadline();
    while !holds().await {
        assert!(RealClock.instant() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A clock that a test moves, and the database's with it.
pub(crate) async fn advance(base: &Base, clock: &ManualClock, by: Duration) {
    clock.advance(by);
    base.set_clock(clock.now()).await;
}
