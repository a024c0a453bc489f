//! The count of delivery slots: who holds how many, and which targets have messages waiting. Pure; time is given.
//!
//! A slot is held from the moment a claim is asked for until the target has answered, in one of two ways: *reserved* (the
//! store is about to write a message that is claimed already) or *running* (this node claims it or attempts it).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use hub_core::id::{InstanceId, ServiceName};
use hub_core::time::Timestamp;

/// What one target holds.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// When each reservation ends by itself, oldest first. A claim cannot be used after its lease, so a reservation
    /// that was neither used nor given back by then was lost on the way, and its slot is free again.
    reserved: VecDeque<Instant>,
    /// Slots of claims under way and of attempts.
    running: u32,
    /// The target asked to be left alone until then.
    slowed_until: Option<Timestamp>,
    /// Attempts under way at each instance.
    instances: Vec<(InstanceId, u32)>,
}

impl Target {
    fn held(&self) -> u32 {
        self.running.saturating_add(u32::try_from(self.reserved.len()).unwrap_or(u32::MAX))
    }

    fn is_idle(&self) -> bool {
        self.held() == 0 && self.slowed_until.is_none()
    }

    /// Attempts under way at `instance`.
    pub(super) fn at_instance(&self, instance: &InstanceId) -> u32 {
        self.instances.iter().find(|(id, _)| id == instance).map_or(0, |(_, count)| *count)
    }
}

/// All slots of this node.
#[derive(Debug)]
pub(super) struct SlotTable {
    capacity: u32,
    used: u32,
    targets: HashMap<ServiceName, Target>,
    waiting: BTreeSet<ServiceName>,
}

impl SlotTable {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity: capacity.max(1), used: 0, targets: HashMap::new(), waiting: BTreeSet::new() }
    }

    /// Slots held now.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// How many more slots a target with this concurrency limit may take: none holds more than a quarter of the node's.
    pub(super) fn free(&self, target: &ServiceName, limit: u16) -> u32 {
        let limit = u32::from(limit).min(self.capacity / 4).max(1);
        let held = self.targets.get(target).map_or(0, Target::held);
        limit.saturating_sub(held).min(self.capacity.saturating_sub(self.used))
    }

    /// Reserves a slot for a message that is about to be written. When others of the target wait already, half of its
    /// slots are left to them, so that new messages do not overtake old ones for ever.
    pub(super) fn reserve(
        &mut self,
        target: &ServiceName,
        limit: u16,
        now: Instant,
        lease: Duration,
    ) -> bool {
        self.reclaim(target, now);
        let limit = limit.min(u16::try_from(self.capacity / 4).unwrap_or(u16::MAX)).max(1);
        let left_alone = if self.waiting.contains(target) { limit.div_ceil(2) } else { 0 };
        if self.free(target, limit) <= u32::from(left_alone) {
            return false;
        }
        self.entry(target).reserved.push_back(now + lease);
        self.used += 1;
        true
    }

    /// Gives a reservation back. Without one nothing happens: it had ended by itself.
    pub(super) fn give_back(&mut self, target: &ServiceName) {
        if self.targets.get_mut(target).is_some_and(|held| held.reserved.pop_front().is_some()) {
            self.used -= 1;
            self.forget_if_idle(target);
        }
    }

    /// A message that was claimed when it was written has arrived: its reservation becomes an attempt. If the
    /// reservation had ended meanwhile the slot is taken all the same, be it above the limit: the claim is there.
    pub(super) fn arrive(&mut self, target: &ServiceName) {
        let held = self.entry(target);
        let reserved = held.reserved.pop_front().is_some();
        held.running += 1;
        if !reserved {
            self.used += 1;
        }
    }

    /// Takes `count` slots for claims; the caller has asked [`Self::free`].
    pub(super) fn take(&mut self, target: &ServiceName, count: u32) {
        self.entry(target).running += count;
        self.used += count;
    }

    /// Ends `count` claims or attempts.
    pub(super) fn finish(&mut self, target: &ServiceName, count: u32) {
        if let Some(held) = self.targets.get_mut(target) {
            debug_assert!(held.running >= count, "a slot was freed twice");
            let count = count.min(held.running);
            held.running -= count;
            self.used -= count;
            self.forget_if_idle(target);
        }
    }

    /// Ends reservations whose lease is over; how many.
    pub(super) fn reclaim(&mut self, target: &ServiceName, now: Instant) -> u32 {
        let Some(held) = self.targets.get_mut(target) else { return 0 };
        let mut lost = 0;
        while held.reserved.front().is_some_and(|end| *end <= now) {
            held.reserved.pop_front();
            lost += 1;
        }
        self.used -= lost;
        lost
    }

    /// The target's state, for choosing an instance.
    pub(super) fn target(&self, target: &ServiceName) -> Option<&Target> {
        self.targets.get(target)
    }

    /// An attempt starts at `instance`.
    pub(super) fn start_at(&mut self, target: &ServiceName, instance: &InstanceId) {
        let instances = &mut self.entry(target).instances;
        match instances.iter_mut().find(|(id, _)| id == instance) {
            Some((_, count)) => *count += 1,
            None => instances.push((instance.clone(), 1)),
        }
    }

    /// An attempt at `instance` ended.
    pub(super) fn end_at(&mut self, target: &ServiceName, instance: &InstanceId) {
        if let Some(held) = self.targets.get_mut(target) {
            for (id, count) in &mut held.instances {
                if id == instance {
                    *count = count.saturating_sub(1);
                }
            }
            held.instances.retain(|(_, count)| *count > 0);
        }
    }

    /// Until when the target asked to be left alone.
    pub(super) fn slowed_until(&self, target: &ServiceName) -> Option<Timestamp> {
        self.targets.get(target).and_then(|held| held.slowed_until)
    }

    /// The target asked to be left alone: the longest wish counts.
    pub(super) fn slow(&mut self, target: &ServiceName, until: Timestamp) {
        let slowed = &mut self.entry(target).slowed_until;
        *slowed = (*slowed).max(Some(until));
    }

    /// Forgets a wish that has passed.
    pub(super) fn unslow(&mut self, target: &ServiceName, now: Timestamp) {
        if let Some(held) = self.targets.get_mut(target)
            && held.slowed_until.is_some_and(|until| until <= now)
        {
            held.slowed_until = None;
            self.forget_if_idle(target);
        }
    }

    /// The target has, or may have, messages that are due and not claimed.
    pub(super) fn set_waiting(&mut self, target: ServiceName) {
        self.waiting.insert(target);
    }

    /// Its waiting messages are being claimed, or there are none.
    pub(super) fn clear_waiting(&mut self, target: &ServiceName) {
        self.waiting.remove(target);
    }

    /// No target waits any more: this node does not deliver.
    pub(super) fn clear_all_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Whether any target waits.
    pub(super) fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The targets that wait, starting after `last` and going round, so that none is always served last.
    pub(super) fn waiting_after(&self, last: Option<&ServiceName>) -> Vec<ServiceName> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let Some(last) = last else { return self.waiting.iter().cloned().collect() };
        let after = self.waiting.range::<ServiceName, _>((Excluded(last), Unbounded));
        let before = self.waiting.range::<ServiceName, _>((Unbounded, Included(last)));
        after.chain(before).cloned().collect()
    }

    fn entry(&mut self, target: &ServiceName) -> &mut Target {
        self.targets.entry(target.clone()).or_default()
    }

    fn forget_if_idle(&mut self, target: &ServiceName) {
        if self.targets.get(target).is_some_and(Target::is_idle) {
            self.targets.remove(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(20);

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Reserve { limit: u16 },
        GiveBack,
        Arrive,
        Take { limit: u16, count: u32 },
        Finish,
        Pass { seconds: u64 },
        Wait(bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (1..6_u16).prop_map(|limit| Op::Reserve { limit }),
            2 => Just(Op::GiveBack),
            3 => Just(Op::Arrive),
            3 => (1..6_u16, 1..4_u32).prop_map(|(limit, count)| Op::Take { limit, count }),
            4 => Just(Op::Finish),
            1 => (1..15_u64).prop_map(|seconds| Op::Pass { seconds }),
            1 => any::<bool>().prop_map(Op::Wait),
        ]
    }

    /// What one target holds, as plain lists.
    #[derive(Default)]
    struct Model {
        reserved: Vec<Instant>,
        running: u32,
        waiting: bool,
    }

    impl Model {
        fn held(&self) -> u32 {
            self.running + u32::try_from(self.reserved.len()).unwrap()
        }
    }

    fn names() -> Vec<ServiceName> {
        ["a", "b", "c"].iter().map(|name| name.parse().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever the order of events: the counts agree with plain lists of what is held, a grant never goes over a
        /// limit, and when all is over nothing is held.
        #[test]
        fn no_slot_is_lost_and_no_limit_is_passed(
            capacity in 1..24_u32,
            ops in prop::collection::vec((0..3_usize, op()), 0..200),
        ) {
            let names = names();
            #[expect(clippy::disallowed_methods, reason = "any moment will do")]
            let mut now = Instant::now();
            let mut table = SlotTable::new(capacity);
            let mut models = [Model::default(), Model::default(), Model::default()];
            for (which, op) in ops {
                let name = &names[which];
                let total: u32 = models.iter().map(Model::held).sum();
                let model = &mut models[which];
                match op {
                    Op::Reserve { limit } => {
                        let lost = model.reserved.iter().filter(|end| **end <= now).count();
                        model.reserved.retain(|end| *end > now);
                        let total = total - u32::try_from(lost).unwrap();
                        let most = u32::from(limit).min(capacity / 4).max(1);
                        let mine = if model.waiting { most / 2 } else { most };
                        let fits = model.held() < mine && total < capacity;
                        let granted = table.reserve(name, limit, now, LEASE);
                        // Where others wait, a full node leaves them the room too: then it may refuse earlier.
                        prop_assert!(!granted || fits);
                        prop_assert!(granted || !fits || model.waiting);
                        if granted {
                            model.reserved.push(now + LEASE);
                        }
                    }
                    Op::GiveBack => {
                        table.give_back(name);
                        if !model.reserved.is_empty() {
                            model.reserved.remove(0);
                        }
                    }
                    Op::Arrive => {
                        table.arrive(name);
                        if !model.reserved.is_empty() {
                            model.reserved.remove(0);
                        }
                        model.running += 1;
                    }
                    Op::Take { limit, count } => {
                        let free = table.free(name, limit);
                        let most = u32::from(limit).min(capacity / 4).max(1);
                        prop_assert!(free <= most.saturating_sub(model.held()));
                        prop_assert!(free <= capacity.saturating_sub(total));
                        table.take(name, count.min(free));
                        model.running += count.min(free);
                    }
                    Op::Finish => {
                        if model.running > 0 {
                            table.finish(name, 1);
                            model.running -= 1;
                        }
                    }
                    Op::Pass { seconds } => now += Duration::from_secs(seconds),
                    Op::Wait(true) => {
                        table.set_waiting(name.clone());
                        model.waiting = true;
                    }
                    Op::Wait(false) => {
                        table.clear_waiting(name);
                        model.waiting = false;
                    }
                }
                prop_assert_eq!(table.used(), models.iter().map(Model::held).sum::<u32>());
            }
            for (name, model) in names.iter().zip(&models) {
                table.finish(name, model.running);
                for _ in &model.reserved {
                    table.give_back(name);
                }
            }
            prop_assert_eq!(table.used(), 0);
            prop_assert!(table.targets.is_empty());
        }
    }

    #[test]
    fn no_target_gets_more_than_a_quarter() {
        let name = &names()[0];
        let mut table = SlotTable::new(40);
        assert_eq!(table.free(name, 200), 10);
        table.take(name, 10);
        assert_eq!(table.free(name, 200), 0);
        assert_eq!(table.free(&names()[1], 200), 10);
        assert_eq!(SlotTable::new(2).free(name, 200), 1);
    }

    #[test]
    fn waiting_targets_are_served_in_turn() {
        let names = names();
        let mut table = SlotTable::new(8);
        for name in &names {
            table.set_waiting(name.clone());
        }
        assert_eq!(table.waiting_after(None), names);
        let [a, b, c] = [&names[0], &names[1], &names[2]].map(Clone::clone);
        assert_eq!(table.waiting_after(Some(&a)), [b.clone(), c.clone(), a.clone()]);
        assert_eq!(table.waiting_after(Some(&c)), [a, b, c]);
    }

    #[test]
    fn a_wish_to_be_left_alone_is_only_lengthened_and_then_forgotten() {
        let name = &names()[0];
        let mut table = SlotTable::new(8);
        let at = |millis| Timestamp::from_millis(millis);
        table.slow(name, at(2_000));
        table.slow(name, at(1_000));
        assert_eq!(table.slowed_until(name), Some(at(2_000)));
        table.unslow(name, at(1_999));
        assert_eq!(table.slowed_until(name), Some(at(2_000)));
        table.unslow(name, at(2_000));
        assert!(table.targets.is_empty());
    }
}
