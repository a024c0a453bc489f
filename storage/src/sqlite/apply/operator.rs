//! What senders and operators do to a message: cancel, replay, discard. A repeat of the same request gets the same answer.

use hub_core::id::{MessageId, RequestId};
use hub_core::message::{Status, Transition};
use hub_core::port::{CancelOutcome, DeadLetterOutcome};

use super::work::{Ending, Fate, Work, less};
use crate::sqlite::row::Open;

impl Work<'_> {
    pub(super) fn cancel(&mut self, id: MessageId, request: RequestId) -> CancelOutcome {
        let Some(status) = self.status(id) else { return CancelOutcome::NotFound };
        let Some(slot) = self.slots.get(&id) else { return CancelOutcome::NotFound };
        let repeated = slot.known.as_ref().filter(|known| known.last_request == Some(request.0));
        if status == Status::Cancelled
            && let Some(known) = repeated
        {
            return CancelOutcome::Cancelled { may_have_arrived: known.may_have_arrived };
        }
        if slot.open.as_ref().and_then(|open| open.hold).is_some_and(|hold| hold.lease_end <= self.clock()) {
            self.lapse(id);
        }
        let open = self.slots.get(&id).and_then(|slot| slot.open.as_ref());
        let Some((open, next)) =
            open.and_then(|open| Some((open, open.status.after(Transition::Cancel, open.retry_count > 0)?)))
        else {
            return CancelOutcome::Conflict(status);
        };
        let may_have_arrived = open.may_have_arrived;
        self.end(id, Ending { request: Some(request.0), ..Ending::plain(next) });
        CancelOutcome::Cancelled { may_have_arrived }
    }

    pub(super) fn replay(&mut self, id: MessageId, request: RequestId) -> DeadLetterOutcome {
        let clock = self.clock();
        let Some(status) = self.status(id) else { return DeadLetterOutcome::NotFound };
        let Some(slot) = self.slots.get_mut(&id) else { return DeadLetterOutcome::NotFound };
        let Some(known) = slot.known.as_mut() else { return DeadLetterOutcome::Conflict(status) };
        if known.last_request == Some(request.0) {
            return DeadLetterOutcome::Done(Status::Pending);
        }
        let Some(next) = status.after(Transition::Replay, false) else {
            return DeadLetterOutcome::Conflict(status);
        };
        if known.expires_at.is_some_and(|expires| expires <= clock) {
            return DeadLetterOutcome::Expired;
        }
        known.last_request = Some(request.0);
        let open = Open {
            id,
            seq: slot.seq,
            target: known.target.clone(),
            priority: known.priority,
            status: next,
            created_at: known.created_at,
            due: clock,
            expires_at: known.expires_at,
            // It gets the whole of its time again.
            too_old_at: clock.plus(known.too_old_at.since(known.created_at)),
            attempt: known.attempt,
            retry_count: 0,
            may_have_arrived: known.may_have_arrived,
            hold: None,
            error: None,
        };
        slot.fate = Some(Fate {
            seq: slot.seq,
            status: next,
            processed_at: None,
            retry_count: 0,
            attempt: known.attempt,
            may_have_arrived: known.may_have_arrived,
            dead_reason: None,
            error: None,
            last_request: Some(request.0),
        });
        let target = known.target.clone();
        slot.open = Some(open);
        self.touch(id);
        self.count(&target, |counters| {
            counters.depth += 1;
            less(&mut counters.dead_letters, 1);
        });
        self.effects.waits(&target, clock, clock);
        DeadLetterOutcome::Done(next)
    }

    pub(super) fn discard(&mut self, id: MessageId, request: RequestId) -> DeadLetterOutcome {
        let clock = self.clock();
        let Some(status) = self.status(id) else { return DeadLetterOutcome::NotFound };
        let Some(slot) = self.slots.get_mut(&id) else { return DeadLetterOutcome::NotFound };
        let Some(known) = slot.known.as_mut() else { return DeadLetterOutcome::Conflict(status) };
        if status == Status::Discarded && known.last_request == Some(request.0) {
            return DeadLetterOutcome::Done(status);
        }
        let Some(next) = status.after(Transition::Discard, false) else {
            return DeadLetterOutcome::Conflict(status);
        };
        known.status = next;
        known.last_request = Some(request.0);
        slot.fate = Some(Fate {
            seq: slot.seq,
            status: next,
            processed_at: Some(clock),
            retry_count: known.retry_count,
            attempt: known.attempt,
            may_have_arrived: known.may_have_arrived,
            dead_reason: known.dead_reason.clone(),
            error: known.error.clone(),
            last_request: Some(request.0),
        });
        let target = known.target.clone();
        self.touch(id);
        self.count(&target, |counters| less(&mut counters.dead_letters, 1));
        DeadLetterOutcome::Done(next)
    }
}
