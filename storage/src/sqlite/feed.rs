//! What applying tells the delivery queue of this node: messages that were accepted under a claim already, targets with
//! work, and whether this node may deliver at all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_core::delivery::Claim;
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::port::{Claimed, QueueSignal, Slots, Stamper, Submitted};
use hub_core::time::Timestamp;
use tokio::sync::Notify;

use super::apply::Effects;
use super::command::{Command, Item};

/// The link between the stamper (before an entry is proposed), the state machine (when it is applied) and the queue.
pub struct Feed {
    node: NodeId,
    slots: Arc<dyn Slots>,
    state: Mutex<State>,
    news: Notify,
    spare: Notify,
}

/// A message that this process stamped with a claim of its own, until its entry is applied or certainly lost.
struct Reservation {
    /// The term of the stamp.
    term: u64,
    target: ServiceName,
    /// Its slot was not given back yet: it may still be handed over.
    held: bool,
}

/// A request for claims.
struct Asked {
    term: u64,
    /// What it was granted, once it is applied.
    granted: Vec<Claim>,
    applied: bool,
    /// Nobody waits for the answer any more.
    given_up: bool,
}

/// A request for claims under way. Dropped before [`Self::taken`], what it is granted is given back.
pub(super) struct Expected<'a> {
    feed: &'a Feed,
    request: RequestId,
}

impl Expected<'_> {
    /// Its claims are used, or there certainly are none.
    pub(super) fn taken(self) {
        self.feed.state().asked.remove(&self.request);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.feed.give_up(self.request);
    }
}

#[derive(Default)]
struct State {
    reserved: HashMap<MessageId, Reservation>,
    /// Leadership changes that were not told yet: `true` for a start.
    changes: VecDeque<bool>,
    /// The term that this node leads, as far as was said.
    leading: Option<u64>,
    /// The last term in which this node is known not to lead any more.
    ended: u64,
    claimed: Vec<Claimed>,
    /// Claims that were written for this process and that it will not use: certainly nothing was sent under them.
    unused: Vec<Claim>,
    /// Requests for claims under way, and those that nobody waits for any more but that may still be written.
    asked: HashMap<RequestId, Asked>,
    due: BTreeSet<ServiceName>,
    later: Option<Timestamp>,
}

impl Feed {
    /// The feed of `node`; `slots` say which messages may start at once.
    #[must_use]
    pub fn new(node: NodeId, slots: Arc<dyn Slots>) -> Arc<Self> {
        Arc::new(Self { node, slots, state: Mutex::default(), news: Notify::new(), spare: Notify::new() })
    }

    /// Whose feed it is.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a batch was applied and is visible.
    pub(super) fn publish(&self, effects: Effects) {
        let mut free = Vec::new();
        {
            let mut state = self.state();
            for claimed in effects.claimed {
                state.written(claimed, &mut free);
            }
            for (id, term) in effects.refused {
                free.extend(state.forget(id, term));
            }
            for (request, granted) in effects.granted {
                state.granted(request, granted);
            }
            // What was proposed in an older term and is not applied by now never will be.
            free.extend(state.forget_before(effects.term));
            state.asked.retain(|_, asked| !asked.given_up || asked.term >= effects.term);
            if state.leading.is_some() {
                state.due.extend(effects.due);
                state.later = earlier(state.later, effects.later);
            }
        }
        self.give_back(free);
        self.news.notify_one();
        self.spare.notify_one();
    }

    /// This node leads in `term` from now on and is up to date.
    pub(super) fn started(&self, term: u64) {
        if self.state().leading.is_some_and(|led| led != term) {
            // It led before, too, and nobody noticed the time between.
            self.stopped(term.saturating_sub(1));
        }
        let mut state = self.state();
        if state.leading.is_none() {
            state.changes.push_back(true);
        }
        state.leading = Some(term);
        drop(state);
        self.news.notify_one();
    }

    /// This node must not deliver; and nothing it proposed in `over` or an earlier term will be handed over any more.
    pub(super) fn stopped(&self, over: u64) {
        let mut state = self.state();
        state.ended = state.ended.max(over);
        let mut free = state.free_up_to(over);
        if state.leading.take().is_some() {
            state.changes.push_back(false);
        }
        for claimed in std::mem::take(&mut state.claimed) {
            free.push(claimed.message.target);
            state.unused.push(claimed.claim);
        }
        state.due.clear();
        state.later = None;
        drop(state);
        self.give_back(free);
        self.news.notify_one();
        self.spare.notify_one();
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

    /// Claims are about to be asked for under `request`, in `term`.
    pub(super) fn expect(&self, request: RequestId, term: u64) -> Expected<'_> {
        let asked = Asked { term, granted: Vec::new(), applied: false, given_up: false };
        self.state().asked.insert(request, asked);
        Expected { feed: self, request }
    }

    fn give_up(&self, request: RequestId) {
        let mut state = self.state();
        let Some(asked) = state.asked.get_mut(&request) else { return };
        asked.given_up = true;
        if asked.applied {
            let granted = std::mem::take(&mut asked.granted);
            state.asked.remove(&request);
            state.unused.extend(granted);
            drop(state);
            self.spare.notify_one();
        }
    }

    /// Claims to be given back, so that nobody waits for the end of their leases; waits for some. For one consumer.
    pub(super) async fn unused(&self) -> Vec<Claim> {
        loop {
            let unused = self.take_unused();
            if !unused.is_empty() {
                return unused;
            }
            self.spare.notified().await;
        }
    }

    /// As [`Self::unused`], as far as there are any now.
    pub(super) fn take_unused(&self) -> Vec<Claim> {
        std::mem::take(&mut self.state().unused)
    }

    fn give_back(&self, targets: Vec<ServiceName>) {
        for target in targets {
            self.slots.give_back(&target);
        }
    }

    fn stamp_one(&self, term: u64, now: Timestamp, item: &mut Item) {
        let message = &item.message;
        item.claim = None;
        let ended = message.expires_at.is_some_and(|expires| expires <= now) || message.too_old_at <= now;
        if message.due_at() > now || ended || self.state().reserved.contains_key(&message.id) {
            return;
        }
        let Some(lease) = self.slots.try_reserve(&message.target) else { return };
        let reservation = Reservation { term, target: message.target.clone(), held: true };
        self.state().reserved.insert(message.id, reservation);
        item.claim = Some(Claim {
            message: message.id,
            owner: self.node,
            term,
            attempt: 1,
            lease_end: now.plus(lease),
        });
    }
}

impl State {
    fn take(&mut self) -> Option<QueueSignal> {
        if let Some(started) = self.changes.pop_front() {
            return Some(if started { QueueSignal::Started } else { QueueSignal::Stopped });
        }
        self.leading?;
        if !self.claimed.is_empty() {
            return Some(QueueSignal::Claimed(std::mem::take(&mut self.claimed)));
        }
        if let Some(target) = self.due.pop_first() {
            return Some(QueueSignal::Due(target));
        }
        self.later.take().map(QueueSignal::Later)
    }

    /// A message was inserted under a claim of this node. Without a reservation a process before this one stamped it, and
    /// may have used it.
    fn written(&mut self, claimed: Claimed, free: &mut Vec<ServiceName>) {
        let Some(reserved) = self.take_reserved(claimed.claim.message, claimed.claim.term) else { return };
        if reserved.held && self.ended < claimed.claim.term {
            self.claimed.push(claimed);
            return;
        }
        free.extend(reserved.held.then_some(reserved.target));
        self.unused.push(claimed.claim);
    }

    /// A request for claims of this node was applied. One that is not known was made by a process before this one.
    fn granted(&mut self, request: RequestId, claims: Vec<Claim>) {
        let Some(asked) = self.asked.get_mut(&request) else { return };
        (asked.applied, asked.granted) = (true, claims);
        if asked.given_up {
            let claims = std::mem::take(&mut asked.granted);
            self.asked.remove(&request);
            self.unused.extend(claims);
        }
    }

    /// The reservation of the stamp of `term`; another copy of the same message may have been stamped in another term.
    fn take_reserved(&mut self, id: MessageId, term: u64) -> Option<Reservation> {
        if self.reserved.get(&id)?.term == term { self.reserved.remove(&id) } else { None }
    }

    /// Will not be written; whose slot is free, if it still was taken.
    fn forget(&mut self, id: MessageId, term: u64) -> Option<ServiceName> {
        let reserved = self.take_reserved(id, term)?;
        reserved.held.then_some(reserved.target)
    }

    fn forget_before(&mut self, term: u64) -> Vec<ServiceName> {
        if self.reserved.values().all(|reserved| reserved.term >= term) {
            return Vec::new();
        }
        let lost = self.reserved.extract_if(|_, reserved| reserved.term < term);
        lost.filter_map(|(_, reserved)| reserved.held.then_some(reserved.target)).collect()
    }

    /// Slots of what was stamped in `over` or before. It may still be written: then it is given back.
    fn free_up_to(&mut self, over: u64) -> Vec<ServiceName> {
        let held = self.reserved.values_mut().filter(|reserved| reserved.held && reserved.term <= over);
        held.map(|reserved| {
            reserved.held = false;
            reserved.target.clone()
        })
        .collect()
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Stamps claims into inserts on the leader, for messages that find a free slot.
impl Stamper<Command> for Feed {
    fn stamp(&self, term: u64, now: Timestamp, proposals: &mut [Submitted<Command>]) {
        for proposal in proposals {
            if let Command::Insert(insert) = &mut proposal.command {
                for item in &mut insert.items {
                    self.stamp_one(term, now, item);
                }
            }
        }
    }

    fn abandoned(&self, proposals: &[Submitted<Command>]) {
        let mut free = Vec::new();
        for proposal in proposals {
            let Command::Insert(insert) = &proposal.command else { continue };
            for claim in insert.items.iter().filter_map(|item| item.claim.as_ref()) {
                free.extend(self.state().forget(claim.message, claim.term));
            }
        }
        self.give_back(free);
    }
}

#[cfg(test)]
mod tests;
