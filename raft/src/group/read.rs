//! Read barriers: many readers share one question to the quorum.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_core::id::NodeId;
use hub_core::port::{ReadError, StateMachine};
use openraft::ReadPolicy;
use tokio::sync::oneshot;

use super::core::Core;
use crate::network::Lane;
use crate::proto as pb;
use crate::proto::hub_client::HubClient;

/// One question to the quorum may take this long.
const ROUND: Duration = Duration::from_secs(2);
/// The pause before it is put again.
const PAUSE: Duration = Duration::from_millis(20);

/// Readers that wait for the next round, and whether one is under way.
#[derive(Debug, Default)]
pub(super) struct ReadGate(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    asking: bool,
    readers: Vec<oneshot::Sender<Result<u64, ReadError>>>,
}

impl ReadGate {
    fn state(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: StateMachine> Core<M> {
    /// The index that a read must have applied. It takes part in a round that begins after the call.
    async fn read_index(self: &Arc<Self>, deadline: Instant) -> Result<u64, ReadError> {
        let (reader, answer) = oneshot::channel();
        let ask = {
            let mut waiting = self.reads.state();
            waiting.readers.push(reader);
            !std::mem::replace(&mut waiting.asking, true)
        };
        if ask {
            let core = Arc::clone(self);
            self.tasks.spawn(async move { core.ask_rounds().await });
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    /// Asks round after round while somebody waits.
    async fn ask_rounds(self: Arc<Self>) {
        loop {
            let readers = {
                let mut waiting = self.reads.state();
                waiting.readers.retain(|reader| !reader.is_closed());
                waiting.asking = !waiting.readers.is_empty();
                std::mem::take(&mut waiting.readers)
            };
            if readers.is_empty() {
                return;
            }
            match self.ask_once().await {
                Err(ReadError::Stopped) => {
                    for reader in readers {
                        drop(reader.send(Err(ReadError::Stopped)));
                    }
                }
                // They give up by themselves.
                Err(_) => {
                    self.reads.state().readers.extend(readers);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(index) => {
                    for reader in readers {
                        drop(reader.send(Ok(index)));
                    }
                }
            }
        }
    }

    async fn ask_once(self: &Arc<Self>) -> Result<u64, ReadError> {
        if self.is_over() {
            return Err(ReadError::Stopped);
        }
        if self.leading().is_some() {
            return self.ask_here(ROUND).await;
        }
        let leader = self.leadership.borrow().leader;
        match leader {
            Some(leader) if leader != self.transport.node() => self.ask_there(leader).await,
            _ => Err(ReadError::NoLeader),
        }
    }

    /// On the leader: a quorum confirms that it still is.
    pub(super) async fn ask_here(&self, limit: Duration) -> Result<u64, ReadError> {
        let asked = tokio::time::timeout(limit, self.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await;
        match asked {
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            _ => Err(ReadError::NoLeader),
        }
    }

    async fn ask_there(&self, leader: NodeId) -> Result<u64, ReadError> {
        let mut client = HubClient::new(self.transport.inner.channel(leader, Lane::Calls));
        let request = pb::ReadIndexRequest {
            group: self.options.name.to_string(),
            timeout_ms: u32::try_from(ROUND.as_millis()).unwrap_or(u32::MAX),
        };
        let asked = tokio::time::timeout(ROUND, client.read_index(request)).await;
        let reply = asked.map_err(|_| ReadError::NoLeader)?.map_err(|_| ReadError::NoLeader)?;
        match reply.into_inner().result {
            Some(pb::read_index_reply::Result::LogId(id)) => Ok(id.index),
            _ => Err(ReadError::NoLeader),
        }
    }

    /// After it, what is read here is at least as new as what was acknowledged anywhere before the call.
    pub(super) async fn barrier(self: &Arc<Self>, deadline: Instant) -> Result<u64, ReadError> {
        if self.is_over() {
            return Err(ReadError::Stopped);
        }
        let index = self.read_index(deadline).await?;
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|id| id.as_ref().is_some_and(|id| id.index() >= index));
        match tokio::time::timeout_at(deadline.into(), reached).await {
            Ok(Ok(_)) => Ok(index),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Behind),
        }
    }
}
