//! What applying tells the delivery queue of this node: messages that were accepted under a claim already, targets with
//! work, and whether this node may deliver at all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_core::delivery::Claim;
use hub_core::id::{MessageId, NodeId, ServiceName};
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
}

#[derive(Default)]
struct State {
    /// Slots taken for messages that were stamped and not applied yet: the term of the stamp, and whose slot.
    reserved: HashMap<MessageId, (u64, ServiceName)>,
    /// Leadership changes that were not told yet: `true` for a start.
    changes: VecDeque<bool>,
    /// The term that this node leads, as far as was said.
    leading: Option<u64>,
    /// The last term in which this node is known not to lead any more.
    ended: u64,
    claimed: Vec<Claimed>,
    due: BTreeSet<ServiceName>,
    later: Option<Timestamp>,
}

impl Feed {
    /// The feed of `node`; `slots` say which messages may start at once.
    #[must_use]
    pub fn new(node: NodeId, slots: Arc<dyn Slots>) -> Arc<Self> {
        Arc::new(Self { node, slots, state: Mutex::default(), news: Notify::new() })
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
                let Some((term, target)) = state.reserved.remove(&claimed.claim.message) else { continue };
                if term == claimed.claim.term && state.ended < term {
                    state.claimed.push(claimed);
                } else {
                    free.push(target);
                }
            }
            let refused = effects.refused.iter().filter_map(|id| state.reserved.remove(id));
            free.extend(refused.map(|(_, target)| target));
            // What was proposed in an older term and is not applied by now never will be.
            free.extend(state.outdated(effects.term));
            if state.leading.is_some() {
                state.due.extend(effects.due);
                state.later = earlier(state.later, effects.later);
            }
        }
        self.give_back(free);
        self.news.notify_one();
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
        let mut free = state.outdated(over.saturating_add(1));
        if state.leading.take().is_some() {
            state.changes.push_back(false);
        }
        // Their claims run out by themselves.
        free.extend(std::mem::take(&mut state.claimed).into_iter().map(|claimed| claimed.message.target));
        state.due.clear();
        state.later = None;
        drop(state);
        self.give_back(free);
        self.news.notify_one();
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
        self.state().reserved.insert(message.id, (term, message.target.clone()));
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

    fn outdated(&mut self, term: u64) -> Vec<ServiceName> {
        if self.reserved.values().all(|(stamped, _)| *stamped >= term) {
            return Vec::new();
        }
        self.reserved.extract_if(|_, (stamped, _)| *stamped < term).map(|(_, (_, target))| target).collect()
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
            for item in insert.items.iter().filter(|item| item.claim.is_some()) {
                free.extend(self.state().reserved.remove(&item.message.id).map(|(_, target)| target));
            }
        }
        self.give_back(free);
    }
}
