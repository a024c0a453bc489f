//! Rate limits against plain buckets of tokens, and what must hold of any history.

use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::limit::{Ask, Demand, Fate, Key, Meter, Rate, Ruling, decide};
use proptest::prelude::*;

/// A bucket that counts: nanoseconds of filling are its drops, `interval` of them are a token.
#[derive(Clone)]
struct Bucket {
    interval: i128,
    burst: i128,
    drops: i128,
    seen: u64,
}

impl Bucket {
    fn new(interval: u64, burst: u32) -> Self {
        let (interval, burst) = (i128::from(interval), i128::from(burst));
        Self { interval, burst, drops: interval * burst, seen: 0 }
    }

    fn pass_time(&mut self, now: u64) {
        self.drops = (self.drops + i128::from(now - self.seen)).min(self.interval * self.burst);
        self.seen = now;
    }

    fn can_give(&self, tokens: u32) -> bool {
        let wanted = i128::from(tokens).min(self.burst);
        self.drops >= wanted * self.interval
    }

    fn give(&mut self, tokens: u32) {
        self.drops -= i128::from(tokens) * self.interval;
    }

    fn check(&self, ruling: &Ruling, tokens: u32) {
        assert_eq!(i128::from(ruling.left), (self.drops / self.interval).max(0));
        assert_eq!(ruling.full_in.as_nanos(), (self.interval * self.burst - self.drops) as u128);
        let lacking = i128::from(tokens).min(self.burst) * self.interval - self.drops;
        let wait = if ruling.fate == Fate::Refused { lacking } else { 0 };
        assert_eq!(ruling.wait.as_nanos(), wait as u128);
    }
}

/// One request: time since the last, permits for each of two targets (0: not asked), whether it is all or none, and
/// whether the caller is limited.
type Step = (u64, u32, u32, bool, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let permits = || prop_oneof![3 => 0_u32..6, 1 => 0_u32..40, 1 => Just(1_000)];
    let pause = prop_oneof![0_u64..2_000, 0_u64..200_000];
    prop::collection::vec((pause, permits(), permits(), any::<bool>(), any::<bool>()), 1..80)
}

fn rate() -> impl Strategy<Value = (u64, u32)> {
    (1_u64..5_000, 1_u32..20)
}

fn key(number: usize) -> Key {
    let name: ServiceName = format!("target-{number}").parse().unwrap();
    if number == 0 { Key::Caller("caller".into()) } else { Key::Target(name) }
}

fn demand(number: usize, rates: &[(u64, u32)], permits: u32) -> Demand {
    let (interval, burst) = rates[number];
    Demand { key: key(number), rate: Rate::every(Duration::from_nanos(interval), burst), permits }
}

/// What the buckets say: which demands get their tokens, by the rule in plain words.
fn expected(buckets: &[Bucket], ask: &Ask, asked: &[usize]) -> (Option<Fate>, Vec<Fate>) {
    let fits: Vec<bool> =
        asked.iter().zip(&ask.targets).map(|(at, one)| buckets[*at].can_give(one.permits)).collect();
    let every = fits.iter().all(|fits| *fits);
    let wanted: u32 = ask
        .targets
        .iter()
        .zip(&fits)
        .filter(|(_, fits)| **fits || ask.whole)
        .map(|(one, _)| one.permits)
        .sum();
    let caller_fits = ask.caller.is_none() || wanted == 0 || buckets[0].can_give(wanted);
    let goes = caller_fits && (every || !ask.whole);
    let fate = |fits| match (fits, goes) {
        (false, _) => Fate::Refused,
        (true, true) => Fate::Taken,
        (true, false) => Fate::Spared,
    };
    let caller = match (caller_fits, wanted) {
        (true, 0) => Fate::Spared,
        (fits, _) => fate(fits),
    };
    (ask.caller.as_ref().map(|_| caller), fits.into_iter().map(fate).collect())
}

proptest! {
    #[test]
    fn decides_as_buckets_of_tokens_do(rates in prop::array::uniform3(rate()), steps in steps()) {
        let mut buckets: Vec<Bucket> =
            rates.iter().map(|(interval, burst)| Bucket::new(*interval, *burst)).collect();
        let mut meters = [Meter::default(); 3];
        let mut now = 0;
        for (pause, first, second, whole, limited) in steps {
            now += pause;
            let asked: Vec<usize> =
                [(1, first), (2, second)].iter().filter(|(_, permits)| *permits > 0).map(|(at, _)| *at).collect();
            let permits = |at: usize| if at == 1 { first } else { second };
            let total = (first + second).min(1_000);
            if first + second > 1_000 { continue; }
            let ask = Ask {
                caller: limited.then(|| demand(0, &rates, total)),
                targets: asked.iter().map(|at| demand(*at, &rates, permits(*at))).collect(),
                whole,
            };
            for bucket in &mut buckets { bucket.pass_time(now); }
            let (caller, targets) = expected(&buckets, &ask, &asked);
            let order: Vec<usize> = limited.then_some(0).into_iter().chain(asked.iter().copied()).collect();
            let mut own: Vec<Meter> = order.iter().map(|at| meters[*at]).collect();
            let verdict = decide(&ask, &mut own, now);
            for (at, meter) in order.iter().zip(own) { meters[*at] = meter; }
            prop_assert_eq!(verdict.caller.map(|one| one.fate), caller);
            prop_assert_eq!(verdict.targets.iter().map(|one| one.fate).collect::<Vec<_>>(), targets.clone());
            let mut paid = 0;
            for (at, fate) in asked.iter().zip(&targets) {
                if *fate == Fate::Taken {
                    buckets[*at].give(permits(*at));
                    paid += permits(*at);
                }
            }
            if caller == Some(Fate::Taken) { buckets[0].give(paid); }
            let wanted: u32 = if whole { total } else {
                asked.iter().zip(&targets).filter(|(_, fate)| **fate != Fate::Refused).map(|(at, _)| permits(*at)).sum()
            };
            if let Some(ruling) = &verdict.caller { buckets[0].check(ruling, wanted); }
            for (at, ruling) in asked.iter().zip(&verdict.targets) { buckets[*at].check(ruling, permits(*at)); }
        }
    }

    /// Whatever comes, no more passes than was saved and came since, but for one overdraft.
    #[test]
    fn the_rate_holds((interval, burst) in rate(), steps in prop::collection::vec((0_u64..20_000, 1_u32..30), 1..200)) {
        let rate = Rate::every(Duration::from_nanos(interval), burst);
        let mut meter = [Meter::default()];
        let (mut now, mut passed, mut largest) = (0, 0_u64, 0_u32);
        for (pause, permits) in steps {
            now += pause;
            let demand = Demand { key: key(0), rate, permits };
            let ask = Ask { caller: Some(demand), ..Ask::default() };
            let verdict = decide(&ask, &mut meter, now);
            if verdict.caller.unwrap().fate == Fate::Taken {
                passed += u64::from(permits);
                largest = largest.max(permits);
            }
            prop_assert!(passed <= u64::from(burst.max(largest)) + now / interval);
        }
    }

    /// Who waits as long as it was told is let through.
    #[test]
    fn the_wait_is_enough_and_no_longer((interval, burst) in rate(), taken in 1_u32..60, permits in 1_u32..60) {
        let rate = Rate::every(Duration::from_nanos(interval), burst);
        let meter = Meter::default().take(taken, rate, 0);
        let wait = meter.wait(permits, rate, 0);
        prop_assert!(meter.has(permits, rate, wait));
        prop_assert!(wait == 0 || !meter.has(permits, rate, wait - 1));
    }

    /// A clock that was set back costs at most as long as the largest demand.
    #[test]
    fn a_clock_set_back_shuts_nobody_out((interval, burst) in rate(), back in 0_u64..1_000_000_000) {
        let rate = Rate::every(Duration::from_nanos(interval), burst);
        let meter = Meter::default().take(1, rate, back);
        let debt = meter.debt(rate, 0);
        prop_assert!(debt <= interval * 1_000);
        prop_assert!(back <= interval * 1_000 || meter.has(burst, rate, 0));
    }
}
