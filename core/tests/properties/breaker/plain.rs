//! One breaker in plain numbers: the table of the contract, told once more.

use std::collections::BTreeMap;

/// `(reset, threshold, window, min_calls, permille, success, max_open)`, times in milliseconds. Slow calls do not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) reset: i64,
    pub(crate) threshold: u32,
    pub(crate) window: i64,
    pub(crate) min_calls: u32,
    pub(crate) permille: u32,
    pub(crate) success: u32,
    pub(crate) max_open: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Say {
    /// Unhealthy: by consecutive failures or by rate, since an age.
    Bad { by_rate: bool, since: i64 },
    /// Healthy, with the age of a success.
    Good(Option<i64>),
}

/// `(calls, failures, consecutive)`.
pub(crate) type Numbers = (u32, u32, u32);

/// What a node says, the calls it rests on, ages of the newest success and failure, and how long the target wants to be left
/// alone.
pub(crate) type Heard = (Say, Numbers, (Option<i64>, Option<i64>), Option<i64>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Vote {
    pub(crate) at: i64,
    /// As said, but with a moment for the age.
    pub(crate) say: Say,
    pub(crate) numbers: Numbers,
    pub(crate) asked: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Is {
    Closed {
        votes: BTreeMap<u64, Vote>,
        decide: Option<i64>,
        healthy: Option<i64>,
    },
    /// `retry` is from `least` to `most` until the machine's choice is known.
    Open {
        opened: i64,
        retry: (i64, i64),
        asked: Option<i64>,
    },
    Half {
        opened: i64,
        node: u64,
        begin: i64,
        until: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Auto,
    Open,
    Closed,
    Observe,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plain {
    pub(crate) epoch: u64,
    pub(crate) is: Is,
    pub(crate) mode: Mode,
    pub(crate) until: Option<i64>,
    pub(crate) own: Option<Settings>,
    pub(crate) trips: u32,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
    pub(crate) seen: (Option<i64>, Option<i64>),
    pub(crate) closed_epoch: u64,
    /// Epochs of the last hundred transitions.
    pub(crate) log: Vec<u64>,
}

pub(crate) const TIMEOUT: i64 = 10_000;

impl Plain {
    pub(crate) fn new() -> Self {
        let is = Is::Closed { votes: BTreeMap::new(), decide: None, healthy: None };
        Self {
            epoch: 0,
            is,
            mode: Mode::Auto,
            until: None,
            own: None,
            trips: 0,
            successes: 0,
            failures: 0,
            seen: (None, None),
            closed_epoch: 0,
            log: Vec::new(),
        }
    }

    fn log(&mut self) {
        self.log.push(self.epoch);
        if self.log.len() > 100 {
            self.log.remove(0);
        }
    }

    fn becomes(&mut self, is: Is) {
        self.epoch += 1;
        self.is = is;
        self.log();
    }

    fn closes(&mut self, now: i64) {
        (self.successes, self.failures, self.closed_epoch) = (0, 0, self.epoch + 1);
        self.becomes(Is::Closed { votes: BTreeMap::new(), decide: None, healthy: Some(now) });
    }

    fn opened(&self, now: i64) -> i64 {
        match self.is {
            Is::Closed { .. } => now,
            Is::Open { opened, .. } | Is::Half { opened, .. } => opened,
        }
    }

    fn opens(&mut self, set: Settings, now: i64, asked: Option<i64>) {
        let mut time = set.reset;
        for _ in 1..self.trips {
            time = (time * 2).min(set.max_open);
        }
        let asked = asked.map(|asked| asked.min(now + set.max_open));
        let at_least = |moment: i64| asked.map_or(moment, |asked| asked.max(moment));
        let retry = (at_least(now + time), at_least(now + time + time / 5));
        self.becomes(Is::Open { opened: self.opened(now), retry, asked });
    }

    /// What time alone does.
    pub(crate) fn pass(&mut self, defaults: Settings, now: i64) {
        if self.mode != Mode::Auto && self.until.unwrap() <= now {
            (self.mode, self.until) = (Mode::Auto, None);
            let is = match self.is.clone() {
                Is::Closed { .. } => Is::Closed { votes: BTreeMap::new(), decide: None, healthy: Some(now) },
                other => other,
            };
            self.becomes(is);
        }
        if let Is::Half { opened, until, .. } = self.is
            && until <= now
        {
            self.becomes(Is::Open { opened, retry: (until, until), asked: None });
        }
        let set = self.own.unwrap_or(defaults);
        if let Is::Closed { votes, decide, healthy } = &mut self.is {
            votes.retain(|_, vote| now - vote.at <= set.window);
            while let Some(since) = healthy
                && *since + set.reset <= now
            {
                *since += set.reset;
                self.trips = self.trips.saturating_sub(1);
            }
            calm(votes, decide, healthy, now);
        }
    }

    pub(crate) fn hears(
        &mut self,
        (defaults, now, nodes): (Settings, i64, usize),
        node: u64,
        epoch: u64,
        (say, numbers, ages, wait): Heard,
    ) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.pass(defaults, now);
        let set = self.own.unwrap_or(defaults);
        if epoch != self.epoch || matches!(self.mode, Mode::Open | Mode::Closed) {
            return false;
        }
        let Is::Closed { votes, decide, healthy } = &mut self.is else { return false };
        let asked = wait.map(|wait| now + wait);
        let before = votes.get(&node).copied();
        let accused = before.is_some_and(|vote| matches!(vote.say, Say::Bad { .. }));
        match say {
            Say::Bad { by_rate, since } => {
                if verdict(numbers, set) != Some(by_rate) || accused {
                    return false;
                }
                let say = Say::Bad { by_rate, since: now - since };
                votes.insert(node, Vote { at: now, say, numbers, asked });
                *decide = decide.or(Some(now + 250));
            }
            Say::Good(success) => {
                if accused {
                    votes.remove(&node);
                }
                let say = Say::Good(success.map(|age| now - age));
                let vote = Vote { at: now, say, numbers, asked };
                let objects = decide.is_some() && contradicts(&vote, votes, set);
                if objects && before.is_none_or(|before| before.say != say) {
                    votes.insert(node, vote);
                } else if objects {
                    votes.insert(node, vote);
                    return accused;
                } else if !accused {
                    return false;
                }
            }
        }
        calm(votes, decide, healthy, now);
        let bad = votes.values().filter(|vote| matches!(vote.say, Say::Bad { .. })).count();
        let later = |held: Option<i64>, age: Option<i64>| held.max(age.map(|age| now - age));
        self.seen = (later(self.seen.0, ages.0), later(self.seen.1, ages.1));
        if 2 * bad > nodes {
            self.counts_votes(set, now);
        }
        true
    }

    fn counts_votes(&mut self, set: Settings, now: i64) {
        let Is::Closed { votes, decide, .. } = &mut self.is else { return };
        *decide = None;
        let bad: Vec<Vote> =
            votes.values().copied().filter(|vote| matches!(vote.say, Say::Bad { .. })).collect();
        let objections = votes.values().filter(|vote| contradicts(vote, votes, set)).count();
        if bad.len() <= objections {
            return;
        }
        self.failures = bad.iter().map(|vote| vote.numbers.1.max(vote.numbers.2)).sum();
        if self.mode == Mode::Observe {
            self.log();
            return;
        }
        self.trips += 1;
        self.successes = 0;
        let asked = bad.iter().filter_map(|vote| vote.asked).max();
        self.opens(set, now, asked);
    }

    pub(crate) fn is_due(&self, now: i64) -> bool {
        let own = match &self.is {
            Is::Closed { decide, .. } => *decide,
            Is::Open { .. } => None,
            Is::Half { until, .. } => Some(*until),
        };
        own.is_some_and(|at| at <= now) || self.until.is_some_and(|at| at <= now)
    }

    pub(crate) fn advances(&mut self, defaults: Settings, now: i64, epoch: u64) -> bool {
        if epoch != self.epoch || !self.is_due(now) {
            return false;
        }
        self.pass(defaults, now);
        if matches!(self.is, Is::Closed { decide: Some(at), .. } if at <= now) {
            self.counts_votes(self.own.unwrap_or(defaults), now);
        }
        true
    }

    pub(crate) fn asked(&mut self, defaults: Settings, now: i64, node: u64, epoch: u64) -> bool {
        if epoch != self.epoch {
            return false;
        }
        let lease_over = matches!(self.is, Is::Half { until, .. } if until <= now);
        self.pass(defaults, now);
        if !lease_over && epoch != self.epoch || self.mode != Mode::Auto {
            return false;
        }
        match self.is {
            Is::Open { opened, retry, .. } if retry.0 <= now => {
                self.becomes(Is::Half { opened, node, begin: now + 3_000, until: now + 5_000 + TIMEOUT });
                true
            }
            _ => false,
        }
    }

    pub(crate) fn probed(
        &mut self,
        (defaults, now): (Settings, i64),
        node: u64,
        epoch: u64,
        well: bool,
        wait: Option<i64>,
    ) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.pass(defaults, now);
        let set = self.own.unwrap_or(defaults);
        let Is::Half { opened, node: holder, .. } = self.is else { return false };
        if epoch != self.epoch || holder != node {
            return false;
        }
        if !well {
            self.seen.1 = self.seen.1.max(Some(now));
            (self.successes, self.failures) = (0, 1);
            self.trips += 1;
            self.opens(set, now, wait.map(|wait| now + wait));
            return true;
        }
        self.seen.0 = self.seen.0.max(Some(now));
        self.successes += 1;
        if self.successes >= set.success {
            self.closes(now);
        } else {
            self.epoch += 1;
            self.is = Is::Half { opened, node, begin: now + 3_000, until: now + 5_000 + TIMEOUT };
        }
        true
    }

    /// `None` instead of a mode is a reset.
    pub(crate) fn ordered(
        &mut self,
        (defaults, now): (Settings, i64),
        epoch: Option<u64>,
        mode: Option<Mode>,
        lasts: Option<i64>,
    ) -> bool {
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return false;
        }
        self.pass(defaults, now);
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return false;
        }
        let Some(mode) = mode else {
            (self.mode, self.until, self.trips) = (Mode::Auto, None, 0);
            self.closes(now);
            return true;
        };
        if lasts.is_some_and(|lasts| lasts <= 0 || mode == Mode::Auto) {
            return false;
        }
        let held = self.mode == Mode::Open;
        let until = now + lasts.unwrap_or(3_600_000);
        (self.mode, self.until) = (mode, (mode != Mode::Auto).then_some(until));
        match mode {
            Mode::Closed | Mode::Observe => self.closes(now),
            Mode::Open => {
                let asked = match self.is {
                    Is::Closed { .. } => None,
                    Is::Open { asked, .. } => asked,
                    Is::Half { until, .. } => Some(until),
                };
                let retry = until.max(asked.unwrap_or(until));
                self.becomes(Is::Open { opened: self.opened(now), retry: (retry, retry), asked });
            }
            Mode::Auto => {
                let is = match self.is.clone() {
                    Is::Closed { healthy, .. } => {
                        Is::Closed { votes: BTreeMap::new(), decide: None, healthy }
                    }
                    Is::Open { opened, asked, .. } if held => {
                        let retry = now.max(asked.unwrap_or(now));
                        Is::Open { opened, retry: (retry, retry), asked }
                    }
                    other => other,
                };
                self.becomes(is);
            }
        }
        true
    }

    pub(crate) fn configured(
        &mut self,
        (defaults, now): (Settings, i64),
        epoch: Option<u64>,
        own: Option<Settings>,
    ) -> bool {
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return false;
        }
        self.pass(defaults, now);
        if epoch.is_some_and(|epoch| epoch != self.epoch) {
            return false;
        }
        if own != self.own {
            self.own = own;
            let is = match self.is.clone() {
                Is::Closed { healthy, .. } => Is::Closed { votes: BTreeMap::new(), decide: None, healthy },
                other => other,
            };
            self.becomes(is);
        }
        true
    }

    pub(crate) fn turned_green(&mut self, now: i64) {
        if let Is::Open { retry, asked, .. } = &mut self.is
            && self.mode == Mode::Auto
            && retry.0 > now
        {
            let soonest = asked.map_or(now, |asked| asked.max(now));
            *retry = (retry.0.min(soonest), retry.0.min(soonest));
        }
    }

    pub(crate) fn lost(&mut self, node: u64, now: i64) {
        if let Is::Closed { votes, decide, healthy } = &mut self.is
            && votes.remove(&node).is_some()
        {
            calm(votes, decide, healthy, now);
        }
    }
}

/// Without accusers there is nothing to decide, and the target is well.
fn calm(votes: &BTreeMap<u64, Vote>, decide: &mut Option<i64>, healthy: &mut Option<i64>, now: i64) {
    if votes.values().any(|vote| matches!(vote.say, Say::Bad { .. })) {
        *healthy = None;
    } else {
        *decide = None;
        *healthy = healthy.or(Some(now));
    }
}

/// Whether it is unhealthy, and if so, whether by rate.
pub(crate) fn verdict((calls, failures, row): Numbers, set: Settings) -> Option<bool> {
    if row >= set.threshold {
        Some(false)
    } else {
        (calls >= set.min_calls && 1_000 * failures >= set.permille * calls).then_some(true)
    }
}

/// Whether it is an objection to every accusation.
fn contradicts(vote: &Vote, votes: &BTreeMap<u64, Vote>, set: Settings) -> bool {
    let Say::Good(Some(success)) = vote.say else { return false };
    let mut accusations = 0;
    for other in votes.values() {
        let Say::Bad { by_rate, since } = other.say else { continue };
        accusations += 1;
        let (calls, failures, _) = vote.numbers;
        let speaks =
            !by_rate || calls > 0 && 3 * calls >= set.min_calls && 1_000 * failures < set.permille * calls;
        if success < since || verdict(vote.numbers, set).is_some() || !speaks {
            return false;
        }
    }
    accusations > 0
}
