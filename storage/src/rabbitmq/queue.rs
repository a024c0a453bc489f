//! The delivery queue of this node: what the broker handed over, claimed in the store when the dispatcher wants it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hub_core::delivery::{Claim, SettleOutcome, Settlement};
use hub_core::id::{MessageId, ServiceName};
use hub_core::port::{Claimed, DeliveryQueue, QueueSignal, StoreError, Want};
use hub_core::time::Timestamp;

use super::broker::Shared;
use super::rows::{Rows, Wanted};
use super::shelves::{Place, Tag};
use crate::postgres::Burial;

/// The queue; cheap to clone. It needs its [`Service`](super::Service) to run.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
    rows: Arc<dyn Rows>,
    store: Arc<dyn DeliveryQueue>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

/// What was taken off a shelf to be claimed.
struct Taken {
    target: ServiceName,
    tag: Tag,
    place: Place,
}

impl Queue {
    pub(super) fn new(shared: Arc<Shared>, rows: Arc<dyn Rows>, store: Arc<dyn DeliveryQueue>) -> Self {
        Self { shared, rows, store }
    }

    /// What it shares with the other parts.
    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn take(&self, wants: Vec<Want>) -> (Vec<Wanted>, HashMap<MessageId, Taken>) {
        let now = self.shared.now();
        let (mut wanted, mut taken) = (Vec::new(), HashMap::new());
        for want in wants {
            let found = self.shared.shelves.take(&want.target, want.count, now);
            if found.len() < want.count as usize && self.shared.gate.has_parked(&want.target) {
                self.shared.refill.notify_one();
            }
            for (place, tag) in found {
                wanted.push(Wanted { id: place.id, lease: want.lease });
                taken.insert(place.id, Taken { target: want.target.clone(), tag, place });
            }
        }
        (wanted, taken)
    }

    fn put_back(&self, taken: HashMap<MessageId, Taken>) {
        let now = self.shared.now();
        for one in taken.into_values() {
            self.shared.shelves.put_back(&one.target, vec![(one.place, one.tag)], now);
            self.shared.signals.due(&one.target);
        }
    }
}

#[async_trait]
impl DeliveryQueue for Queue {
    async fn next(&self) -> QueueSignal {
        self.shared.signals.next().await
    }

    /// Claims what this node has received; it does not wait for more. What turns out not to be due, or to be held or ended
    /// already, is acknowledged and forgotten.
    async fn claim(&self, wants: Vec<Want>, deadline: Instant) -> Result<Vec<Claimed>, StoreError> {
        let (wanted, mut taken) = self.take(wants);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let claimed = match self.rows.claim_these(wanted, deadline).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.put_back(taken);
                return Err(error);
            }
        };
        let shared = &self.shared;
        for one in &claimed {
            if let Some(Taken { target, tag, .. }) = taken.remove(&one.claim.message) {
                let old = shared.shelves.hold(&one.claim, &target, tag);
                shared.acknowledge(old);
            }
        }
        for (_, Taken { target, tag, .. }) in taken {
            shared.metrics.stale.inc();
            shared.acknowledge([tag]);
            if shared.shelves.waiting(&target) > 0 {
                shared.signals.due(&target);
            }
        }
        Ok(claimed)
    }

    async fn settle(&self, settlements: Vec<Settlement>, deadline: Instant) -> Result<Vec<bool>, StoreError> {
        let ends: Vec<(Claim, SettleOutcome)> =
            settlements.iter().map(|one| (one.claim.clone(), one.outcome.clone())).collect();
        let results = self.store.settle(settlements, deadline).await?;
        let mut burials = Vec::new();
        for ((claim, outcome), took_effect) in ends.into_iter().zip(&results) {
            let Some((target, tag)) = self.shared.shelves.release(&claim) else { continue };
            let id = claim.message;
            self.shared.acknowledge(tag);
            match outcome {
                SettleOutcome::Dead(reason) if *took_effect => burials.push(Burial { id, target, reason }),
                SettleOutcome::RetryAt { .. } | SettleOutcome::Released => {
                    self.shared.gate.note_parked(&target)
                }
                SettleOutcome::Dead(_) | SettleOutcome::Delivered | SettleOutcome::Expired => {}
            }
        }
        self.shared.bury(burials);
        Ok(results)
    }

    /// As the store says. The rows that have become due are published soon after.
    async fn due(&self) -> Result<(Vec<ServiceName>, Option<Timestamp>), StoreError> {
        let (targets, next) = self.store.due().await?;
        for target in &targets {
            self.shared.gate.note_parked(target);
        }
        if !targets.is_empty() {
            self.shared.refill.notify_one();
        }
        Ok((targets, next))
    }
}
