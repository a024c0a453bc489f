//! The ledger: every id that was answered with 2xx, and every id that arrived.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Notify;

use super::Error;
use super::histogram::{Latencies, Quantiles};

/// Counts that follow from the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Ids answered with 2xx.
    pub accepted: u64,
    /// Of these, how many arrived at least once.
    pub delivered: u64,
    /// Arrivals beyond the first, of any id.
    pub duplicates: u64,
    /// Ids that arrived without an answer: their senders do not know.
    pub unanswered: u64,
}

impl Totals {
    /// Accepted and not arrived.
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered)
    }
}

#[derive(Debug, Default)]
struct Entry {
    accepted: Option<Instant>,
    arrived: Option<Instant>,
}

/// Every id that was answered with 2xx, and every id that arrived. Ids are UUIDv7, so the oldest come first.
#[derive(Debug)]
pub struct Ledger {
    entries: BTreeMap<u128, Entry>,
    totals: Totals,
    latencies: Latencies,
}

impl Ledger {
    /// An empty ledger.
    ///
    /// # Errors
    /// When no histogram can be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { entries: BTreeMap::new(), totals: Totals::default(), latencies: Latencies::new()? })
    }

    /// A 2xx named this id. Hearing it again changes nothing.
    pub fn accept(&mut self, id: u128, at: Instant) {
        let entry = self.entries.entry(id).or_default();
        if entry.accepted.is_some() {
            return;
        }
        entry.accepted = Some(at);
        self.totals.accepted += 1;
        if entry.arrived.is_some() {
            // The delivery overtook the answer.
            self.totals.unanswered -= 1;
            self.totals.delivered += 1;
            self.latencies.record(Duration::ZERO);
        }
    }

    /// A message with this id arrived.
    pub fn arrive(&mut self, id: u128, at: Instant) {
        let entry = self.entries.entry(id).or_default();
        if entry.arrived.is_some() {
            self.totals.duplicates += 1;
            return;
        }
        entry.arrived = Some(at);
        match entry.accepted {
            Some(accepted) => {
                self.totals.delivered += 1;
                self.latencies.record(at.saturating_duration_since(accepted));
            }
            None => self.totals.unanswered += 1,
        }
    }

    /// The counts.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Ids that were accepted and have not arrived, oldest first.
    pub fn missing(&self) -> impl Iterator<Item = u128> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.accepted.is_some() && entry.arrived.is_none())
            .map(|(id, _)| *id)
    }

    /// Ids that were accepted.
    pub fn accepted(&self) -> impl Iterator<Item = u128> {
        self.entries.iter().filter(|(_, entry)| entry.accepted.is_some()).map(|(id, _)| *id)
    }

    /// From the answer to the arrival, since the last [`Self::measure_anew`].
    #[must_use]
    pub fn latency(&self) -> Quantiles {
        self.latencies.quantiles()
    }

    /// Forgets the latencies so far, those of the warm-up.
    pub fn measure_anew(&mut self) {
        self.latencies.clear();
    }

    /// Forgets settled ids until at most `keep` ids remain, oldest first; the counts stay. A later repeat of a forgotten
    /// id counts as unanswered.
    pub fn forget(&mut self, keep: usize) {
        while self.entries.len() > keep {
            let settled = self
                .entries
                .iter()
                .find(|(_, entry)| entry.accepted.is_some() && entry.arrived.is_some())
                .map(|(id, _)| *id);
            let Some(id) = settled else { return };
            self.entries.remove(&id);
        }
    }
}

/// A ledger that senders and the receiver share.
#[derive(Debug)]
pub struct SharedLedger {
    ledger: Mutex<Ledger>,
    changed: Notify,
    /// Self-check: the next arrival is not written down.
    drop_next: AtomicBool,
}

impl SharedLedger {
    /// An empty ledger.
    ///
    /// # Errors
    /// When no histogram can be made.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            ledger: Mutex::new(Ledger::new()?),
            changed: Notify::new(),
            drop_next: AtomicBool::new(false),
        })
    }

    /// The ledger itself. A holder that panicked left whole entries behind.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an arrival down.
    pub fn arrive(&self, id: u128, at: Instant) {
        if self.drop_next.load(Ordering::Relaxed) && self.drop_next.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut ledger = self.lock();
        ledger.arrive(id, at);
        if ledger.totals().missing() == 0 {
            self.changed.notify_waiters();
        }
    }

    /// Loses the next arrival, to show that a lost message is seen.
    pub fn lose_one(&self) {
        self.drop_next.store(true, Ordering::Relaxed);
    }

    /// Waits until everything accepted has arrived, or nothing has arrived for `quiet`.
    pub async fn settled(&self, quiet: Duration) {
        let mut before = self.lock().totals();
        while before.missing() > 0 {
            let changed = self.changed.notified();
            if self.lock().totals().missing() == 0 {
                return;
            }
            let idle = tokio::time::timeout(quiet, changed).await.is_err();
            let now = self.lock().totals();
            if idle && now == before {
                return;
            }
            before = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::source::instant;

    #[test]
    fn every_order_of_events_counts_the_same() {
        let now = instant();
        let mut ledger = Ledger::new().unwrap();
        ledger.accept(1, now);
        ledger.arrive(1, now + Duration::from_millis(5));
        ledger.arrive(2, now);
        assert_eq!(ledger.totals().unanswered, 1);
        ledger.accept(2, now);
        ledger.accept(2, now);
        ledger.arrive(2, now);
        ledger.accept(3, now);
        assert_eq!(ledger.totals(), Totals { accepted: 3, delivered: 2, duplicates: 1, unanswered: 0 });
        assert_eq!(ledger.totals().missing(), 1);
        assert_eq!(ledger.missing().collect::<Vec<_>>(), [3]);
        assert_eq!(ledger.latency().count, 2);
    }

    #[test]
    fn forgetting_keeps_counts_and_what_is_open() {
        let now = instant();
        let mut ledger = Ledger::new().unwrap();
        ledger.accept(0, now);
        for id in 1..100 {
            ledger.accept(id, now);
            ledger.arrive(id, now);
        }
        ledger.forget(10);
        assert_eq!(ledger.totals(), Totals { accepted: 100, delivered: 99, duplicates: 0, unanswered: 0 });
        assert_eq!(ledger.missing().collect::<Vec<_>>(), [0]);
        ledger.arrive(0, now);
        assert_eq!(ledger.totals().missing(), 0);
    }

    #[tokio::test]
    async fn a_lost_delivery_is_seen() {
        let ledger = SharedLedger::new().unwrap();
        ledger.lose_one();
        for id in 0..5 {
            ledger.lock().accept(id, instant());
            ledger.arrive(id, instant());
        }
        ledger.settled(Duration::from_millis(1)).await;
        assert_eq!(ledger.lock().totals().missing(), 1);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_arrival() {
        let ledger = SharedLedger::new().unwrap();
        ledger.lock().accept(7, instant());
        let wait = ledger.settled(Duration::from_secs(600));
        let arrive = async { ledger.arrive(7, instant()) };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(wait, arrive) }).await.unwrap();
        assert_eq!(ledger.lock().totals().missing(), 0);
    }
}
