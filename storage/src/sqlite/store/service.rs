//! What has to run for the store: leadership becomes signals, settlements become entries.

use std::sync::Arc;

use hub_core::port::Leadership;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::settler::{self, Waiting};

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
        tokio::join!(watch(Arc::clone(&inner), stop.clone()), settler::run(inner, queue, stop));
    }
}

async fn watch(inner: Arc<Inner>, stop: CancellationToken) {
    let replicator = &inner.ports.replicator;
    let mut seen = replicator.leadership();
    tell(&inner, seen);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            next = replicator.leadership_changed(seen) => {
                tell(&inner, next);
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
