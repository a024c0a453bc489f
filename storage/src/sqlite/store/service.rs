//! What has to run for the store: leadership becomes signals, settlements become entries.

use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{Claim, SettleOutcome, Settlement};
use hub_core::port::Leadership;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::settler::{self, Waiting};

/// How long giving unused claims back may take; their leases end soon enough without it.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// The same when the node stops.
const LAST_GIVE_BACK: Duration = Duration::from_secs(1);
/// Most claims given back in one entry.
const AT_ONCE: usize = 500;

/// The store's running part.
pub struct StoreService {
    inner: Arc<Inner>,
    queue: mpsc::Receiver<Waiting>,
}

impl StoreService {
    pub(super) const fn new(inner: Arc<Inner>, queue: mpsc::Receiver<Waiting>) -> Self {
        Self { inner, queue }
    }

    /// Runs until `stop`; settlements that wait then are still written.
    pub async fn run(self, stop: CancellationToken) {
        let Self { inner, queue } = self;
        let signals = async {
            tokio::join!(watch(&inner, &stop), give_back(&inner, &stop), inspect(&inner, &stop));
            release(&inner, inner.ports.feed.take_unused(), LAST_GIVE_BACK).await;
        };
        tokio::join!(signals, settler::run(Arc::clone(&inner), queue, stop.clone()));
    }
}

/// Checks what the start left out, once.
async fn inspect(inner: &Inner, stop: &CancellationToken) {
    let found = tokio::select! {
        () = stop.cancelled() => return,
        found = inner.ports.reader.inspect() => found,
    };
    match found {
        Ok(differences) => {
            for difference in differences {
                tracing::error!(%difference, "a counter is not what it counts");
            }
        }
        Err(error) => tracing::error!(%error, "the message database could not be checked"),
    }
}

/// Releases claims that came too late to be handed over: a message must not wait for a lease that nobody uses.
async fn give_back(inner: &Inner, stop: &CancellationToken) {
    let work = async {
        loop {
            release(inner, inner.ports.feed.unused().await, GIVE_BACK).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn release(inner: &Inner, claims: Vec<Claim>, within: Duration) {
    let deadline = inner.ports.clock.instant() + within;
    for claims in claims.chunks(AT_ONCE) {
        let unused = |claim: &Claim| Settlement {
            claim: claim.clone(),
            outcome: SettleOutcome::Released,
            attempt: None,
            error: None,
        };
        let settlements = claims.iter().map(unused).collect();
        if let Err(error) = inner.propose_settlements(settlements, deadline).await {
            tracing::debug!(%error, claims = claims.len(), "unused claims run out by themselves");
        }
    }
}

async fn watch(inner: &Inner, stop: &CancellationToken) {
    let replicator = &inner.ports.replicator;
    let mut seen = replicator.leadership();
    tell(inner, seen);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            next = replicator.leadership_changed(seen) => {
                tell(inner, next);
                seen = next;
            }
        }
    }
    inner.ports.feed.stopped(seen.term);
}

fn tell(inner: &Inner, now: Leadership) {
    let feed = &inner.ports.feed;
    // Without a leader this node may still come to lead this term.
    let over = match now.leader {
        Some(leader) if leader != feed.node() => now.term,
        _ => now.term.saturating_sub(1),
    };
    if now.leader == Some(feed.node()) && now.ready {
        feed.started(now.term);
    } else {
        feed.stopped(over);
    }
}
