//! What has to run for the store: flushers, and what is looked after now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::delivery::{Claim, SettleOutcome, Settlement};
use hub_core::port::StoreError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept;
use super::backlog::FOLD;
use super::claim;
use super::settle;
use super::setup::{DAYS_AHEAD, MAKE_AHEAD};
use super::store::Inner;

/// The depths are read so often.
const DEPTHS: Duration = Duration::from_secs(1);
/// What other nodes left due, and leases that ran out, are looked for so often, and up to so much later. Own messages need
/// no look: this is only for those whose node had no slot for them, or died.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause of both, however long they take.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Partitions ahead and folded counters are seen to so often, and up to so much later.
const UPKEEP: Duration = Duration::from_secs(60);
/// How long giving unused claims back may take, when the node stops too, and the pause before it is tried again. Their
/// leases end soon enough without it.
const GIVE_BACK: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(500);
const LAST_GIVE_BACK: Duration = Duration::from_secs(1);

/// The store's running part.
pub struct Service {
    inner: Arc<Inner>,
}

impl Service {
    pub(super) const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Runs until `stop`; messages that wait then are still written, and settlements still are after it. Stop it when nothing
    /// is accepted any more.
    pub async fn run(self, stop: CancellationToken) {
        let inner = self.inner;
        let flushers = TaskTracker::new();
        for _ in 0..inner.options.flushers.clamp(1, 8) {
            flushers.spawn(accept::run(Arc::clone(&inner)));
        }
        flushers.close();
        inner.signals.start();
        let work = async {
            tokio::join!(read_depths(&inner), look(&inner), keep_up(&inner), give_back(&inner));
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        for target in inner.signals.stop() {
            inner.ports.slots.give_back(&target);
        }
        inner.queue.close();
        flushers.wait().await;
        if let Err(error) = release(&inner, &inner.signals.take_unused(), LAST_GIVE_BACK).await {
            tracing::debug!(%error, "unused claims run out by themselves");
        }
    }
}

async fn pause(inner: &Inner, least: Duration) {
    let more = inner.ports.ids.below(u64::try_from(least.as_millis()).unwrap_or(0));
    tokio::time::sleep(least + Duration::from_millis(more)).await;
}

/// How long to rest after work that began then, so that it never takes more than a twentieth of the time: while some session
/// holds an old snapshot, rows that are gone are walked over again and again.
fn rest(inner: &Inner, started: Instant) -> Duration {
    (inner.ports.clock.instant().saturating_duration_since(started) * 20).min(LONGEST_REST)
}

async fn read_depths(inner: &Inner) {
    loop {
        let started = inner.ports.clock.instant();
        if let Err(error) = inner.depths.refresh(&inner.reads, inner.soon()).await {
            tracing::debug!(%error, "the backlogs could not be read");
        }
        tokio::time::sleep(DEPTHS.max(rest(inner, started))).await;
    }
}

async fn look(inner: &Inner) {
    let mut least = LOOK;
    loop {
        pause(inner, least).await;
        let started = inner.ports.clock.instant();
        let seen = match &inner.ports.outbox {
            // The broker brings what is due.
            Some(_) => claim::lapse(inner, inner.soon()).await.map(drop),
            None => claim::due(inner, inner.soon()).await.map(|(due, later)| inner.signals.waits(due, later)),
        };
        if let Err(error) = seen {
            tracing::debug!(%error, "it could not be looked for what is due");
        }
        least = LOOK.max(rest(inner, started));
    }
}

async fn keep_up(inner: &Inner) {
    loop {
        let ahead = sqlx::query(MAKE_AHEAD).bind(DAYS_AHEAD);
        for (during, query) in [("making partitions", ahead), ("folding counters", sqlx::query(FOLD))] {
            if let Err(error) = inner.work.write(during, inner.soon(), query).await {
                tracing::debug!(%error, "upkeep of the database failed");
            }
        }
        pause(inner, UPKEEP).await;
    }
}

/// Releases claims that nobody will use: a message must not wait for a lease that nobody works under.
async fn give_back(inner: &Inner) {
    loop {
        let mut claims = inner.signals.next_unused().await;
        if let Err(error) = release(inner, &claims, GIVE_BACK).await {
            tracing::debug!(%error, count = claims.len(), "unused claims could not be given back yet");
            tokio::time::sleep(AGAIN).await;
            let now = inner.ports.clock.now();
            claims.retain(|claim| claim.lease_end > now);
            inner.signals.unused(claims);
        }
    }
}

async fn release(inner: &Inner, claims: &[Claim], within: Duration) -> Result<(), StoreError> {
    let deadline = inner.ports.clock.instant() + within;
    let unused = |claim: &Claim| Settlement {
        claim: claim.clone(),
        outcome: SettleOutcome::Released,
        attempt: None,
        error: None,
    };
    let settlements: Vec<Settlement> = claims.iter().map(unused).collect();
    settle::settle(inner, &settlements, deadline).await.map(drop)
}
