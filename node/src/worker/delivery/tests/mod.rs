//! The dispatcher over a queue in memory and real targets on loopback.

mod answers;
mod flow;
mod queue;
mod stop;
mod target;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hub_core::control::State;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Message, Status};
use hub_core::port::{Clock, IdSource, QueueSignal};
use hub_core::registry::{Instance, Service};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::queue::{FakeQueue, NODE};
use super::*;
use crate::clock::HubClock;
use crate::ids::Ids;
use crate::lifecycle::Tokens;
use crate::outbound;

/// A running dispatcher with all around it.
struct Bench {
    queue: Arc<FakeQueue>,
    handle: Handle,
    registry: watch::Sender<State>,
    clock: Arc<HubClock>,
    ids: Arc<Ids>,
    metrics: prometheus::Registry,
    tokens: Tokens,
    dispatcher: JoinSet<()>,
}

impl Bench {
    async fn start(options: Options) -> Self {
        let bench = Self::start_following(options);
        bench.queue.signal(QueueSignal::Started);
        let delivering = async {
            while !bench.handle.is_delivering() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), delivering).await.unwrap();
        bench
    }

    /// As on a node that does not lead.
    fn start_following(options: Options) -> Self {
        let (clock, ids) = (Arc::new(HubClock::default()), Arc::new(Ids::new()));
        let registry = watch::Sender::new(State::default());
        let queue = FakeQueue::new(clock.clone());
        let metrics = prometheus::Registry::new();
        let handle = options.handle(registry.subscribe(), clock.clone());
        let outbound = outbound::Options::default()
            .build(outbound::tests::with_loopback(), Arc::new(outbound::SystemResolver))
            .unwrap();
        let ports =
            Ports { queue: queue.clone(), outbound, ids: ids.clone(), node: NODE, metrics: metrics.clone() };
        let service = options.build(&handle, ports).unwrap();
        let tokens = Tokens { soft: CancellationToken::new(), hard: CancellationToken::new() };
        let mut dispatcher = JoinSet::new();
        dispatcher.spawn(service.run(tokens.clone()));
        Self { queue, handle, registry, clock, ids, metrics, tokens, dispatcher }
    }

    fn register(&self, service: Service) {
        self.registry.send_modify(|state| {
            state.services.insert(service.name.clone(), Arc::new(service));
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Service)) {
        self.registry.send_modify(|state| {
            let mut service = Service::clone(&state.services[&name.parse::<ServiceName>().unwrap()]);
            change(&mut service);
            state.services.insert(service.name.clone(), Arc::new(service));
        });
    }

    fn message(&self, target: &str) -> Message {
        let now = self.clock.now();
        Message {
            id: self.ids.message_id(now),
            sender: "sender".parse().unwrap(),
            target: target.parse().unwrap(),
            message_type: "thing.done".into(),
            content: r#"{"b": 1.50, "a": [ ]}"#.into(),
            metadata: None,
            priority: hub_core::message::Priority::default(),
            created_at: now,
            expires_at: None,
            max_retries: None,
            traceparent: None,
        }
    }

    /// Accepts a message as a store does; its id.
    fn send(&self, message: Message) -> MessageId {
        let id = message.id;
        self.queue.accept(message, &self.handle);
        id
    }

    async fn wait_status(&self, id: MessageId, status: Status) -> queue::Row {
        self.queue
            .wait(&format!("status {status}"), |rows| {
                rows.iter().any(|row| row.message.id == id && row.status == status)
            })
            .await;
        self.queue.row(id)
    }

    /// The value of a metric, all its labels summed up.
    fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).expect("metric exists");
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        family.get_metric().iter().map(value).sum()
    }

    /// Drains, and asserts that no slot is left behind.
    async fn finish(mut self) {
        self.tokens.soft.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.dispatcher.join_next())
            .await
            .expect("drains in time")
            .unwrap()
            .unwrap();
        assert_eq!(self.handle.slots_used(), 0);
    }
}

/// A service whose instances listen at `urls`, with short retries.
pub(crate) fn service(name: &str, urls: &[&str]) -> Service {
    let instances: BTreeMap<_, _> = urls
        .iter()
        .enumerate()
        .map(|(number, url)| {
            let id: hub_core::id::InstanceId = format!("i{number}").parse().unwrap();
            let instance = Instance {
                id: id.clone(),
                url: (*url).into(),
                weight: 100,
                health: hub_core::registry::Health::Passing,
                maintenance: false,
                health_since: hub_core::time::Timestamp::EPOCH,
                registered_at: hub_core::time::Timestamp::EPOCH,
            };
            (id, instance)
        })
        .collect();
    Service {
        name: name.parse().unwrap(),
        version: None,
        instances: instances.into_iter().collect(),
        delivery: hub_core::registry::DeliverySettings::default(),
        retry: hub_core::delivery::RetryPolicy {
            base_ms: 1,
            cap_ms: 60_000,
            max_retries: Some(3),
            retry_on: vec![],
        },
        health_check: hub_core::registry::HealthCheck::default(),
        message_types: Vec::new(),
        metadata: None,
        tags: Vec::new(),
        paused: false,
        secrets: Vec::new(),
        revision: 1,
        created_at: hub_core::time::Timestamp::EPOCH,
        updated_at: hub_core::time::Timestamp::EPOCH,
    }
}
