//! The feed through changes of leadership, lost and repeated proposals: every slot comes back, and a claim that nobody will
//! use is given back instead of waiting for its end.

use std::sync::Arc;

use futures::FutureExt;
use hub_core::delivery::Claim;
use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::port::{Claimed, QueueSignal, Stamper, Submitted};
use hub_core::time::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::Feed;
use crate::sqlite::apply::Effects;
use crate::sqlite::command::{Command, Insert, Item};
use crate::suite::{TestSlots, plain_message};

const ME: NodeId = NodeId(1);
const NOW: i64 = 1_800_000_000_000;
const SLOTS: u32 = 6;

fn target() -> ServiceName {
    "target".parse().unwrap()
}

fn id(number: u8) -> MessageId {
    MessageId(Uuid::from_u128((0x0190_0000_0000_7000_8000_u128 << 48) | u128::from(number)))
}

fn item(number: u8) -> Item {
    let now = Timestamp::from_millis(NOW);
    let message = plain_message(id(number), "sender".parse().unwrap(), target(), now);
    Item { message, claim: None }
}

/// One message, stamped in `term`.
fn stamped(feed: &Feed, term: u64, mut item: Item) -> Vec<Submitted<Command>> {
    // What an earlier stamp left must not be believed.
    item.claim.get_or_insert(Claim {
        message: item.message.id,
        owner: NodeId(9),
        term: 1,
        attempt: 1,
        lease_end: Timestamp::MAX,
    });
    let command = Command::Insert(Insert { items: vec![item], atomic: false, max_backlog: 100 });
    let mut proposals = vec![Submitted { request: RequestId(Uuid::nil()), command }];
    feed.stamp(term, Timestamp::from_millis(NOW), &mut proposals);
    proposals
}

fn item_of(proposals: &[Submitted<Command>]) -> &Item {
    match &proposals[0].command {
        Command::Insert(insert) => &insert.items[0],
        other => panic!("{other:?}"),
    }
}

/// What applying this entry tells the feed, if the message is new.
fn inserted(term: u64, proposals: &[Submitted<Command>]) -> Effects {
    let item = item_of(proposals);
    let mut effects = Effects { term, ..Effects::default() };
    if let Some(claim) = &item.claim {
        let message = item.message.to_message();
        effects.claimed.push(Claimed { claim: claim.clone(), message, retry_count: 0 });
    }
    effects
}

/// The same, if the message was there already.
fn refused(term: u64, proposals: &[Submitted<Command>]) -> Effects {
    let claim = item_of(proposals).claim.as_ref();
    let refused = claim.map(|claim| (claim.message, claim.term)).into_iter().collect();
    Effects { term, refused, ..Effects::default() }
}

fn led(term: u64) -> (Arc<Feed>, Arc<TestSlots>) {
    let slots = Arc::new(TestSlots::default());
    slots.grant(&target(), SLOTS);
    let feed = Feed::new(ME, slots.clone());
    feed.started(term);
    assert_eq!(signal(&feed), Some(QueueSignal::Started));
    (feed, slots)
}

/// The next signal, if there is one.
fn signal(feed: &Feed) -> Option<QueueSignal> {
    feed.next().now_or_never()
}

fn handed_over(feed: &Feed) -> Vec<(MessageId, u64)> {
    match signal(feed) {
        Some(QueueSignal::Claimed(all)) => {
            all.iter().map(|one| (one.claim.message, one.claim.term)).collect()
        }
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

fn unused(feed: &Feed) -> Vec<(MessageId, u64)> {
    let unused = feed.unused().now_or_never().unwrap_or_default();
    unused.iter().map(|claim| (claim.message, claim.term)).collect()
}

#[test]
fn a_stamp_is_the_leaders_own_and_needs_a_slot() {
    let (feed, slots) = led(1);
    for number in 0..SLOTS as u8 {
        let stamped = stamped(&feed, 1, item(number));
        let claim = item_of(&stamped).claim.clone().unwrap();
        assert_eq!((claim.message, claim.owner, claim.term, claim.attempt), (id(number), ME, 1, 1));
    }
    assert_eq!(slots.free(&target()), 0);
    // Without a slot an old stamp is cleared, not kept.
    assert_eq!(item_of(&stamped(&feed, 1, item(100))).claim, None);
}

#[test]
fn an_abandoned_proposal_frees_its_slot_and_is_stamped_anew() {
    let (feed, slots) = led(1);
    let first = stamped(&feed, 1, item(1));
    assert_eq!(slots.free(&target()), SLOTS - 1);
    feed.abandoned(&first);
    feed.abandoned(&first);
    assert_eq!(slots.free(&target()), SLOTS);
    let again = stamped(&feed, 2, item_of(&first).clone());
    assert_eq!(item_of(&again).claim.as_ref().map(|claim| claim.term), Some(2));
    feed.publish(inserted(2, &again));
    assert_eq!(handed_over(&feed), [(id(1), 2)]);
}

#[test]
fn a_copy_of_a_message_that_is_under_way_gets_no_second_slot() {
    let (feed, slots) = led(1);
    let first = stamped(&feed, 1, item(1));
    let copy = stamped(&feed, 1, item(1));
    assert_eq!(item_of(&copy).claim, None);
    feed.abandoned(&copy);
    feed.publish(inserted(1, &first));
    assert_eq!(handed_over(&feed), [(id(1), 1)]);
    feed.publish(refused(1, &copy));
    assert_eq!(slots.free(&target()), SLOTS - 1, "the slot is with the dispatcher now");
}

#[test]
fn an_unknown_outcome_keeps_its_slot_only_until_the_leadership_is_over() {
    let (feed, slots) = led(1);
    let doubtful = stamped(&feed, 1, item(1));
    feed.stopped(1);
    assert_eq!(signal(&feed), Some(QueueSignal::Stopped));
    assert_eq!(slots.free(&target()), SLOTS, "freed at once");
    // It was written after all: nobody delivers it here, so its claim is given back.
    feed.publish(inserted(1, &doubtful));
    assert_eq!(handed_over(&feed), []);
    assert_eq!(unused(&feed), [(id(1), 1)]);
    assert_eq!(slots.free(&target()), SLOTS, "freed once");
}

#[test]
fn a_late_word_about_an_old_copy_does_not_touch_the_new_one() {
    let (feed, slots) = led(1);
    let old = stamped(&feed, 1, item(1));
    feed.stopped(1);
    // An entry of the third term is applied, so the old copy is certainly lost.
    feed.publish(Effects { term: 3, ..Effects::default() });
    feed.started(3);
    assert_eq!([signal(&feed), signal(&feed)], [Some(QueueSignal::Stopped), Some(QueueSignal::Started)]);
    let new = stamped(&feed, 3, item_of(&old).clone());
    assert_eq!(slots.free(&target()), SLOTS - 1);
    feed.abandoned(&old);
    assert_eq!(slots.free(&target()), SLOTS - 1, "the slot is the new copy's");
    feed.publish(inserted(3, &new));
    assert_eq!(handed_over(&feed), [(id(1), 3)]);
}

#[test]
fn a_leader_again_uses_only_claims_of_its_own_term() {
    let (feed, slots) = led(1);
    let old = stamped(&feed, 1, item(1));
    // It led in between without noticing: the old entry is committed by the new term.
    feed.started(3);
    assert_eq!([signal(&feed), signal(&feed)], [Some(QueueSignal::Stopped), Some(QueueSignal::Started)]);
    feed.publish(inserted(1, &old));
    assert_eq!((handed_over(&feed), unused(&feed)), (vec![], vec![(id(1), 1)]));
    assert_eq!(slots.free(&target()), SLOTS);
}

#[test]
fn what_was_not_taken_in_time_is_given_back() {
    let (feed, slots) = led(1);
    let one = stamped(&feed, 1, item(1));
    feed.publish(inserted(1, &one));
    feed.stopped(1);
    assert_eq!(signal(&feed), Some(QueueSignal::Stopped));
    assert_eq!(signal(&feed), None, "nothing to deliver any more");
    assert_eq!(unused(&feed), [(id(1), 1)]);
    assert_eq!(slots.free(&target()), SLOTS);
}

#[test]
fn a_pause_of_the_leadership_within_its_term_loses_nothing() {
    let (feed, slots) = led(1);
    let one = stamped(&feed, 1, item(1));
    // Who leads is not known for a moment; the term is not over.
    feed.stopped(0);
    feed.publish(inserted(1, &one));
    feed.started(1);
    assert_eq!([signal(&feed), signal(&feed)], [Some(QueueSignal::Stopped), Some(QueueSignal::Started)]);
    assert_eq!(handed_over(&feed), [(id(1), 1)]);
    assert_eq!(slots.free(&target()), SLOTS - 1);
}

#[test]
fn claims_of_an_earlier_process_are_neither_used_nor_given_back() {
    let (before, _) = led(1);
    let one = stamped(&before, 1, item(1));
    let (feed, slots) = led(1);
    feed.publish(inserted(1, &one));
    assert_eq!((handed_over(&feed), unused(&feed)), (vec![], vec![]));
    assert_eq!(slots.free(&target()), SLOTS);
}

fn claim(number: u8) -> Claim {
    Claim { message: id(number), owner: ME, term: 1, attempt: 1, lease_end: Timestamp::from_millis(NOW) }
}

fn granted(request: RequestId, claims: Vec<Claim>) -> Effects {
    Effects { term: 1, granted: vec![(request, claims)], ..Effects::default() }
}

#[test]
fn claims_that_nobody_waits_for_any_more_are_given_back() {
    let (feed, _) = led(1);
    let request = |number| RequestId(Uuid::from_u128(number));
    // Taken.
    let expected = feed.expect(request(1), 1);
    feed.publish(granted(request(1), vec![claim(1)]));
    expected.taken();
    assert_eq!(unused(&feed), []);
    // Given up before it is applied, and after.
    drop(feed.expect(request(2), 1));
    feed.publish(granted(request(2), vec![claim(2), claim(3)]));
    assert_eq!(unused(&feed), [(id(2), 1), (id(3), 1)]);
    let expected = feed.expect(request(4), 1);
    feed.publish(granted(request(4), vec![claim(4)]));
    drop(expected);
    assert_eq!(unused(&feed), [(id(4), 1)]);
    // Asked by an earlier process, or lost with its term.
    feed.publish(granted(request(5), vec![claim(5)]));
    drop(feed.expect(request(6), 1));
    feed.publish(Effects { term: 2, ..Effects::default() });
    assert!(feed.state().asked.is_empty());
    assert_eq!(unused(&feed), []);
}

/// What may happen to the leader and its proposals.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message is proposed, perhaps one that is under way already.
    Propose(u8),
    /// The oldest proposal of the log is applied; `true` if its message is new.
    Apply(bool),
    /// All that is not applied is cut off the log by a newer leader; whether this node hears of it.
    Cut(bool),
    /// The newest proposal is abandoned.
    Abandon,
    /// Another node leads.
    Lose,
    /// This node leads again in a new term, with what is in its log.
    Win,
    /// The dispatcher looks.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_u8..8).prop_map(Step::Propose),
        4 => any::<bool>().prop_map(Step::Apply),
        1 => any::<bool>().prop_map(Step::Cut),
        1 => Just(Step::Abandon),
        1 => Just(Step::Lose),
        2 => Just(Step::Win),
        2 => Just(Step::Look),
    ]
}

/// The feed in a small world: the log, and what the dispatcher and the releaser got.
struct World {
    feed: Arc<Feed>,
    slots: Arc<TestSlots>,
    term: u64,
    leads: bool,
    log: Vec<Vec<Submitted<Command>>>,
    /// Claims that were written, handed over, given back.
    written: Vec<(MessageId, u64)>,
    used: Vec<(MessageId, u64)>,
    unused: Vec<(MessageId, u64)>,
    /// A planted mistake: the feed is not told of proposals that were abandoned.
    deaf: bool,
}

impl World {
    fn new(deaf: bool) -> Self {
        let (feed, slots) = led(1);
        let (log, written, used, unused) = Default::default();
        Self { feed, slots, term: 1, leads: true, log, written, used, unused, deaf }
    }

    fn look(&mut self) {
        while let Some(signal) = signal(&self.feed) {
            if let QueueSignal::Claimed(all) = signal {
                for one in all {
                    self.slots.grant(&target(), 1);
                    self.used.push((one.claim.message, one.claim.term));
                }
            }
        }
        self.unused.extend(unused(&self.feed));
    }

    fn apply(&mut self, new: bool) {
        if self.log.is_empty() {
            return;
        }
        let entry = self.log.remove(0);
        let claim = item_of(&entry).claim.clone();
        let term = claim.as_ref().map_or(0, |claim| claim.term);
        if new {
            self.written.extend(claim.map(|claim| (claim.message, claim.term)));
            self.feed.publish(inserted(term, &entry));
        } else {
            self.feed.publish(refused(term, &entry));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Propose(number) if self.leads => {
                self.log.push(stamped(&self.feed, self.term, item(number)));
            }
            Step::Propose(_) => {}
            Step::Apply(new) => self.apply(new),
            Step::Cut(heard) => {
                self.lose();
                for lost in std::mem::take(&mut self.log) {
                    if heard {
                        self.feed.abandoned(&lost);
                    }
                }
                self.feed.publish(Effects { term: self.term, ..Effects::default() });
            }
            Step::Abandon => {
                if let Some(last) = self.log.pop()
                    && !self.deaf
                {
                    self.feed.abandoned(&last);
                }
            }
            Step::Lose => self.lose(),
            Step::Win => {
                // What is in the log is committed before an entry of the new term is applied.
                self.lose();
                self.term += 1;
                while !self.log.is_empty() {
                    self.apply(true);
                }
                self.feed.publish(Effects { term: self.term, ..Effects::default() });
                self.feed.started(self.term);
                self.leads = true;
            }
            Step::Look => self.look(),
        }
    }

    fn lose(&mut self) {
        self.feed.stopped(self.term);
        self.term += 1;
        self.leads = false;
    }
}

/// Runs the steps, then a last change of leaders; all must come out even. What is free may at no time be more than there
/// are, and when the dispatcher has looked no less than what is not under way.
fn run(steps: &[Step], deaf: bool) -> Result<(), String> {
    let mut world = World::new(deaf);
    for step in steps {
        world.step(*step);
        let free = world.slots.free(&target());
        let under_way = world.log.iter().filter(|entry| item_of(entry).claim.is_some()).count();
        let lost = world.leads && matches!(step, Step::Look) && free as usize + under_way < SLOTS as usize;
        if free > SLOTS || lost {
            return Err(format!("{free} slots are free and {under_way} proposals under way after {step:?}"));
        }
    }
    world.step(Step::Cut(false));
    world.look();
    let mut ends = [world.used, world.unused].concat();
    ends.sort_unstable();
    world.written.sort_unstable();
    if ends != world.written {
        return Err(format!("{:?} were written, {ends:?} used or given back", world.written));
    }
    let left = world.feed.state().reserved.len();
    if left > 0 || world.slots.free(&target()) != SLOTS {
        return Err(format!("{left} reservations and {} free slots are left", world.slots.free(&target())));
    }
    Ok(())
}

proptest! {
    #[test]
    fn slots_come_back_and_every_claim_that_was_written_is_used_or_given_back(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        run(&steps, false).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn a_slot_that_is_not_given_back_is_noticed() {
    let steps = [Step::Propose(1), Step::Abandon, Step::Look];
    assert_eq!(run(&steps, false), Ok(()));
    assert!(run(&steps, true).is_err());
}
