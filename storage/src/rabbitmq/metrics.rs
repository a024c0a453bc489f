//! What the broker's side tells Prometheus.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hub_core::id::ServiceName;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// Targets that have their own label; the others are left out.
const LABELLED: usize = 100;

/// The collectors.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) connected: IntGauge,
    pub(super) blocked: IntGauge,
    pub(super) sessions: IntCounter,
    pub(super) published: IntCounter,
    pub(super) confirmed: IntCounter,
    pub(super) unconfirmed: IntGauge,
    pub(super) refused: IntCounter,
    pub(super) returned: IntCounter,
    pub(super) republished: IntCounter,
    pub(super) burials: IntCounter,
    pub(super) burials_dropped: IntCounter,
    pub(super) consumed: IntCounter,
    pub(super) acknowledged: IntCounter,
    pub(super) stale: IntCounter,
    pub(super) parked: IntCounter,
    pub(super) consumers: IntGauge,
    pub(super) waiting: IntGauge,
    pub(super) held: IntGauge,
    depth: IntGaugeVec,
    queue_consumers: IntGaugeVec,
    labelled: Mutex<HashSet<ServiceName>>,
}

struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn add<T: Collector + Clone + 'static>(&self, collector: T) -> prometheus::Result<T> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::with_opts(opts(name, help))?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(opts(name, help))?)
    }

    fn by_target(&self, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(opts(name, help), &["target"])?)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("hub_rabbitmq_{name}"), help)
}

impl Metrics {
    /// Makes and registers them.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker(registry);
        Ok(Self {
            connected: make.gauge("connected", "1 while this node is connected to RabbitMQ")?,
            blocked: make
                .gauge("blocked", "1 while RabbitMQ takes nothing because it is short of memory or disk")?,
            sessions: make.counter("connections_total", "Times a connection to RabbitMQ was made")?,
            published: make.counter("published_total", "Ids sent to RabbitMQ")?,
            confirmed: make.counter("confirmed_total", "Ids that RabbitMQ has confirmed")?,
            unconfirmed: make.gauge("unconfirmed", "Ids sent and not confirmed yet")?,
            refused: make.counter("refused_total", "Ids that a full queue did not take")?,
            returned: make.counter("returned_total", "Ids that came back because their queue was gone")?,
            republished: make
                .counter("republished_total", "Ids published again because RabbitMQ had lost them")?,
            burials: make.counter("dead_letter_copies_total", "Dead letters shown in a dead-letter queue")?,
            burials_dropped: make
                .counter("dead_letter_copies_dropped_total", "Dead letters that could not be shown")?,
            consumed: make.counter("consumed_total", "Ids received from RabbitMQ")?,
            acknowledged: make.counter("acknowledged_total", "Ids acknowledged to RabbitMQ")?,
            stale: make
                .counter("stale_total", "Ids received whose message was not to be delivered any more")?,
            parked: make
                .counter("parked_total", "Ids given back to the store: the target is paused or busy")?,
            consumers: make.gauge("consumers", "Queues that this node consumes")?,
            waiting: make.gauge("waiting", "Ids received that wait for a free slot")?,
            held: make.gauge("held", "Ids received whose messages this node holds a claim on")?,
            depth: make
                .by_target("queue_messages", "Ids ready in the target's queue when it was last looked at")?,
            queue_consumers: make
                .by_target("queue_consumers", "Consumers of the target's queue when it was last looked at")?,
            labelled: Mutex::default(),
        })
    }

    /// A target's queue was looked at.
    pub(super) fn saw(&self, target: &ServiceName, depth: u32, consumers: u32) {
        let mut labelled = self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        if !labelled.contains(target) {
            if labelled.len() >= LABELLED {
                return;
            }
            labelled.insert(target.clone());
        }
        drop(labelled);
        self.depth.with_label_values(&[target.as_str()]).set(i64::from(depth));
        self.queue_consumers.with_label_values(&[target.as_str()]).set(i64::from(consumers));
    }

    /// The connection is gone.
    pub(super) fn disconnected(&self) {
        for gauge in [&self.connected, &self.blocked, &self.unconfirmed, &self.consumers, &self.waiting] {
            gauge.set(0);
        }
    }
}
