//! What this node checks, when each check is due, and how the results in a row add up. Pure; time and chance are given.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::control::{HealthChange, State};
use hub_core::id::NodeId;
use hub_core::registry::{CheckKind, Health, HealthCheck, HealthTracker, checker_of};

use super::handle::Key;

/// One instance under check.
#[derive(Debug)]
struct Task {
    url: Arc<str>,
    check: HealthCheck,
    tracker: HealthTracker,
    /// What the cluster thinks, as far as this node knows.
    replicated: Health,
    /// What the cluster shall think; kept until it was told.
    wanted: Option<Health>,
    /// Told apart from earlier checks of an instance that was changed meanwhile.
    round: u64,
}

/// A check to make now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: Key,
    pub(super) url: Arc<str>,
    pub(super) check: HealthCheck,
    pub(super) round: u64,
}

/// The checks of this node.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    tasks: HashMap<Key, Task>,
    due: BinaryHeap<Reverse<(Instant, Key, u64)>>,
    rounds: u64,
}

impl Schedule {
    /// Takes over what is this node's, and drops what is not. A check that is new or was changed starts somewhere within
    /// its interval, so that checks spread out.
    pub(super) fn assign(
        &mut self,
        state: &State,
        live: &BTreeSet<NodeId>,
        me: NodeId,
        now: Instant,
        below: impl Fn(u64) -> u64,
    ) {
        let mut mine = HashMap::with_capacity(self.tasks.len());
        for service in state.services.values().filter(|service| service.health_check.kind == CheckKind::Http)
        {
            for instance in service.instances.values() {
                if checker_of(&service.name, &instance.id, live) != Some(me) {
                    continue;
                }
                let key = (service.name.clone(), instance.id.clone());
                let kept = self
                    .tasks
                    .remove(&key)
                    .filter(|task| task.url == instance.url && task.check == service.health_check);
                let task = match kept {
                    Some(mut task) => {
                        task.follow(instance.health);
                        task
                    }
                    None => {
                        self.rounds += 1;
                        let interval = u64::from(service.health_check.interval_s.max(1)) * 1000;
                        let start = now + Duration::from_millis(below(interval));
                        self.due.push(Reverse((start, key.clone(), self.rounds)));
                        Task {
                            url: Arc::clone(&instance.url),
                            check: service.health_check.clone(),
                            tracker: HealthTracker::new(instance.health),
                            replicated: instance.health,
                            wanted: None,
                            round: self.rounds,
                        }
                    }
                };
                mine.insert(key, task);
            }
        }
        self.tasks = mine;
    }

    /// Whether this instance is checked here.
    pub(super) fn is_mine(&self, key: &Key) -> bool {
        self.tasks.contains_key(key)
    }

    /// How many instances are checked here.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// When the next check is due.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, key, round))) = self.due.peek() {
            if self.tasks.get(key).is_some_and(|task| task.round == *round) {
                return Some(*at);
            }
            self.due.pop();
        }
        None
    }

    /// The next check, if it is due. [`Self::done`] puts it back.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, key, round)) = self.due.pop()?;
        let task = self.tasks.get(&key)?;
        Some(Due { url: Arc::clone(&task.url), check: task.check.clone(), key, round })
    }

    /// A check ended: counts its result and plans the next one. False if the instance was changed or given away since.
    pub(super) fn done(
        &mut self,
        key: &Key,
        round: u64,
        seen: Option<Health>,
        now: Instant,
        below: impl Fn(u64) -> u64,
    ) -> bool {
        let Some(task) = self.tasks.get_mut(key).filter(|task| task.round == round) else { return false };
        if let Some(changed) = seen.and_then(|health| task.tracker.observe(health, &task.check)) {
            task.wanted = (changed != task.replicated).then_some(changed);
        }
        let interval = u64::from(task.check.interval_s.max(1)) * 1000;
        // Within 5 % of the interval, so that checks that fell together come apart.
        let wait = interval - interval / 20 + below(interval / 10 + 1);
        self.due.push(Reverse((now + Duration::from_millis(wait), key.clone(), round)));
        true
    }

    /// Changes the cluster was not told yet; at most `limit`.
    pub(super) fn changes(&self, limit: usize) -> Vec<HealthChange> {
        self.tasks
            .iter()
            .filter_map(|(key, task)| {
                let health = task.wanted?;
                let (service, instance) = key.clone();
                Some(HealthChange { service, instance, url: Arc::clone(&task.url), health })
            })
            .take(limit)
            .collect()
    }

    /// The cluster was told.
    pub(super) fn told(&mut self, changes: &[HealthChange]) {
        for change in changes {
            let key = (change.service.clone(), change.instance.clone());
            if let Some(task) = self.tasks.get_mut(&key)
                && task.url == change.url
            {
                task.replicated = change.health;
                if task.wanted == Some(change.health) {
                    task.wanted = None;
                }
            }
        }
    }
}

impl Task {
    /// The cluster's opinion may have changed without this node's doing: then counting starts from it.
    fn follow(&mut self, replicated: Health) {
        if self.replicated == replicated {
            return;
        }
        self.replicated = replicated;
        if self.wanted.is_none() || self.wanted == Some(replicated) {
            self.wanted = None;
            self.tracker = HealthTracker::new(replicated);
        }
    }
}
