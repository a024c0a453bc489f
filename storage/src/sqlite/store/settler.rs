//! The group commit of settlements: callers queue, and each entry takes what has gathered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hub_core::delivery::Settlement;
use hub_core::port::{ProposeError, StoreError, Submitted};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::propose::{failed, unexpected};
use crate::sqlite::command::{Command, Reply, settlement_size};

/// Callers that may wait in the queue.
pub(super) const QUEUE: usize = 1_024;
/// Entries under way at the same time: one is written while the next gathers.
const UNDER_WAY: usize = 2;
/// Most settlements and bytes of one entry.
const ENTRY_COUNT: usize = 512;
const ENTRY_BYTES: usize = 512 << 10;
/// Before settlements are proposed again when leadership has moved.
const PAUSE: Duration = Duration::from_millis(20);

/// Settlements of one caller.
pub(super) struct Waiting {
    settlements: Vec<Settlement>,
    bytes: usize,
    deadline: Instant,
    answer: oneshot::Sender<Result<Vec<bool>, StoreError>>,
}

impl Inner {
    pub(super) async fn settle(
        &self,
        settlements: Vec<Settlement>,
        deadline: Instant,
    ) -> Result<Vec<bool>, StoreError> {
        let (mut answers, mut failed) = (Vec::new(), None);
        let mut rest = settlements;
        while !rest.is_empty() && failed.is_none() {
            let more = rest.split_off(rest.len().min(ENTRY_COUNT / 4));
            match self.enqueue(rest, deadline).await {
                Ok(answer) => answers.push(answer),
                Err(error) => failed = Some(error),
            }
            rest = more;
        }
        let mut results = Vec::new();
        for answer in answers {
            let answer = tokio::time::timeout_at(deadline.into(), answer).await;
            match answer {
                Ok(Ok(Ok(part))) => results.extend(part),
                Ok(Ok(Err(error @ StoreError::Unknown(_)))) => failed = Some(error),
                Ok(Ok(Err(error))) => failed = failed.or(Some(error)),
                Ok(Err(_)) | Err(_) => {
                    failed = Some(StoreError::Unknown("the answer did not come in time".to_owned()));
                }
            }
        }
        match failed {
            None => Ok(results),
            // A part was written: "certainly not done" would not be true of the whole.
            Some(error) if !results.is_empty() => Err(StoreError::Unknown(error.to_string())),
            Some(error) => Err(error),
        }
    }

    async fn enqueue(
        &self,
        settlements: Vec<Settlement>,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Vec<bool>, StoreError>>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        let bytes = settlements.iter().map(settlement_size).sum();
        let waiting = Waiting { settlements, bytes, deadline, answer };
        let sent = tokio::time::timeout_at(deadline.into(), self.settlements.send(waiting)).await;
        match sent {
            Ok(Ok(())) => Ok(receiver),
            Ok(Err(_)) => {
                Err(StoreError::Unavailable { reason: "the store is stopping".to_owned(), retryable: false })
            }
            Err(_) => Err(StoreError::Overloaded),
        }
    }

    /// Proposes as the leader, else through the leader: the claim decides whether a settlement holds, so one of a term that
    /// is over may still count. Repeats are recognised by the attempt.
    pub(super) async fn propose_settlements(
        &self,
        settlements: Vec<Settlement>,
        deadline: Instant,
    ) -> Result<Vec<bool>, StoreError> {
        let request = self.ports.ids.request_id();
        let mut unknown = None;
        loop {
            let proposal = Submitted { request, command: Command::Settle(settlements.clone()) };
            let proposed = match self.leads() {
                Some(term) => {
                    let replies = self.ports.replicator.propose_in_term(term, vec![proposal], deadline).await;
                    replies.map(|mut replies| replies.pop().map(|committed| committed.reply))
                }
                None => {
                    let reply = self.ports.replicator.propose(proposal, deadline).await;
                    reply.map(|committed| Some(committed.reply))
                }
            };
            match proposed {
                Ok(Some(Reply::Settled(results))) => return Ok(results),
                Ok(other) => return Err(unexpected(&other.unwrap_or(Reply::Skipped))),
                Err(ProposeError::Unknown(reason)) => unknown = Some(reason),
                Err(ProposeError::LeadershipMoved) => {}
                Err(error) => return Err(unknown.map_or_else(|| failed(error), StoreError::Unknown)),
            }
            if self.ports.clock.instant() + PAUSE >= deadline {
                let error = || failed(ProposeError::LeadershipMoved);
                return Err(unknown.map_or_else(error, StoreError::Unknown));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Writes what gathers until the queue is closed and empty, or `stop` asks for it: then it writes what is there.
pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    let mut gathered: VecDeque<Waiting> = VecDeque::new();
    let mut under_way: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut closed = false;
    loop {
        while under_way.len() < UNDER_WAY && !gathered.is_empty() {
            under_way.push(Box::pin(write(Arc::clone(&inner), next_entry(&mut gathered))));
        }
        if closed && under_way.is_empty() {
            return;
        }
        tokio::select! {
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            waiting = queue.recv(), if !closed && under_way.len() < UNDER_WAY => match waiting {
                Some(waiting) => {
                    gathered.push_back(waiting);
                    while gathered.len() < ENTRY_COUNT {
                        let Ok(waiting) = queue.try_recv() else { break };
                        gathered.push_back(waiting);
                    }
                }
                None => closed = true,
            },
            () = stop.cancelled(), if !closed && !queue.is_closed() => queue.close(),
        }
    }
}

/// The oldest that fit into one entry; at least one.
fn next_entry(gathered: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let (mut entry, mut count, mut bytes) = (Vec::new(), 0, 0);
    while let Some(waiting) = gathered.front() {
        count += waiting.settlements.len();
        bytes += waiting.bytes;
        if !entry.is_empty() && (count > ENTRY_COUNT || bytes > ENTRY_BYTES) {
            break;
        }
        entry.extend(gathered.pop_front());
    }
    entry
}

async fn write(inner: Arc<Inner>, entry: Vec<Waiting>) {
    let Some(deadline) = entry.iter().map(|waiting| waiting.deadline).max() else { return };
    let settlements = entry.iter().flat_map(|waiting| waiting.settlements.iter().cloned()).collect();
    let outcome = inner.propose_settlements(settlements, deadline).await;
    let mut results = outcome.as_deref().unwrap_or_default().iter().copied();
    for waiting in entry {
        let own: Vec<bool> = results.by_ref().take(waiting.settlements.len()).collect();
        let answer = match &outcome {
            Ok(_) if own.len() == waiting.settlements.len() => Ok(own),
            Ok(_) => Err(StoreError::Unknown("too few answers".to_owned())),
            Err(error) => Err(error.clone()),
        };
        // A caller that has gone does not want to know.
        let _ = waiting.answer.send(answer);
    }
}
