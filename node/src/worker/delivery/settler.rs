//! Writes the ends of attempts down, in batches: what gathers while earlier ones are written goes together.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hub_core::delivery::{SettleOutcome, Settlement};
use hub_core::port::{DeliveryQueue, IdSource, StoreError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::shared::Shared;

/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);
/// How long the only try may take once the node gives up waiting.
const LAST_TRY: Duration = Duration::from_secs(2);
/// The longest pause between tries.
const LONGEST_PAUSE_MS: u64 = 1_000;

/// Settles what attempts send, until the last attempt is gone and all is written.
pub(super) struct Settler {
    pub(super) queue: Arc<dyn DeliveryQueue>,
    pub(super) shared: Arc<Shared>,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) abort: CancellationToken,
    pub(super) batch: usize,
    pub(super) in_flight: usize,
}

impl Settler {
    pub(super) async fn run(self, mut ends: UnboundedReceiver<Settlement>) {
        let batch = self.batch.max(1);
        let mut writing = FuturesUnordered::new();
        loop {
            let mut gathered = Vec::new();
            tokio::select! {
                Some(()) = writing.next(), if !writing.is_empty() => {}
                count = ends.recv_many(&mut gathered, batch), if writing.len() < self.in_flight.max(1) => {
                    if count == 0 {
                        break;
                    }
                    writing.push(self.settle(gathered));
                }
            }
        }
        while writing.next().await.is_some() {}
    }

    /// Writes one batch, again and again with the same claims while they hold.
    async fn settle(&self, mut batch: Vec<Settlement>) {
        self.metrics.settle_batch.observe(batch.len() as f64);
        let mut pause_ms = 20;
        let mut repeated = false;
        loop {
            let last = self.abort.is_cancelled();
            let deadline = self.shared.clock.instant() + if last { LAST_TRY } else { TRY };
            match self.queue.settle(batch.clone(), deadline).await {
                Ok(results) => return self.settled(&batch, &results, repeated),
                Err(StoreError::TooLarge { .. }) if batch.len() > 1 => {
                    let rest = batch.split_off(batch.len() / 2);
                    Box::pin(self.settle(rest)).await;
                    continue;
                }
                Err(error @ (StoreError::TooLarge { .. } | StoreError::Corrupt(_))) => {
                    return self.lost(batch.len(), &error);
                }
                Err(error) if last => return self.lost(batch.len(), &error),
                Err(StoreError::Unknown(_)) => repeated = true,
                Err(_) => {}
            }
            self.pause(pause_ms).await;
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
            let before = batch.len();
            let now = self.shared.clock.now();
            batch.retain(|settlement| settlement.claim.lease_end > now);
            self.metrics.lost_settles.inc_by((before - batch.len()) as u64);
            if batch.is_empty() {
                return;
            }
        }
    }

    async fn pause(&self, ms: u64) {
        let pause = Duration::from_millis(ms / 2 + self.ids.below(ms / 2 + 1));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.abort.cancelled() => {}
        }
    }

    fn settled(&self, batch: &[Settlement], results: &[bool], repeated: bool) {
        for (settlement, took_effect) in batch.iter().zip(results) {
            if !took_effect {
                // After an unknown outcome "no effect" may mean that the first try had one.
                if !repeated {
                    self.metrics.late_settles.inc();
                }
                continue;
            }
            match &settlement.outcome {
                SettleOutcome::RetryAt { at, .. } => self.shared.due_at(*at),
                SettleOutcome::Released => self.shared.due_at(self.shared.clock.now()),
                SettleOutcome::Delivered | SettleOutcome::Dead(_) | SettleOutcome::Expired => {}
            }
        }
    }

    fn lost(&self, count: usize, error: &StoreError) {
        self.metrics.lost_settles.inc_by(count as u64);
        tracing::warn!(count, %error, "ends of attempts could not be written; the messages will be attempted again");
    }
}
