//! How much may wait in this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;

/// Counts proposals without an answer, and their bytes.
#[derive(Debug)]
pub(super) struct Admission {
    count: AtomicUsize,
    bytes: AtomicUsize,
    max_count: usize,
    max_bytes: usize,
    gauge: IntGauge,
}

/// A proposal's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    pub(super) fn new(max_count: usize, max_bytes: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_count, max_bytes, gauge })
    }

    /// A place, or `None` when too much waits.
    pub(super) fn enter(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.gauge.inc();
        let place = Place { admission: Arc::clone(self), bytes };
        (count < self.max_count && total < self.max_bytes).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.admission.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_above_either_limit_and_recovers() {
        let admission = Admission::new(2, 100, IntGauge::new("a", "a").unwrap());
        let first = admission.enter(10).unwrap();
        let second = admission.enter(10).unwrap();
        assert!(admission.enter(10).is_none());
        drop(first);
        drop(second);
        let large = admission.enter(200).unwrap();
        assert!(admission.enter(1).is_none(), "bytes are full");
        drop(large);
        assert!(admission.enter(1).is_some());
    }
}
