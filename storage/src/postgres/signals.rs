//! What this node's dispatcher is told: claims that came with an insert, targets with work, when to look again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_core::delivery::Claim;
use hub_core::id::ServiceName;
use hub_core::port::{Claimed, QueueSignal};
use hub_core::time::Timestamp;
use tokio::sync::Notify;

/// Signals that wait to be taken, and claims that nobody will use.
#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    news: Notify,
    spare: Notify,
}

#[derive(Default)]
struct State {
    /// Starts (`true`) and stops that were not told yet.
    changes: VecDeque<bool>,
    running: bool,
    claimed: Vec<Claimed>,
    due: BTreeSet<ServiceName>,
    later: Option<Timestamp>,
    unused: Vec<Claim>,
}

impl Signals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node delivers from now on.
    pub(super) fn start(&self) {
        let mut state = self.state();
        if !state.running {
            state.running = true;
            state.changes.push_back(true);
        }
        drop(state);
        self.news.notify_one();
    }

    /// This node does not deliver any more; the targets of claims that were not taken, whose slots are free.
    pub(super) fn stop(&self) -> Vec<ServiceName> {
        let mut state = self.state();
        if state.running {
            state.running = false;
            state.changes.push_back(false);
        }
        let left = std::mem::take(&mut state.claimed);
        state.due.clear();
        state.later = None;
        state.unused.extend(left.iter().map(|claimed| claimed.claim.clone()));
        drop(state);
        self.news.notify_one();
        self.spare.notify_one();
        left.into_iter().map(|claimed| claimed.message.target).collect()
    }

    /// Claims for this node. `false`, and they are given back, if it does not deliver (any more, or yet).
    pub(super) fn claimed(&self, claimed: Vec<Claimed>) -> bool {
        let mut state = self.state();
        let running = state.running;
        if running {
            state.claimed.extend(claimed);
        } else {
            state.unused.extend(claimed.into_iter().map(|claimed| claimed.claim));
        }
        drop(state);
        if running {
            self.news.notify_one()
        } else {
            self.spare.notify_one()
        }
        running
    }

    /// Targets with messages that are due, and when the next of the others will be.
    pub(super) fn waits(&self, due: impl IntoIterator<Item = ServiceName>, later: Option<Timestamp>) {
        let mut state = self.state();
        if !state.running {
            return;
        }
        state.due.extend(due);
        state.later = [state.later, later].into_iter().flatten().min();
        let news = !state.due.is_empty() || state.later.is_some();
        drop(state);
        if news {
            self.news.notify_one();
        }
    }

    /// Claims that may be written and that nobody will use.
    pub(super) fn unused(&self, claims: impl IntoIterator<Item = Claim>) {
        self.state().unused.extend(claims);
        self.spare.notify_one();
    }

    /// Waits for claims to give back. For one consumer.
    pub(super) async fn next_unused(&self) -> Vec<Claim> {
        loop {
            let unused = self.take_unused();
            if !unused.is_empty() {
                return unused;
            }
            self.spare.notified().await;
        }
    }

    /// Claims to give back, as far as there are any.
    pub(super) fn take_unused(&self) -> Vec<Claim> {
        std::mem::take(&mut self.state().unused)
    }

    /// The next signal; waits for one. For one consumer. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> QueueSignal {
        loop {
            if let Some(signal) = self.state().take() {
                return signal;
            }
            self.news.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<QueueSignal> {
        if let Some(started) = self.changes.pop_front() {
            return Some(if started { QueueSignal::Started } else { QueueSignal::Stopped });
        }
        if !self.claimed.is_empty() {
            return Some(QueueSignal::Claimed(std::mem::take(&mut self.claimed)));
        }
        if let Some(target) = self.due.pop_first() {
            return Some(QueueSignal::Due(target));
        }
        self.later.take().map(QueueSignal::Later)
    }
}
