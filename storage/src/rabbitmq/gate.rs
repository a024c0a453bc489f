//! How much of each target is in the broker, as far as this node can tell, and so whether there is room for more. Pure.
//!
//! Per target it knows the depth of the queue when it last asked, what it has published since, and what it has consumed
//! since. Other nodes do the same at the same time, so this is an estimate; the queue itself has the same bound and
//! refuses what is too much.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_core::id::ServiceName;

/// What is known of one queue.
#[derive(Debug, Default)]
struct Window {
    /// In the queue, as estimated.
    queued: u32,
    /// Undertaken, and not known to be in the queue yet.
    pending: u32,
}

impl Window {
    const fn sum(&self) -> u32 {
        self.queued.saturating_add(self.pending)
    }
}

#[derive(Debug, Default)]
struct State {
    windows: HashMap<ServiceName, Window>,
    /// Targets with rows that are, or may be, parked.
    parked: BTreeSet<ServiceName>,
    /// The broker takes what is published.
    open: bool,
}

/// The windows of all targets.
#[derive(Debug)]
pub(super) struct Gate {
    limit: u32,
    state: Mutex<State>,
}

impl Gate {
    /// At most `limit` ids of a target are to be in the broker. Closed at first.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens or closes it for all targets: the broker can be reached and takes what is published, or not.
    pub(super) fn set_open(&self, open: bool) {
        self.state().open = open;
    }

    /// The broker takes what is published.
    pub(super) fn is_open(&self) -> bool {
        self.state().open
    }

    /// Makes room for one message, or notes that the target has a parked one.
    pub(super) fn enter(&self, target: &ServiceName) -> bool {
        let mut state = self.state();
        let open = state.open;
        if let Some(window) = state.windows.get_mut(target) {
            if open && window.sum() < self.limit {
                window.pending += 1;
                return true;
            }
        } else if open && self.limit > 0 {
            state.windows.insert(target.clone(), Window { queued: 0, pending: 1 });
            return true;
        }
        state.parked.insert(target.clone());
        false
    }

    /// Makes room for so many, be it above the limit: their rows say already that they are published.
    pub(super) fn force(&self, target: &ServiceName, count: u32) {
        let mut state = self.state();
        let window = state.windows.entry(target.clone()).or_default();
        window.pending = window.pending.saturating_add(count);
    }

    /// For how many there is room now.
    pub(super) fn room(&self, target: &ServiceName) -> u32 {
        let state = self.state();
        if !state.open {
            return 0;
        }
        self.limit.saturating_sub(state.windows.get(target).map_or(0, Window::sum))
    }

    /// One that was pending is in the queue.
    pub(super) fn arrived(&self, target: &ServiceName) {
        if let Some(window) = self.state().windows.get_mut(target) {
            window.pending = window.pending.saturating_sub(1);
            window.queued = window.queued.saturating_add(1);
        }
    }

    /// One that was pending will not be in the queue.
    pub(super) fn left(&self, target: &ServiceName) {
        if let Some(window) = self.state().windows.get_mut(target) {
            window.pending = window.pending.saturating_sub(1);
        }
    }

    /// The queue refused one that was pending: it is full.
    pub(super) fn refused(&self, target: &ServiceName) {
        let mut state = self.state();
        if let Some(window) = state.windows.get_mut(target) {
            window.pending = window.pending.saturating_sub(1);
            window.queued = self.limit;
        }
        state.parked.insert(target.clone());
    }

    /// One was consumed here.
    pub(super) fn consumed(&self, target: &ServiceName) {
        if let Some(window) = self.state().windows.get_mut(target) {
            window.queued = window.queued.saturating_sub(1);
        }
    }

    /// The queue was asked: so many are in it.
    pub(super) fn seen(&self, target: &ServiceName, depth: u32) {
        let mut state = self.state();
        match state.windows.get_mut(target) {
            Some(window) => {
                window.queued = depth;
                if window.sum() == 0 && !state.parked.contains(target) {
                    state.windows.remove(target);
                }
            }
            None if depth > 0 => {
                state.windows.insert(target.clone(), Window { queued: depth, pending: 0 });
            }
            None => {}
        }
    }

    /// The target has parked rows.
    pub(super) fn note_parked(&self, target: &ServiceName) {
        self.state().parked.insert(target.clone());
    }

    /// No parked row of the target was left.
    pub(super) fn forget_parked(&self, target: &ServiceName) {
        self.state().parked.remove(target);
    }

    /// Whether the target has, or may have, parked rows.
    pub(super) fn has_parked(&self, target: &ServiceName) -> bool {
        self.state().parked.contains(target)
    }

    /// Targets that have, or may have, parked rows.
    pub(super) fn parked(&self) -> Vec<ServiceName> {
        self.state().parked.iter().cloned().collect()
    }

    /// Targets whose window looks more than half full: worth asking the queue again.
    pub(super) fn crowded(&self) -> Vec<ServiceName> {
        let state = self.state();
        let crowded = state.windows.iter().filter(|(_, window)| window.sum() > self.limit / 2);
        crowded.map(|(target, _)| target.clone()).collect()
    }

    /// The connection is gone, and with it all that was known of the queues.
    pub(super) fn forget_depths(&self) {
        let mut state = self.state();
        state.open = false;
        for window in state.windows.values_mut() {
            window.queued = 0;
        }
        state.windows.retain(|_, window| window.pending > 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    #[test]
    fn a_closed_gate_parks() {
        let gate = Gate::new(2);
        assert!(!gate.enter(&name("a")));
        assert_eq!((gate.parked(), gate.room(&name("a"))), (vec![name("a")], 0));
        gate.set_open(true);
        assert!(gate.enter(&name("a")));
    }

    #[test]
    fn a_full_window_parks_until_something_is_consumed_or_seen() {
        let (gate, a) = (Gate::new(2), name("a"));
        gate.set_open(true);
        assert!(gate.enter(&a) && gate.enter(&a) && !gate.enter(&a));
        assert!(gate.enter(&name("b")));
        gate.arrived(&a);
        assert!(!gate.enter(&a));
        assert_eq!(gate.crowded(), std::slice::from_ref(&a));
        gate.consumed(&a);
        assert!(gate.enter(&a) && !gate.enter(&a));
        gate.arrived(&a);
        gate.arrived(&a);
        gate.seen(&a, 0);
        assert_eq!(gate.room(&a), 2);
    }

    #[test]
    fn a_refusal_fills_the_window() {
        let (gate, a) = (Gate::new(5), name("a"));
        gate.set_open(true);
        assert!(gate.enter(&a));
        gate.refused(&a);
        assert!(!gate.enter(&a) && gate.has_parked(&a));
        gate.seen(&a, 4);
        assert!(gate.enter(&a));
        gate.forget_parked(&a);
        assert!(!gate.has_parked(&a));
    }

    #[test]
    fn a_new_connection_knows_nothing() {
        let (gate, a) = (Gate::new(1), name("a"));
        gate.set_open(true);
        assert!(gate.enter(&a));
        gate.arrived(&a);
        gate.forget_depths();
        assert!(!gate.is_open() && gate.crowded().is_empty());
        gate.set_open(true);
        assert!(gate.enter(&a));
    }

    proptest! {
        /// Whatever happens, no more are let in than fit beside what is pending and was seen.
        #[test]
        fn never_more_than_the_limit(ops in prop::collection::vec((0..5_u8, 0..8_u32), 0..200)) {
            let (gate, a) = (Gate::new(6), name("a"));
            gate.set_open(true);
            let (mut pending, mut queued) = (0_u32, 0_u32);
            for (op, number) in ops {
                match op {
                    0 => {
                        let fits = pending + queued < 6;
                        prop_assert_eq!(gate.enter(&a), fits);
                        pending += u32::from(fits);
                    }
                    1 if pending > 0 => {
                        gate.arrived(&a);
                        (pending, queued) = (pending - 1, queued + 1);
                    }
                    2 if pending > 0 => {
                        gate.left(&a);
                        pending -= 1;
                    }
                    3 if queued > 0 => {
                        gate.consumed(&a);
                        queued -= 1;
                    }
                    4 => {
                        gate.seen(&a, number);
                        queued = number;
                    }
                    _ => {}
                }
                prop_assert_eq!(gate.room(&a), 6_u32.saturating_sub(pending + queued));
            }
        }
    }
}
