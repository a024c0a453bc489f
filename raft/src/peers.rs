//! The other nodes as this one finds them: which answer, and what their clocks show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_core::id::NodeId;
use hub_core::port::Clock;
use hub_core::time::{Sample, Timestamp};

use crate::network::{Lane, Transport};
use crate::proto as pb;
use crate::proto::hub_client::HubClient;

/// How often each node is asked.
const ASK: Duration = Duration::from_millis(500);
/// A node that has not answered for this long is not live.
const SILENT: Duration = Duration::from_secs(3);
/// One question may take this long.
const ANSWER: Duration = Duration::from_secs(1);

/// Which nodes answer. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    transport: Transport,
    heard: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
}

impl Peers {
    /// Nobody was asked yet.
    #[must_use]
    pub fn new(transport: &Transport) -> Self {
        Self { transport: transport.clone(), heard: Arc::default() }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes other than this one that answered lately.
    #[must_use]
    pub fn live(&self) -> BTreeSet<NodeId> {
        let now = self.transport.inner.clock.instant();
        let heard = self.heard();
        let lately = heard.iter().filter(|(_, at)| now.saturating_duration_since(**at) < SILENT);
        lately.map(|(node, _)| *node).collect()
    }

    /// Asks all members again and again; `members` says who they are.
    pub async fn run(self, members: impl Fn() -> Vec<NodeId> + Send) {
        loop {
            let others = members().into_iter().filter(|node| *node != self.transport.node());
            futures::future::join_all(others.map(|node| self.ask(node))).await;
            tokio::time::sleep(ASK).await;
        }
    }

    async fn ask(&self, node: NodeId) {
        let mut client = HubClient::new(self.transport.inner.channel(node, Lane::Calls));
        if let Ok(Ok(_)) = tokio::time::timeout(ANSWER, client.status(pb::StatusRequest {})).await {
            let now = self.transport.inner.clock.instant();
            self.heard().insert(node, now);
        }
    }

    /// What the wall clocks of the live nodes show now, as far as they answer within `limit`.
    pub async fn walls(&self, limit: Duration) -> Vec<Sample> {
        self.walls_of(self.live(), limit).await
    }

    /// The same of these nodes.
    pub async fn walls_of(&self, nodes: impl IntoIterator<Item = NodeId>, limit: Duration) -> Vec<Sample> {
        let asked = nodes.into_iter().map(|node| self.wall(node, limit));
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn wall(&self, node: NodeId, limit: Duration) -> Option<Sample> {
        let clock: &Arc<dyn Clock> = &self.transport.inner.clock;
        let mut client = HubClient::new(self.transport.inner.channel(node, Lane::Calls));
        let started = clock.instant();
        let reply =
            tokio::time::timeout(limit, client.wall_clock(pb::WallClockRequest {})).await.ok()?.ok()?;
        let trip = clock.instant().saturating_duration_since(started);
        let wall = Timestamp::from_millis(reply.into_inner().wall_ms).plus(trip / 2);
        Some(Sample { node, wall })
    }
}
