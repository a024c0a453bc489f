//! Whether Redis decides, or this node by itself, and how often each did.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who decides now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Redis has not been asked yet.
    Starting,
    /// Redis, for the whole cluster.
    Shared,
    /// This node, for its share, because of this.
    Local(String),
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that Redis decided.
    pub shared: u64,
    /// Requests that this node decided by itself.
    pub local: u64,
    /// How often it began to.
    pub falls: u64,
    /// Messages shown out of the cache.
    pub hits: u64,
    /// Messages that were not in it.
    pub misses: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) shared: AtomicU64,
    pub(super) local: AtomicU64,
    pub(super) falls: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            shared: value(&self.shared),
            local: value(&self.local),
            falls: value(&self.falls),
            hits: value(&self.hits),
            misses: value(&self.misses),
        }
    }
}
