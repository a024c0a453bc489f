//! Accepting messages: the group commit.

mod batch;
mod flusher;
pub(super) mod judge;
mod queue;
mod statement;

use std::sync::Arc;
use std::time::Instant;

use hub_core::message::NewMessage;
use hub_core::port::{AcceptMode, StoreError};
use tokio::sync::oneshot;

use super::store::Inner;
pub(super) use flusher::run;
pub(super) use queue::Queue;
use queue::{FLUSH_BYTES, FLUSH_ROWS, Judged, Ticket, Unit};

/// A batch is cut into units of this many messages, so that the flushers share it.
const UNIT_ROWS: usize = FLUSH_ROWS;

type Answer = oneshot::Receiver<Result<Vec<Judged>, StoreError>>;

/// A unit that was handed to the flushers.
struct Handed {
    answer: Answer,
    ticket: Arc<Ticket>,
}

/// Messages in order, cut into parts of which each is written at once.
fn cut(messages: Vec<NewMessage>, mode: AcceptMode) -> Vec<(usize, Vec<NewMessage>)> {
    let mut units = Vec::new();
    let mut part: Vec<NewMessage> = Vec::new();
    let mut bytes = 0;
    for message in messages {
        let size = message.size_hint();
        let full = part.len() >= UNIT_ROWS || bytes + size > FLUSH_BYTES;
        if mode == AcceptMode::Each && !part.is_empty() && full {
            units.push((bytes, std::mem::take(&mut part)));
            bytes = 0;
        }
        bytes += size;
        part.push(message);
    }
    if !part.is_empty() {
        units.push((bytes, part));
    }
    units
}

/// Writes messages; see the port.
pub(super) async fn accept(
    inner: &Inner,
    messages: Vec<NewMessage>,
    mode: AcceptMode,
    deadline: Instant,
) -> Result<Vec<Judged>, StoreError> {
    if let Some(fault) = inner.work.refusal() {
        return Err(fault.into());
    }
    let (mut handed, mut failed) = (Vec::new(), None);
    for (bytes, messages) in cut(messages, mode) {
        let (answer, receiver) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let atomic = mode == AcceptMode::Atomic;
        let unit = Unit { messages, atomic, bytes, deadline, answer, ticket: Arc::clone(&ticket) };
        match inner.queue.push(unit) {
            Ok(()) => handed.push(Handed { answer: receiver, ticket }),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let (mut results, mut unknown) = (Vec::new(), false);
    for one in handed {
        match wait(one, deadline).await {
            Ok(part) => results.extend(part),
            Err(error) => {
                unknown |= matches!(error, StoreError::Unknown(_));
                failed = failed.filter(|_| !unknown).or(Some(error));
            }
        }
    }
    match failed {
        None => Ok(results),
        // A part of the batch was written: "certainly not done" would not be true of the whole.
        Some(error) if !results.is_empty() || unknown => Err(StoreError::Unknown(error.to_string())),
        Some(error) => Err(error),
    }
}

async fn wait(handed: Handed, deadline: Instant) -> Result<Vec<Judged>, StoreError> {
    let Handed { mut answer, ticket } = handed;
    match tokio::time::timeout_at(deadline.into(), &mut answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(StoreError::Unknown("the store stopped before it answered".to_owned())),
        Err(_) if ticket.give_up() => Err(StoreError::Unavailable {
            reason: "Postgres did not take earlier messages in time".to_owned(),
            retryable: true,
        }),
        Err(_) => Err(StoreError::Unknown("Postgres did not confirm the write in time".to_owned())),
    }
}
