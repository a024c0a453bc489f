//! Compares this node's clock with those of the others, every 10 s and when it begins to lead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hub_core::id::NodeId;
use hub_core::port::Clock;
use hub_core::time::{LeaderClock, OffMedian, Sample, Timestamp};
use prometheus::{Gauge, IntGauge, Registry};
use tokio::sync::watch;
use tracing::{info, warn};

use super::HubClock;
use crate::control_port::Seen;

/// How long the others may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Asks the other nodes for their wall clocks.
#[async_trait]
pub trait PeerClocks: Send + Sync + 'static {
    /// The wall clocks of the live voters that answer within `limit`, this node's not among them.
    async fn walls(&self, limit: Duration) -> Vec<Sample>;
}

/// What it works with.
pub struct Sampler {
    /// This node.
    pub node: NodeId,
    /// What is drawn towards the median.
    pub clock: Arc<HubClock>,
    /// The others.
    pub peers: Arc<dyn PeerClocks>,
    /// The newest time in the state.
    pub floor: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The leaderships whose terms begin with a round.
    pub groups: Vec<watch::Receiver<Seen>>,
}

/// How this machine's clock is.
#[derive(Clone)]
pub struct SamplerMetrics {
    offset: Gauge,
    nodes_off: IntGauge,
}

impl SamplerMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            offset: Gauge::new(
                "hub_clock_offset_seconds",
                "How far this machine's wall clock is from hub time.",
            )?,
            nodes_off: IntGauge::new(
                "hub_clock_nodes_off",
                "Nodes whose wall clock is more than 5 s off the median.",
            )?,
        };
        registry.register(Box::new(metrics.offset.clone()))?;
        registry.register(Box::new(metrics.nodes_off.clone()))?;
        Ok(metrics)
    }
}

impl Sampler {
    /// One round that may set the clock anew: at the start, and when this node begins to lead.
    pub async fn begin(&self) -> Vec<OffMedian> {
        let samples = self.samples().await;
        self.clock.begin(&samples, (self.floor)())
    }

    /// Runs for ever.
    pub async fn run(mut self, metrics: SamplerMetrics) {
        let mut off: Vec<NodeId> = Vec::new();
        loop {
            let begins = tokio::select! {
                () = tokio::time::sleep(LeaderClock::SAMPLE_EVERY) => false,
                () = begins_to_lead(&mut self.groups, self.node) => true,
            };
            let found = if begins {
                self.begin().await
            } else {
                let samples = self.samples().await;
                self.clock.adjust(&samples)
            };
            metrics.offset.set(self.clock.off().as_secs_f64());
            metrics.nodes_off.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
            report(&mut off, &found);
        }
    }

    async fn samples(&self) -> Vec<Sample> {
        let mut samples = self.peers.walls(ANSWER).await;
        samples.push(Sample { node: self.node, wall: self.clock.wall() });
        samples
    }
}

/// Says it once when a clock goes off, and once when it is well again.
fn report(known: &mut Vec<NodeId>, found: &[OffMedian]) {
    for off in found.iter().filter(|off| !known.contains(&off.node)) {
        warn!(
            node = off.node.0,
            millis = off.millis,
            "[HUB-2011] a node's clock is off and is not counted; mend it (NTP)"
        );
    }
    for node in known.iter().filter(|node| !found.iter().any(|off| off.node == **node)) {
        info!(node = node.0, "the node's clock is well again");
    }
    *known = found.iter().map(|off| off.node).collect();
}

/// Waits until `node` begins to lead one of the groups.
async fn begins_to_lead(groups: &mut [watch::Receiver<Seen>], node: NodeId) {
    let waits = groups.iter_mut().map(|group| {
        Box::pin(async move {
            while group.changed().await.is_ok() {
                if group.borrow_and_update().leadership.leader == Some(node) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        })
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = futures::future::select_all(waits).await;
}
