//! The book of every message: what the hub promised, against what arrived.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::receiver::Receiver;

/// What the hub promised for a message it answered with 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It will arrive at least once.
    Arrives,
    /// Cancelled with `may_have_arrived: false`: it never arrives.
    Never,
    /// Cancelled after an attempt without an answer, or the answer of the cancellation was lost: both are right.
    Either,
}

/// Promises by message id, and the counters of those who send.
#[derive(Debug, Default)]
pub struct Ledger {
    promises: Mutex<HashMap<String, Promise>>,
    unexpected: Mutex<Vec<String>>,
    unanswered: AtomicUsize,
    repeats: AtomicUsize,
}

/// What came of all promises.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// Messages that the hub answered with 2xx.
    pub accepted: usize,
    /// Of them, to arrive.
    pub due: usize,
    /// Of those, not arrived.
    pub missing: Vec<String>,
    /// Messages that arrived more than once.
    pub duplicated: usize,
    /// Cancelled for certain.
    pub cancelled: usize,
    /// Of those, arrived nevertheless.
    pub broken: Vec<String>,
}

/// Counts a request as unanswered while it lives.
#[derive(Debug)]
pub struct Unanswered<'a>(&'a Ledger);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.unanswered.fetch_sub(1, Ordering::SeqCst);
    }
}

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Writes down a promise; a later one replaces it.
    pub fn promise(&self, id: &str, promise: Promise) {
        open(&self.promises).insert(id.to_owned(), promise);
    }

    /// A copy of all promises.
    pub fn promises(&self) -> HashMap<String, Promise> {
        open(&self.promises).clone()
    }

    /// How many messages were answered with 2xx.
    pub fn accepted(&self) -> usize {
        open(&self.promises).len()
    }

    /// Writes down an answer that should not have come.
    pub fn unexpected(&self, what: String) {
        open(&self.unexpected).push(what);
    }

    /// Ends the test if there was an answer that should not have come.
    ///
    /// # Errors
    /// There was; the first few are told.
    pub fn as_expected(&self) -> anyhow::Result<()> {
        let unexpected = open(&self.unexpected);
        let (count, first) = (unexpected.len(), unexpected.iter().take(3).collect::<Vec<_>>());
        anyhow::ensure!(count == 0, "{count} unexpected answers, the first: {first:#?}");
        Ok(())
    }

    /// A request leaves: it counts until the guard goes.
    pub fn request(&self) -> Unanswered<'_> {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        Unanswered(self)
    }

    /// Requests that have left and have no answer.
    pub fn waiting(&self) -> usize {
        self.unanswered.load(Ordering::SeqCst)
    }

    /// A request had no answer, or one that asks to try again.
    pub fn repeated(&self) {
        self.repeats.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests had to be repeated.
    pub fn repeats(&self) -> usize {
        self.repeats.load(Ordering::Relaxed)
    }

    /// Compares the promises with what arrived.
    pub fn balance(&self, receiver: &Receiver) -> Balance {
        let (promises, arrivals) = (self.promises(), receiver.arrivals());
        let mut balance = Balance { accepted: promises.len(), ..Balance::default() };
        balance.duplicated = arrivals.values().filter(|attempts| attempts.len() > 1).count();
        for (id, promise) in promises {
            let arrived = arrivals.contains_key(&id);
            match promise {
                Promise::Arrives => {
                    balance.due += 1;
                    if !arrived {
                        balance.missing.push(id);
                    }
                }
                Promise::Never => {
                    balance.cancelled += 1;
                    if arrived {
                        balance.broken.push(id);
                    }
                }
                Promise::Either => {}
            }
        }
        balance
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::Method;

    use super::*;
    use crate::client::Client;

    #[tokio::test]
    async fn the_balance_finds_what_is_wrong() -> anyhow::Result<()> {
        let receiver = Receiver::start(Duration::ZERO).await?;
        let client = Client::new("hub")?;
        let url = format!("{}/messages", receiver.url());
        for id in ["once", "twice", "twice", "broken", "either"] {
            client.call(Method::POST, &url, Some(id), None).await?.success()?;
        }
        let ledger = Ledger::default();
        for id in ["once", "twice", "missing"] {
            ledger.promise(id, Promise::Arrives);
        }
        ledger.promise("broken", Promise::Never);
        ledger.promise("kept", Promise::Never);
        ledger.promise("either", Promise::Either);
        ledger.promise("either-too", Promise::Either);
        let balance = ledger.balance(&receiver);
        assert_eq!((balance.accepted, balance.due, balance.cancelled, balance.duplicated), (7, 3, 2, 1));
        assert_eq!(
            (balance.missing, balance.broken),
            (vec!["missing".to_owned()], vec!["broken".to_owned()])
        );
        Ok(())
    }

    #[tokio::test]
    async fn deliveries_in_flight_are_counted_until_they_are_answered_or_cut() -> anyhow::Result<()> {
        let receiver = Receiver::start(Duration::from_secs(3600)).await?;
        let client = Client::new("hub")?;
        let url = format!("{}/messages", receiver.url());
        let call = client.call(Method::POST, &url, Some("held"), None);
        tokio::select! {
            answer = call => anyhow::bail!("answered too soon: {answer:?}"),
            seen = crate::wait::until("in flight", Duration::from_secs(30), async || {
                Ok((receiver.in_flight() == 1).then_some(()))
            }) => seen?,
        }
        // The caller is gone, as a killed hub is.
        crate::wait::until("cut", Duration::from_secs(30), async || {
            Ok((receiver.in_flight() == 0).then_some(()))
        })
        .await?;
        assert_eq!(receiver.arrivals().len(), 1);
        Ok(())
    }
}
