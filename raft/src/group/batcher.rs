//! Gathers proposals and sends them on: on the leader into entries, elsewhere to the leader.
//!
//! There is no lingering. A few entries may be on their way at once; whatever arrives while all places are taken shares the
//! next entry, so entries grow with the load by themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hub_core::codec::{Command, encode_batch};
use hub_core::id::NodeId;
use hub_core::port::{ProposeError, StateMachine, Submitted};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::core::Core;
use super::proposal::{InTerm, Item, Outcome, Pending, Waiter};
use crate::type_config::{C, EntryBytes, LeaderId, OnComplete};

/// The most commands and bytes that share an entry.
const ENTRY_COMMANDS: usize = 1_000;
const ENTRY_BYTES: usize = 1 << 20;
/// How long all places may be taken before the queue is looked through.
const SHED: Duration = Duration::from_secs(1);
/// No entry is larger.
pub(super) const MAX_ENTRY: usize = 4 << 20;

/// The task that gathers.
pub(super) struct Batcher<M: StateMachine> {
    core: Arc<Core<M>>,
    items: mpsc::UnboundedReceiver<Item<M::Command>>,
    held: VecDeque<Item<M::Command>>,
    places: Arc<Semaphore>,
}

/// Where proposals go now.
enum Route {
    Here(LeaderId),
    There(NodeId),
    Nowhere,
}

/// What becomes one entry.
enum Cut<Cmd> {
    Each(Vec<Pending<Cmd>>),
    Together(InTerm<Cmd>),
}

impl<M: StateMachine> Batcher<M> {
    pub(super) fn new(core: Arc<Core<M>>, items: mpsc::UnboundedReceiver<Item<M::Command>>) -> Self {
        let places = Arc::new(Semaphore::new(core.options.entries_in_flight.max(1)));
        Self { core, items, held: VecDeque::new(), places }
    }

    pub(super) async fn run(mut self) {
        let mut leadership = self.core.leadership.clone();
        loop {
            if self.held.is_empty() {
                let Some(item) = self.items.recv().await else { return };
                self.held.push_back(item);
            }
            let Some(place) = self.place().await else { return };
            while let Ok(item) = self.items.try_recv() {
                self.held.push_back(item);
            }
            leadership.mark_unchanged();
            match self.route() {
                Route::Here(leader) => {
                    if let Some(cut) = self.cut() {
                        self.core.submit(cut, leader, place).await;
                    }
                }
                Route::There(leader) => {
                    self.turn_away(Some(leader));
                    let batch = self.cut_forward();
                    if !batch.is_empty() {
                        let core = Arc::clone(&self.core);
                        self.core.tasks.spawn(async move { core.forward(leader, batch, place).await });
                    }
                }
                Route::Nowhere => {
                    drop(place);
                    self.turn_away(None);
                    self.wait(&mut leadership).await;
                }
            }
        }
    }

    /// A place for an entry. It may be long until one is free: what nobody waits for any more must not pile up meanwhile.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        loop {
            let free = Arc::clone(&self.places).acquire_owned();
            if let Ok(place) = tokio::time::timeout(SHED, free).await {
                return place.ok();
            }
            while let Ok(item) = self.items.try_recv() {
                self.held.push_back(item);
            }
            self.shed();
        }
    }

    /// Throws away what nobody waits for: callers give up by themselves.
    fn shed(&mut self) {
        self.held.retain(|item| match item {
            Item::One(Pending { waiter, .. }) => !waiter.ticket.is_cancelled() && !waiter.reply.is_closed(),
            Item::Together(group) => !group.ticket.is_cancelled() && !group.reply.is_closed(),
        });
    }

    fn route(&self) -> Route {
        if let Some(leader) = self.core.leading() {
            return if self.core.heard.is_lost() { Route::Nowhere } else { Route::Here(leader) };
        }
        match self.core.leadership.borrow().leader {
            Some(leader) if leader != self.core.transport.node() => Route::There(leader),
            _ => Route::Nowhere,
        }
    }

    /// Nothing can be sent: waits for a leader.
    async fn wait(&mut self, leadership: &mut tokio::sync::watch::Receiver<hub_core::port::Leadership>) {
        self.shed();
        if self.held.is_empty() {
            return;
        }
        tokio::select! {
            changed = leadership.changed() => {
                if changed.is_err() {
                    self.held.clear();
                }
            }
            item = self.items.recv() => self.held.extend(item),
            // openraft's own state is seen a moment before the watch tells of it.
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }

    /// Ends what may only be written here.
    fn turn_away(&mut self, leader: Option<NodeId>) {
        for item in std::mem::take(&mut self.held) {
            match item {
                Item::One(pending) if pending.waiter.forwarded => {
                    pending.waiter.end(Outcome::NotLeader(leader));
                }
                Item::One(_) => self.held.push_back(item),
                Item::Together(group) => drop(group.reply.send(Err(ProposeError::LeadershipMoved))),
            }
        }
    }

    /// The front of the queue, as much as shares an entry.
    fn cut(&mut self) -> Option<Cut<M::Command>> {
        loop {
            match self.held.pop_front()? {
                Item::Together(group) if group.ticket.send() => return Some(Cut::Together(group)),
                Item::One(pending) => {
                    self.held.push_front(Item::One(pending));
                    let batch = self.cut_forward();
                    if !batch.is_empty() {
                        return Some(Cut::Each(batch));
                    }
                }
                Item::Together(_) => {}
            }
        }
    }

    fn cut_forward(&mut self) -> Vec<Pending<M::Command>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < ENTRY_COMMANDS {
            let Some(Item::One(pending)) = self.held.front() else { break };
            bytes += pending.submitted.command.size_hint();
            if bytes > ENTRY_BYTES && !batch.is_empty() {
                break;
            }
            let Some(Item::One(pending)) = self.held.pop_front() else { break };
            if pending.waiter.ticket.send() {
                batch.push(pending);
            }
        }
        batch
    }
}

/// Puts proposals back into the queue after a moment.
pub(super) fn retry_later<M: StateMachine>(core: &Arc<Core<M>>, pendings: Vec<Pending<M::Command>>) {
    let Some(first) = pendings.first() else { return };
    // Some scatter, so that not all nodes ask the new leader at the same moment.
    let scatter = u64::from(first.submitted.request.0.as_bytes().last().copied().unwrap_or(0)) % 20;
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        tokio::time::sleep(Duration::from_millis(10 + scatter)).await;
        for pending in pendings {
            drop(core.queue.send(Item::One(pending)));
        }
    });
}

/// What is left with an entry that was given to openraft.
struct OnItsWay<M: StateMachine> {
    core: Arc<Core<M>>,
    submitted: Vec<Submitted<M::Command>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<M: StateMachine> Core<M> {
    /// Ends a proposal with an unknown outcome, or asks again if the machine knows repeats.
    pub(super) fn doubt(self: &Arc<Self>, pendings: Vec<Pending<M::Command>>, reason: &str) {
        let mut again = Vec::new();
        for pending in pendings {
            pending.waiter.ticket.doubt();
            if self.options.repeat_unknown && !pending.waiter.forwarded {
                again.push(pending);
            } else {
                pending.waiter.end(Outcome::Unknown(reason.to_owned()));
            }
        }
        retry_later(self, again);
    }

    async fn submit(self: &Arc<Self>, cut: Cut<M::Command>, leader: LeaderId, place: OwnedSemaphorePermit) {
        match cut {
            Cut::Each(batch) => {
                let (submitted, waiters): (Vec<_>, Vec<_>) =
                    batch.into_iter().map(|pending| (pending.submitted, pending.waiter)).unzip();
                self.submit_each(submitted, waiters, leader, place).await;
            }
            Cut::Together(group) if group.term != leader.term => {
                drop(group.reply.send(Err(ProposeError::LeadershipMoved)));
            }
            Cut::Together(InTerm { mut submitted, reply, .. }) => {
                let entry = self.stamp(leader, &mut submitted);
                if let Err(refusal) = self.check(&entry) {
                    self.abandon(&submitted);
                    drop(reply.send(Err(refusal)));
                    return;
                }
                let way = OnItsWay { core: Arc::clone(self), submitted, _place: Some(place) };
                self.write(leader, entry, move |result| drop(reply.send(way.end_together(result)))).await;
            }
        }
    }

    async fn submit_each(
        self: &Arc<Self>,
        mut submitted: Vec<Submitted<M::Command>>,
        waiters: Vec<Waiter>,
        leader: LeaderId,
        place: OwnedSemaphorePermit,
    ) {
        let entry = self.stamp(leader, &mut submitted);
        if self.check(&entry).is_err() {
            self.abandon(&submitted);
            self.submit_alone(submitted, waiters, leader, place).await;
            return;
        }
        let way = OnItsWay { core: Arc::clone(self), submitted, _place: Some(place) };
        self.write(leader, entry, move |result| way.end_each(waiters, result)).await;
    }

    /// Their sizes were guessed too low, or one cannot be read: each goes in an entry of its own, if it may.
    async fn submit_alone(
        self: &Arc<Self>,
        submitted: Vec<Submitted<M::Command>>,
        waiters: Vec<Waiter>,
        leader: LeaderId,
        place: OwnedSemaphorePermit,
    ) {
        let mut place = Some(place);
        for (one, waiter) in submitted.into_iter().zip(waiters) {
            let mut one = vec![one];
            let entry = self.stamp(leader, &mut one);
            if let Err(refusal) = self.check(&entry) {
                self.abandon(&one);
                waiter.end(Outcome::Refused(refusal));
                continue;
            }
            let way = OnItsWay { core: Arc::clone(self), submitted: one, _place: place.take() };
            self.write(leader, entry, move |result| way.end_each(vec![waiter], result)).await;
        }
    }

    /// Whether an entry may be written.
    fn check(&self, entry: &Bytes) -> Result<(), ProposeError> {
        if entry.len() > MAX_ENTRY {
            return Err(ProposeError::TooLarge { bytes: entry.len() });
        }
        if self.kinds.readable::<M::Command>(entry) { Ok(()) } else { Err(ProposeError::Unsupported) }
    }

    fn stamp(&self, leader: LeaderId, submitted: &mut [Submitted<M::Command>]) -> Bytes {
        let now = self.clock.now();
        if let Some(stamper) = &self.stamper {
            stamper.stamp(leader.term, now, submitted);
        }
        self.metrics.entry_commands.observe(submitted.len() as f64);
        encode_batch(now, submitted)
    }

    fn abandon(&self, submitted: &[Submitted<M::Command>]) {
        if let Some(stamper) = &self.stamper {
            stamper.abandoned(submitted);
        }
    }

    async fn write(
        &self,
        leader: LeaderId,
        entry: Bytes,
        end: impl FnOnce(ClientWriteResult<C>) + Send + 'static,
    ) {
        let write = self.raft.write(EntryBytes(entry)).with_leader(leader).responder(OnComplete::new(end));
        // An error means that the group has failed; the responder is dropped, and its callers learn of it that way.
        if let Err(fatal) = write.await {
            tracing::debug!(%fatal, "proposal was not taken");
        }
    }
}

/// Certainly not written, or not certain.
enum Failure {
    NotWritten(Option<NodeId>),
    Unknown(String),
}

fn failure(error: &ClientWriteError<C>) -> Failure {
    match error {
        ClientWriteError::ForwardToLeader(forward) => Failure::NotWritten(forward.leader_id.map(NodeId)),
        ClientWriteError::PreconditionFailed(_) => Failure::NotWritten(None),
        error => Failure::Unknown(error.to_string()),
    }
}

impl<M: StateMachine> OnItsWay<M> {
    fn end_each(self, waiters: Vec<Waiter>, result: ClientWriteResult<C>) {
        let error = match result {
            Ok(response) if response.data.len() == waiters.len() => {
                let index = response.log_id.index();
                for (waiter, reply) in waiters.into_iter().zip(response.data) {
                    waiter.end(Outcome::Done { index, reply });
                }
                return;
            }
            Ok(_) => Failure::Unknown("the entry was answered with another number of replies".to_owned()),
            Err(error) => failure(&error),
        };
        let core = Arc::clone(&self.core);
        if matches!(error, Failure::NotWritten(_)) {
            core.abandon(&self.submitted);
        }
        let pendings = self.submitted.into_iter().zip(waiters);
        let pendings: Vec<_> = pendings.map(|(submitted, waiter)| Pending { submitted, waiter }).collect();
        match error {
            Failure::NotWritten(leader) => {
                let (forwarded, own): (Vec<_>, Vec<_>) =
                    pendings.into_iter().partition(|one| one.waiter.forwarded);
                for pending in forwarded {
                    pending.waiter.end(Outcome::NotLeader(leader));
                }
                for pending in &own {
                    pending.waiter.ticket.take_back();
                }
                retry_later(&core, own);
            }
            Failure::Unknown(reason) => core.doubt(pendings, &reason),
        }
    }

    fn end_together(self, result: ClientWriteResult<C>) -> Result<(u64, Vec<Bytes>), ProposeError> {
        match result {
            Ok(response) => Ok((response.log_id.index(), response.data)),
            Err(error) => match failure(&error) {
                Failure::NotWritten(_) => {
                    self.core.abandon(&self.submitted);
                    Err(ProposeError::LeadershipMoved)
                }
                Failure::Unknown(reason) => Err(ProposeError::Unknown(reason)),
            },
        }
    }
}
