//! A proposal on its way, and what may be said about it at every moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hub_core::id::NodeId;
use hub_core::port::{ProposeError, Submitted};
use tokio::sync::oneshot;

const WAITING: u8 = 0;
const SENT: u8 = 1;
const DOUBTFUL: u8 = 2;
const CANCELLED: u8 = 3;

/// What is certain about a proposal. The caller and the batcher share it, so that a caller who gives up knows whether the
/// proposal may have been written.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU8);

impl Ticket {
    /// It is about to be written or sent. `false`: the caller gave up, and it must not be.
    pub(super) fn send(&self) -> bool {
        match self.0.compare_exchange(WAITING, SENT, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(state) => state != CANCELLED,
        }
    }

    /// It was certainly not written this time.
    pub(super) fn take_back(&self) {
        let _unless_moved_on = self.0.compare_exchange(SENT, WAITING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// It may have been written: nothing that comes later can make that certain again, except a reply.
    pub(super) fn doubt(&self) {
        let _unless_moved_on = self.0.compare_exchange(SENT, DOUBTFUL, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.0.load(Ordering::Acquire) == DOUBTFUL
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }

    /// The caller gives up. `true`: it was certainly not written, and never will be.
    pub(super) fn cancel(&self) -> bool {
        self.0.swap(CANCELLED, Ordering::AcqRel) == WAITING
    }
}

/// How a proposal ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Applied.
    Done { index: u64, reply: Bytes },
    /// Certainly not written.
    Refused(ProposeError),
    /// Certainly not written: this node does not lead. Only for proposals that another node forwarded here.
    NotLeader(Option<NodeId>),
    /// Written or not.
    Unknown(String),
}

/// One proposal.
#[derive(Debug)]
pub(super) struct Pending<C> {
    pub(super) submitted: Submitted<C>,
    pub(super) waiter: Waiter,
}

/// Who waits for a proposal.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) ticket: Arc<Ticket>,
    pub(super) reply: oneshot::Sender<Outcome>,
    pub(super) deadline: Instant,
    /// Forwarded here by another node: it is never forwarded again.
    pub(super) forwarded: bool,
}

impl Waiter {
    /// Tells how it ended; a refusal of a later attempt does not undo the doubt about an earlier one.
    pub(super) fn end(self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Refused(error) if self.ticket.is_doubtful() => Outcome::Unknown(error.to_string()),
            outcome => outcome,
        };
        drop(self.reply.send(outcome));
    }
}

/// Several proposals that stand or fall together, in one term.
#[derive(Debug)]
pub(super) struct InTerm<C> {
    pub(super) term: u64,
    pub(super) submitted: Vec<Submitted<C>>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) reply: oneshot::Sender<Result<(u64, Vec<Bytes>), ProposeError>>,
}

/// What waits for the batcher.
#[derive(Debug)]
pub(super) enum Item<C> {
    One(Pending<C>),
    Together(InTerm<C>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_gives_up_knows_what_is_certain() {
        let ticket = Ticket::default();
        assert!(ticket.cancel(), "never sent");
        assert!(!ticket.send(), "and never will be");

        let ticket = Ticket::default();
        assert!(ticket.send());
        ticket.take_back();
        assert!(ticket.cancel(), "taken back");

        let ticket = Ticket::default();
        assert!(ticket.send());
        assert!(!ticket.cancel(), "on its way");

        let ticket = Ticket::default();
        assert!(ticket.send());
        ticket.doubt();
        assert!(ticket.send(), "may be asked again");
        ticket.take_back();
        assert!(!ticket.cancel(), "the first time stays in doubt");
    }
}
