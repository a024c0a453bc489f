//! The conformance suite on Postgres with RabbitMQ before it, every case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hub_core::delivery::Settlement;
use hub_core::id::ServiceName;
use hub_core::port::{Claimed, Clock, DeliveryQueue, QueueSignal, StoreError, Want};
use hub_core::time::Timestamp;
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::Mutex;

use super::hub::{Hub, database, options, sql, virtual_host};
use crate::rabbitmq::broker::Shared;
use crate::rabbitmq::{Prefix, Queue};
use crate::suite::{self, BACKLOG_BOUND, ManualClock, Moved, Stage};

/// The database's clock stands still until it is moved.
const HANDS: &str = "CREATE TABLE hands (at timestamptz NOT NULL); \
     INSERT INTO hands VALUES (hub_time(1800000000000)); \
     CREATE OR REPLACE FUNCTION hub_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM hands'";
const CLAIMABLE: &str = "SELECT count(*) FROM deliveries WHERE target = $1 AND owner IS NULL AND due <= hub_now() \
     AND (expires_at IS NULL OR expires_at > hub_now())";

/// The queue of a node that waits for what is under way: the suite asks for what must be there, and a broker takes a moment.
struct Patient {
    queue: Queue,
    shared: Arc<Shared>,
    database: Mutex<PgConnection>,
}

impl Patient {
    async fn claimable(&self, target: &ServiceName) -> i64 {
        let query = sqlx::query(CLAIMABLE).bind(target.as_str());
        query.fetch_one(&mut *self.database.lock().await).await.unwrap().get(0)
    }

    /// Waits until all that can be claimed is here.
    async fn arrived(&self, target: &ServiceName, until: Instant) {
        while self.claimable(target).await > i64::from(self.shared.shelves.waiting(target)) {
            assert!(self.shared.now() < until, "messages of {target} never came through the broker");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl DeliveryQueue for Patient {
    async fn next(&self) -> QueueSignal {
        self.queue.next().await
    }

    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        // Leases that ran out are noticed, and the target is wished for, without claiming anything.
        self.queue.due().await?;
        for want in &wants {
            self.queue.claim(vec![Want { count: 0, ..want.clone() }], deadline).await?;
            self.arrived(&want.target, deadline).await;
        }
        self.queue.claim(wants, deadline).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        self.queue.settle(settlements, deadline).await
    }

    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        self.queue.due().await
    }
}

async fn on_fresh_stage(number: usize, broker: &str, case: &suite::Case) {
    let database = database().await;
    sql(&database, HANDS).await;
    let clock = Arc::new(ManualClock::default());
    let mut options = options(broker);
    options.prefix = format!("case-{number}").parse::<Prefix>().unwrap();
    options.least_prefetch = 200;
    let hub = Hub::start_with(1, &database, options, clock.clone(), BACKLOG_BOUND);
    hub.is_connected().await;
    let connect = async || PgConnection::connect(&database).await.unwrap();
    let hands = Arc::new(Mutex::new(connect().await));
    let moved: Moved = Arc::new(move |now| {
        let hands = Arc::clone(&hands);
        Box::pin(async move {
            let query = sqlx::query("UPDATE hands SET at = hub_time($1)").bind(now.as_millis());
            let done = query.execute(&mut *hands.lock().await).await;
            done.map(drop).map_err(|error| error.to_string())
        })
    });
    let queue = Patient {
        queue: hub.queue.clone(),
        shared: Arc::clone(&hub.shared),
        database: Mutex::new(connect().await),
    };
    assert_eq!(clock.now().as_millis(), 1_800_000_000_000, "where the database's clock stands");
    let stage = Stage {
        store: Arc::new(hub.store.clone()),
        queue: Arc::new(queue),
        clock,
        slots: Arc::clone(&hub.slots),
        moved: Some(moved),
        has_broker: true,
    };
    let verdict = (case.run)(&stage).await;
    drop(stage);
    hub.end().await;
    if let Err(failure) = verdict {
        panic!("{}: {failure}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_before_postgres_passes_every_case() {
    let broker = virtual_host().await;
    let cases = suite::cases();
    for (number, case) in cases.iter().enumerate() {
        on_fresh_stage(number, &broker, case).await;
    }
    println!("{} cases of the delivery queue on Postgres and RabbitMQ", cases.len());
}
