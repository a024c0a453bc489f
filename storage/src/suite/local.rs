//! A replicator without replication: it applies at once, in order, on this node, through the codec as the real one does.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use hub_core::codec::{Reply as _, decode_batch, encode_batch};
use hub_core::id::NodeId;
use hub_core::port::{
    AppliedMark, Clock, Committed, Entry, Leadership, ProposeError, ReadError, Replicator, Stamper,
    StateMachine, Submitted,
};
use tokio::sync::{Mutex, watch};

/// A direct, local replicator over any state machine.
pub struct LocalReplicator<M: StateMachine> {
    machine: Mutex<M>,
    stamper: Arc<dyn Stamper<M::Command>>,
    clock: Arc<dyn Clock>,
    leadership: watch::Sender<Leadership>,
}

impl<M: StateMachine> LocalReplicator<M> {
    /// Leads from the start, in term 1.
    pub fn new(
        machine: M,
        node: NodeId,
        stamper: Arc<dyn Stamper<M::Command>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (leadership, _) = watch::channel(Leadership { term: 1, leader: Some(node), ready: true });
        Self { machine: Mutex::new(machine), stamper, clock, leadership }
    }

    /// Another leadership from now on.
    pub fn lead(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership);
    }

    /// The machine, while nothing is applied.
    pub async fn machine(&self) -> tokio::sync::MutexGuard<'_, M> {
        self.machine.lock().await
    }

    async fn write(
        &self,
        term: u64,
        mut proposals: Vec<Submitted<M::Command>>,
    ) -> Result<Vec<Committed<M::Reply>>, ProposeError> {
        let unknown = |error: &dyn std::fmt::Display| ProposeError::Unknown(error.to_string());
        let mut machine = self.machine.lock().await;
        let now = self.clock.now();
        self.stamper.stamp(term, now, &mut proposals);
        let batch =
            decode_batch::<M::Command>(encode_batch(now, &proposals)).map_err(|error| unknown(&error))?;
        let index = machine.applied().index + 1;
        let entry =
            Entry { index, term, now: batch.now, commands: batch.commands.into_iter().flatten().collect() };
        let mark = AppliedMark { index, opaque: index.to_be_bytes().to_vec().into() };
        let replies = machine.apply(vec![entry], mark).await.map_err(|error| unknown(&error))?;
        replies
            .into_iter()
            .flatten()
            .map(|reply| {
                let reply = M::Reply::decode(&reply.encode()).map_err(|error| unknown(&error))?;
                Ok(Committed { index, reply })
            })
            .collect()
    }
}

#[async_trait]
impl<M: StateMachine> Replicator<M::Command, M::Reply> for LocalReplicator<M> {
    async fn propose(
        &self,
        proposal: Submitted<M::Command>,
        _deadline: Instant,
    ) -> Result<Committed<M::Reply>, ProposeError> {
        let term = self.leadership.borrow().term;
        let mut replies = self.write(term, vec![proposal]).await?;
        replies.pop().ok_or_else(|| ProposeError::Unknown("no reply".to_owned()))
    }

    async fn propose_in_term(
        &self,
        term: u64,
        proposals: Vec<Submitted<M::Command>>,
        _deadline: Instant,
    ) -> Result<Vec<Committed<M::Reply>>, ProposeError> {
        if self.leadership.borrow().term != term {
            return Err(ProposeError::LeadershipMoved);
        }
        self.write(term, proposals).await
    }

    async fn read_barrier(&self, _deadline: Instant) -> Result<u64, ReadError> {
        Ok(self.machine.lock().await.applied().index)
    }

    fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    async fn leadership_changed(&self, seen: Leadership) -> Leadership {
        let mut leadership = self.leadership.subscribe();
        let changed = leadership.wait_for(|now| *now != seen).await.map(|now| *now).ok();
        match changed {
            Some(now) => now,
            None => std::future::pending().await,
        }
    }
}
