//! Signals for the dispatcher, kept until they are taken.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_core::id::ServiceName;
use hub_core::port::QueueSignal;
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    /// From the store, in order.
    passed_on: VecDeque<QueueSignal>,
    /// Targets with something to claim.
    due: BTreeSet<ServiceName>,
}

/// The signals of one queue; one consumer.
#[derive(Default)]
pub(super) struct Signals {
    state: Mutex<State>,
    news: Notify,
}

impl Signals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The target has, or may have, something to claim.
    pub(super) fn due(&self, target: &ServiceName) {
        if self.state().due.insert(target.clone()) {
            self.news.notify_one();
        }
    }

    /// The store says something.
    pub(super) fn pass_on(&self, signal: QueueSignal) {
        match signal {
            QueueSignal::Due(target) => return self.due(&target),
            other => self.state().passed_on.push_back(other),
        }
        self.news.notify_one();
    }

    /// The next one; waits for it. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> QueueSignal {
        loop {
            let next = {
                let mut state = self.state();
                let due = |state: &mut State| state.due.pop_first().map(QueueSignal::Due);
                state.passed_on.pop_front().or_else(|| due(&mut state))
            };
            match next {
                Some(signal) => return signal,
                None => self.news.notified().await,
            }
        }
    }
}
