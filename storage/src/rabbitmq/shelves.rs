//! What the broker has handed to this node and is not acknowledged yet: waiting to be claimed, or claimed. Pure; time is
//! given.
//!
//! A message waits on the shelf of its target until the dispatcher wants one; then it is held until its attempt is
//! settled. Both are acknowledged under the connection they came by, or not at all: a new connection brings them again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hub_core::delivery::Claim;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::Priority;
use hub_core::time::Timestamp;
use tokio::sync::Notify;

/// The most that one target's consumer on one node has not acknowledged.
pub(super) const MOST_PREFETCHED: u16 = 200;

/// How the broker knows one delivery: by its number on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Which connection of this process.
    pub(super) epoch: u64,
    /// The number.
    pub(super) number: u64,
}

/// One message on a shelf. The order is that of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: Reverse<Priority>,
    /// Which message. Ids sort by the time at which they were made.
    pub(super) id: MessageId,
}

impl Place {
    /// Where a message stands.
    pub(super) const fn new(priority: Priority, id: MessageId) -> Self {
        Self { priority: Reverse(priority), id }
    }
}

/// What one target has here.
#[derive(Debug, Default)]
struct Shelf {
    waiting: BTreeMap<Place, Tag>,
    /// Since when something waits and nothing was taken.
    untouched: Option<Instant>,
    /// Claimed and not settled.
    held: u32,
    /// How many unacknowledged messages its consumer may have; none: it is not to be consumed.
    wish: Option<u16>,
}

impl Shelf {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.held == 0 && self.wish.is_none()
    }
}

/// A message that is claimed.
#[derive(Debug)]
struct Held {
    target: ServiceName,
    attempt: u32,
    tag: Option<Tag>,
    lease_end: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    shelves: HashMap<ServiceName, Shelf>,
    held: HashMap<MessageId, Held>,
    /// Targets whose wish changed and was not looked at since.
    changed: BTreeSet<ServiceName>,
}

/// Messages of one target that nobody wanted for too long.
#[derive(Debug)]
pub(super) struct Unwanted {
    /// Whose.
    pub(super) target: ServiceName,
    /// Which.
    pub(super) ids: Vec<MessageId>,
    /// To be acknowledged.
    pub(super) tags: Vec<Tag>,
}

/// The shelves of all targets.
#[derive(Debug)]
pub(super) struct Shelves {
    least_prefetched: u16,
    state: Mutex<State>,
    /// Wakes the consumers: a wish changed.
    pub(super) wishes_changed: Notify,
}

impl Shelves {
    /// Empty ones. A consumer may have at least so many unacknowledged.
    pub(super) fn new(least_prefetched: u16) -> Self {
        let least_prefetched = least_prefetched.clamp(1, MOST_PREFETCHED);
        Self { least_prefetched, state: Mutex::default(), wishes_changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection: what waited comes again by it, and nothing can be acknowledged by the old one. Its number.
    pub(super) fn renew(&self) -> u64 {
        let mut state = self.state();
        state.epoch += 1;
        for shelf in state.shelves.values_mut() {
            shelf.waiting.clear();
            shelf.untouched = None;
        }
        for held in state.held.values_mut() {
            held.tag = None;
        }
        state.shelves.retain(|_, shelf| !shelf.is_idle());
        let wished = state.shelves.iter().filter(|(_, shelf)| shelf.wish.is_some());
        state.changed = wished.map(|(target, _)| target.clone()).collect();
        state.epoch
    }

    /// The broker handed one over. The tag to acknowledge at once if the same message waits already.
    pub(super) fn arrive(&self, target: &ServiceName, place: Place, tag: Tag, now: Instant) -> Option<Tag> {
        let mut state = self.state();
        let shelf = state.shelves.entry(target.clone()).or_default();
        shelf.untouched.get_or_insert(now);
        shelf.waiting.insert(place, tag)
    }

    /// Takes what goes first; notes that the target is wanted, and how many at a time it can use.
    pub(super) fn take(&self, target: &ServiceName, count: u32, now: Instant) -> Vec<(Place, Tag)> {
        let mut state = self.state();
        let State { shelves, changed, .. } = &mut *state;
        let shelf = shelves.entry(target.clone()).or_default();
        // As many as can be under way, and as many again, so that none has to wait for the way to the broker and back.
        let wish = count.saturating_add(shelf.held).saturating_mul(2);
        let wish = u16::try_from(wish).unwrap_or(u16::MAX).clamp(self.least_prefetched, MOST_PREFETCHED);
        if shelf.wish.is_none_or(|old| old < wish) {
            shelf.wish = Some(wish);
            changed.insert(target.clone());
            self.wishes_changed.notify_one();
        }
        let mut taken = Vec::new();
        while taken.len() < count as usize {
            let Some(first) = shelf.waiting.pop_first() else { break };
            taken.push(first);
        }
        shelf.untouched = (!shelf.waiting.is_empty()).then_some(now);
        taken
    }

    /// Puts back what was taken and not claimed, unless the connection is another one by now.
    pub(super) fn put_back(&self, target: &ServiceName, taken: Vec<(Place, Tag)>, now: Instant) {
        let mut state = self.state();
        let epoch = state.epoch;
        let Some(shelf) = state.shelves.get_mut(target) else { return };
        for (place, tag) in taken.into_iter().filter(|(_, tag)| tag.epoch == epoch) {
            shelf.waiting.insert(place, tag);
            shelf.untouched.get_or_insert(now);
        }
    }

    /// What was taken is claimed. The tag to acknowledge of an earlier claim on the same message, which has lapsed.
    pub(super) fn hold(&self, claim: &Claim, target: &ServiceName, tag: Tag) -> Option<Tag> {
        let mut state = self.state();
        let tag = (tag.epoch == state.epoch).then_some(tag);
        let held = Held { target: target.clone(), attempt: claim.attempt, tag, lease_end: claim.lease_end };
        let old = state.held.insert(claim.message, held);
        if old.is_none() {
            state.shelves.entry(target.clone()).or_default().held += 1;
        }
        old.and_then(|old| old.tag)
    }

    /// An attempt has ended: whose it was, and what to acknowledge. Nothing for a claim that lapsed and was followed by
    /// another one.
    pub(super) fn release(&self, claim: &Claim) -> Option<(ServiceName, Option<Tag>)> {
        let mut state = self.state();
        state.held.get(&claim.message).filter(|held| held.attempt == claim.attempt)?;
        let held = state.held.remove(&claim.message)?;
        state.let_go(&held.target);
        Some((held.target, held.tag))
    }

    /// Tags of claims that ended before `now` without being settled: such a message comes again by its row.
    pub(super) fn lapsed(&self, now: Timestamp) -> Vec<Tag> {
        let mut state = self.state();
        let lapsed: Vec<Held> =
            state.held.extract_if(|_, held| held.lease_end <= now).map(|(_, held)| held).collect();
        for held in &lapsed {
            state.let_go(&held.target);
        }
        lapsed.into_iter().filter_map(|held| held.tag).collect()
    }

    /// Takes the messages of all targets from which nothing was taken for `patience`, and their wishes: the target is
    /// paused, or this node has no slots for it.
    pub(super) fn unwanted(&self, now: Instant, patience: Duration) -> Vec<Unwanted> {
        let mut state = self.state();
        let State { shelves, changed, .. } = &mut *state;
        let mut all = Vec::new();
        for (target, shelf) in shelves.iter_mut() {
            let since = shelf.untouched.map(|since| now.saturating_duration_since(since));
            if since.is_none_or(|since| since < patience) {
                continue;
            }
            let waiting = std::mem::take(&mut shelf.waiting);
            shelf.untouched = None;
            if shelf.wish.take().is_some() {
                changed.insert(target.clone());
            }
            let (places, tags): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            let ids = places.into_iter().map(|place: Place| place.id).collect();
            all.push(Unwanted { target: target.clone(), ids, tags });
        }
        shelves.retain(|_, shelf| !shelf.is_idle());
        all
    }

    /// The wishes that changed since the last look.
    pub(super) fn changed(&self) -> Vec<(ServiceName, Option<u16>)> {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed);
        let wish = |target: &ServiceName| state.shelves.get(target).and_then(|shelf| shelf.wish);
        changed.into_iter().map(|target| (target.clone(), wish(&target))).collect()
    }

    /// A wish has to be looked at again: its consumer is gone.
    pub(super) fn look_again(&self, target: &ServiceName) {
        self.state().changed.insert(target.clone());
    }

    /// The targets that are to be consumed here.
    pub(super) fn wished(&self) -> Vec<ServiceName> {
        let state = self.state();
        let wished = state.shelves.iter().filter(|(_, shelf)| shelf.wish.is_some());
        wished.map(|(target, _)| target.clone()).collect()
    }

    /// Whether the target is to be consumed here.
    pub(super) fn is_wished(&self, target: &ServiceName) -> bool {
        self.state().shelves.get(target).is_some_and(|shelf| shelf.wish.is_some())
    }

    /// How many of the target wait.
    pub(super) fn waiting(&self, target: &ServiceName) -> u32 {
        let state = self.state();
        state.shelves.get(target).map_or(0, |shelf| u32::try_from(shelf.waiting.len()).unwrap_or(u32::MAX))
    }

    /// How many wait, and how many are held.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.shelves.values().map(|shelf| shelf.waiting.len()).sum(), state.held.len())
    }
}

impl State {
    fn let_go(&mut self, target: &ServiceName) {
        if let Some(shelf) = self.shelves.get_mut(target) {
            shelf.held = shelf.held.saturating_sub(1);
            if shelf.is_idle() {
                self.shelves.remove(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn place(priority: u8, id: u128) -> Place {
        Place::new(Priority::new(priority).unwrap(), MessageId(Uuid::from_u128(id)))
    }

    fn claim(message: MessageId, attempt: u32) -> Claim {
        let lease_end = Timestamp::from_millis(100);
        Claim { message, owner: hub_core::id::NodeId(1), term: 0, attempt, lease_end }
    }

    fn ids(taken: &[(Place, Tag)]) -> Vec<u128> {
        taken.iter().map(|(place, _)| place.id.0.as_u128()).collect()
    }

    #[test]
    fn the_first_in_line_is_taken_first() {
        let (shelves, now) = (Shelves::new(1), start());
        let epoch = shelves.renew();
        let target: ServiceName = "a".parse().unwrap();
        for (number, (priority, id)) in [(4, 3), (9, 4), (4, 2), (0, 1)].into_iter().enumerate() {
            let tag = Tag { epoch, number: number as u64 };
            assert_eq!(shelves.arrive(&target, place(priority, id), tag, now), None);
        }
        let twice = Tag { epoch, number: 9 };
        assert_eq!(shelves.arrive(&target, place(0, 1), twice, now), Some(Tag { epoch, number: 3 }));
        assert_eq!(ids(&shelves.take(&target, 2, now)), [4, 2]);
        assert_eq!(ids(&shelves.take(&target, 5, now)), [3, 1]);
    }

    #[test]
    fn a_wish_grows_with_what_can_be_used_and_is_told_once() {
        let (shelves, now) = (Shelves::new(1), start());
        let target: ServiceName = "a".parse().unwrap();
        assert!(shelves.take(&target, 10, now).is_empty());
        assert_eq!(shelves.changed(), [(target.clone(), Some(20))]);
        assert!(shelves.take(&target, 3, now).is_empty());
        assert!(shelves.changed().is_empty());
        shelves.take(&target, 1_000, now);
        assert_eq!(shelves.changed(), [(target.clone(), Some(MOST_PREFETCHED))]);
        shelves.renew();
        assert_eq!(shelves.changed(), [(target, Some(MOST_PREFETCHED))], "after a new connection");
    }

    #[test]
    fn what_nobody_wants_goes_back_and_its_wish_goes_too() {
        let (shelves, now) = (Shelves::new(1), start());
        let epoch = shelves.renew();
        let target: ServiceName = "a".parse().unwrap();
        shelves.take(&target, 1, now);
        shelves.changed();
        shelves.arrive(&target, place(4, 1), Tag { epoch, number: 1 }, now);
        let patience = Duration::from_secs(15);
        assert!(shelves.unwanted(now + patience / 2, patience).is_empty());
        let unwanted = shelves.unwanted(now + patience, patience);
        assert_eq!((unwanted.len(), unwanted[0].ids.len(), unwanted[0].tags.len()), (1, 1, 1));
        assert_eq!(shelves.changed(), [(target.clone(), None)]);
        assert!(!shelves.is_wished(&target) && shelves.state().shelves.is_empty());
    }

    #[test]
    fn nothing_is_acknowledged_by_another_connection() {
        let (shelves, now) = (Shelves::new(1), start());
        let epoch = shelves.renew();
        let target: ServiceName = "a".parse().unwrap();
        for number in 1..=3 {
            shelves.arrive(&target, place(4, u128::from(number)), Tag { epoch, number }, now);
        }
        let mut taken = shelves.take(&target, 3, now);
        let (third, second, first) = (taken.pop().unwrap(), taken.pop().unwrap(), taken.pop().unwrap());
        let (claim_1, claim_2) = (claim(first.0.id, 1), claim(second.0.id, 1));
        shelves.hold(&claim_1, &target, first.1);
        shelves.hold(&claim_2, &target, second.1);
        assert_eq!(shelves.release(&claim_2), Some((target.clone(), Some(second.1))));
        shelves.renew();
        shelves.put_back(&target, vec![third], now);
        assert_eq!(shelves.waiting(&target), 0);
        assert_eq!(shelves.release(&claim(first.0.id, 2)), None, "another attempt");
        assert_eq!(shelves.release(&claim_1), Some((target, None)));
        assert_eq!(shelves.release(&claim_1), None);
    }

    #[test]
    fn a_claim_that_lapsed_is_acknowledged() {
        let (shelves, now) = (Shelves::new(1), start());
        let epoch = shelves.renew();
        let target: ServiceName = "a".parse().unwrap();
        let tag = Tag { epoch, number: 1 };
        shelves.arrive(&target, place(4, 1), tag, now);
        let taken = shelves.take(&target, 1, now);
        shelves.hold(&claim(taken[0].0.id, 1), &target, tag);
        assert!(shelves.lapsed(Timestamp::from_millis(99)).is_empty());
        assert_eq!(shelves.counts(), (0, 1));
        assert_eq!(shelves.lapsed(Timestamp::from_millis(100)), [tag]);
        assert_eq!(shelves.counts(), (0, 0));
    }
}
