//! Brings rows to the broker that no flusher brings: parked ones when there is room, and those that the broker has lost.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::port::StoreError;

use super::broker::Shared;
use super::error::Error;
use super::name::Kind;
use super::rows::{Rows, Undertaken};
use super::topology::{Declarer, Depth};
use crate::postgres::Outgoing;

/// At most so long (jittered) from one look at everything to the next.
const ROUND: Duration = Duration::from_secs(4);
/// At least so long from one look for parked rows to the next.
const SPACING: Duration = Duration::from_millis(50);
/// While a target that is wanted here has parked rows, they are looked for so often.
const DRAINING: Duration = Duration::from_millis(200);
/// Most rows taken in one step.
const TAKE: u32 = 1_000;

/// Looks for rows to be published, over one connection after the other.
pub(super) struct Sweeper {
    pub(super) shared: Arc<Shared>,
    pub(super) rows: Arc<dyn Rows>,
}

impl Sweeper {
    /// Sweeps until the connection fails; why it did.
    pub(super) async fn run(&mut self, declarer: &mut Declarer) -> Error {
        let shared = Arc::clone(&self.shared);
        loop {
            // What the broker lost while nobody was connected is found at once.
            if let Err(error) = self.look_at_everything(declarer).await {
                return error;
            }
            let next = tokio::time::sleep(shared.jittered(ROUND));
            tokio::pin!(next);
            loop {
                let pause = if self.is_draining() { DRAINING } else { ROUND };
                tokio::select! {
                    () = &mut next => break,
                    () = shared.refill.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                if let Err(error) = self.refill(declarer).await {
                    return error;
                }
                tokio::time::sleep(SPACING).await;
            }
        }
    }

    /// Some target that is wanted here waits for room.
    fn is_draining(&self) -> bool {
        let shared = &self.shared;
        shared.gate.is_open() && shared.gate.parked().iter().any(|target| shared.shelves.is_wished(target))
    }

    async fn look_at_everything(&mut self, declarer: &mut Declarer) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        for target in (shared.ports.services)() {
            for kind in [Kind::Work, Kind::Dead] {
                lasting_aside(declarer.ensure(&shared, kind, &target).await)?;
            }
            if !shared.shelves.is_wished(&target) {
                // So that every node takes part in the delivery to every service that may be called.
                shared.signals.due(&target);
            }
        }
        let wished = shared.shelves.wished();
        for target in &wished {
            self.look(declarer, target).await?;
        }
        if !wished.is_empty() {
            for target in told(self.rows.parked(wished).await) {
                shared.gate.note_parked(&target);
            }
        }
        self.refill(declarer).await?;
        for undertaken in told(self.rows.undertaken().await) {
            self.find_lost(declarer, undertaken).await?;
        }
        Ok(())
    }

    /// Asks the target's queue what it holds; `None` if it cannot be used.
    async fn look(&mut self, declarer: &mut Declarer, target: &ServiceName) -> Result<Option<Depth>, Error> {
        let shared = &self.shared;
        if lasting_aside(declarer.ensure(shared, Kind::Work, target).await)?.is_none() {
            return Ok(None);
        }
        let found = lasting_aside(declarer.declare(&shared.options, Kind::Work, target).await)?;
        if let Some(depth) = found {
            shared.gate.seen(target, depth.messages);
            shared.metrics.saw(target, depth.messages, depth.consumers);
        }
        Ok(found)
    }

    /// Publishes parked rows of targets that are wanted here, as far as there is room.
    async fn refill(&mut self, declarer: &mut Declarer) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        for target in shared.gate.crowded() {
            self.look(declarer, &target).await?;
        }
        for target in shared.gate.parked() {
            if !shared.shelves.is_wished(&target) {
                continue;
            }
            let room = shared.gate.room(&target).min(TAKE);
            if room == 0 {
                continue;
            }
            // Before the rows are looked at: whoever parks one meanwhile notes it again.
            shared.gate.forget_parked(&target);
            match self.rows.take_parked(&target, room).await {
                Ok(parcels) => {
                    if parcels.len() == room as usize {
                        shared.gate.note_parked(&target);
                    }
                    shared.send_all(parcels);
                }
                Err(error) => {
                    tracing::debug!(%error, "parked rows could not be taken");
                    shared.gate.note_parked(&target);
                }
            }
        }
        Ok(())
    }

    /// Overdue rows are published again as far as the queue and this node's shelves hold fewer than there should be. Those on
    /// a shelf of another node seem to be missing, too: they come twice, and the second is dropped.
    async fn find_lost(&mut self, declarer: &mut Declarer, undertaken: Undertaken) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let Undertaken { target, all, overdue } = undertaken;
        if !shared.gate.is_open() {
            return Ok(());
        }
        let Some(depth) = self.look(declarer, &target).await? else { return Ok(()) };
        let here = depth.messages.saturating_add(shared.shelves.waiting(&target));
        let missing = all.saturating_sub(here).min(overdue);
        let mut room = missing.min(shared.gate.room(&target));
        while room > 0 {
            let parcels: Vec<Outgoing> = told(self.rows.take_overdue(&target, room.min(TAKE)).await);
            if parcels.is_empty() {
                break;
            }
            let count = u32::try_from(parcels.len()).unwrap_or(u32::MAX);
            if depth.messages == 0 {
                tracing::info!(service = %target, count, "RabbitMQ has lost messages; they are published again");
            }
            shared.metrics.republished.inc_by(u64::from(count));
            shared.send_all(parcels);
            room = room.saturating_sub(count);
        }
        Ok(())
    }
}

/// A queue that cannot be used concerns its target alone.
fn lasting_aside<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_lasting() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the store said; nothing if it could not.
fn told<T>(answer: Result<Vec<T>, StoreError>) -> Vec<T> {
    answer.unwrap_or_else(|error| {
        tracing::debug!(%error, "the store could not say what is to be published");
        Vec::new()
    })
}
