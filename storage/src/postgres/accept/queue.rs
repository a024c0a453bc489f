//! What waits to be written: callers queue, and each flush takes what has gathered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_core::message::NewMessage;
use hub_core::port::{AcceptRefusal, Accepted, StoreError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// Most rows and bytes of one flush; a unit that is larger goes alone.
pub(super) const FLUSH_ROWS: usize = 512;
pub(super) const FLUSH_BYTES: usize = 2 << 20;
/// Most rows and bytes that wait.
const WAITING_ROWS: usize = 50_000;
const WAITING_BYTES: usize = 256 << 20;

/// The answer to one message.
pub(super) type Judged = Result<Accepted, AcceptRefusal>;

/// Messages of one caller that are written in the same statement.
pub(super) struct Unit {
    pub(super) messages: Vec<NewMessage>,
    /// All or none.
    pub(super) atomic: bool,
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Vec<Judged>, StoreError>>,
    pub(super) ticket: Arc<Ticket>,
}

/// Whether a unit was taken to be written, or given up by its caller before.
#[derive(Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn claim(&self, as_what: u8) -> bool {
        self.0.compare_exchange(0, as_what, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The caller's time is over: `true` if it certainly will not be written.
    pub(super) fn give_up(&self) -> bool {
        self.claim(Self::GIVEN_UP)
    }
}

/// The queue before the flushers.
#[derive(Default)]
pub(in crate::postgres) struct Queue {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    units: VecDeque<Unit>,
    rows: usize,
    bytes: usize,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, unit: Unit) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::Unavailable {
                reason: "the store is stopping".to_owned(),
                retryable: false,
            });
        }
        if state.rows >= WAITING_ROWS || state.bytes >= WAITING_BYTES {
            return Err(StoreError::Overloaded);
        }
        state.rows += unit.messages.len();
        state.bytes += unit.bytes;
        state.units.push_back(unit);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// What goes into the next flush; waits for some. `None` when it is closed and empty.
    pub(super) async fn take(&self) -> Option<Vec<Unit>> {
        loop {
            let waits = self.news.notified();
            {
                let mut state = self.state();
                let units = state.next_flush();
                let (more, closed) = (!state.units.is_empty(), state.closed);
                drop(state);
                if more {
                    // Another flusher takes the rest.
                    self.news.notify_one();
                }
                if !units.is_empty() {
                    return Some(units);
                }
                if closed {
                    self.news.notify_one();
                    return None;
                }
            }
            waits.await;
        }
    }

    /// Everything that waits: it will not be written.
    pub(super) fn drain(&self) -> Vec<Unit> {
        let mut state = self.state();
        (state.rows, state.bytes) = (0, 0);
        state.units.drain(..).filter(|unit| unit.ticket.claim(Ticket::TAKEN)).collect()
    }

    /// Nothing more is taken in; what waits is still written.
    pub(in crate::postgres) fn close(&self) {
        self.state().closed = true;
        self.news.notify_one();
    }
}

impl State {
    fn next_flush(&mut self) -> Vec<Unit> {
        let (mut flush, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(unit) = self.units.front() {
            rows += unit.messages.len();
            bytes += unit.bytes;
            let alone = unit.atomic && !flush.is_empty();
            if alone || (!flush.is_empty() && (rows > FLUSH_ROWS || bytes > FLUSH_BYTES)) {
                break;
            }
            let Some(unit) = self.units.pop_front() else { break };
            self.rows = self.rows.saturating_sub(unit.messages.len());
            self.bytes = self.bytes.saturating_sub(unit.bytes);
            if !unit.ticket.claim(Ticket::TAKEN) {
                rows -= unit.messages.len();
                bytes -= unit.bytes;
                continue;
            }
            let atomic = unit.atomic;
            flush.push(unit);
            if atomic {
                break;
            }
        }
        flush
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(bytes: usize, atomic: bool) -> Unit {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let deadline = Instant::now();
        let (answer, _) = oneshot::channel();
        Unit { messages: Vec::new(), atomic, bytes, deadline, answer, ticket: Arc::default() }
    }

    #[tokio::test]
    async fn a_flush_is_bounded_and_an_atomic_unit_goes_alone() {
        let queue = Queue::default();
        for (bytes, atomic) in [(1, false), (2, false), (3, true), (FLUSH_BYTES, false), (4, false)] {
            queue.push(unit(bytes, atomic)).unwrap();
        }
        let given_up = unit(5, false);
        assert!(given_up.ticket.give_up());
        let ticket = Arc::clone(&given_up.ticket);
        queue.push(given_up).unwrap();
        queue.close();
        let mut flushes = Vec::new();
        while let Some(flush) = queue.take().await {
            flushes.push(flush.iter().map(|unit| unit.bytes).collect::<Vec<_>>());
        }
        assert_eq!(flushes, [vec![1, 2], vec![3], vec![FLUSH_BYTES], vec![4]]);
        assert!(!ticket.give_up(), "given up only once");
        assert!(queue.push(unit(1, false)).is_err());
    }
}
