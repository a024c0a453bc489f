//! Concurrency and retry budgets: bounds of any history, and what they settle at.

use hub_core::fairness::{Concurrency, Permit, RetryBudget, Sign};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Finish(prop::sample::Index, Sign),
    Ceiling(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sign = prop_oneof![6 => Just(Sign::Well), 2 => Just(Sign::Overloaded), 1 => Just(Sign::Unknown)];
    let step = prop_oneof![
        6 => Just(Step::Begin),
        5 => (any::<prop::sample::Index>(), sign).prop_map(|(which, sign)| Step::Finish(which, sign)),
        1 => (0_u16..400).prop_map(Step::Ceiling),
    ];
    prop::collection::vec(step, 1..400)
}

/// Deliveries in rounds: as many as may begin at once, of which those beyond `capacity` are too much for the target.
fn round(limiter: &mut Concurrency, capacity: u16) {
    let permits: Vec<Permit> = std::iter::from_fn(|| limiter.begin()).collect();
    for (number, permit) in (1..).zip(permits) {
        limiter.finish(permit, if number > capacity { Sign::Overloaded } else { Sign::Well });
    }
}

proptest! {
    /// Never fewer than one, never more than the ceiling, and never more under way than may be.
    #[test]
    fn the_limit_keeps_its_bounds(ceiling in 0_u16..400, steps in steps()) {
        let mut limiter = Concurrency::new(ceiling);
        let mut ceiling = ceiling.clamp(1, 200);
        let mut held: Vec<Permit> = Vec::new();
        for step in steps {
            let before = limiter.limit();
            match step {
                Step::Begin => match limiter.begin() {
                    Some(permit) => held.push(permit),
                    None => prop_assert!(held.len() >= usize::from(before), "refused too soon"),
                },
                Step::Finish(which, sign) if !held.is_empty() => {
                    let permit = held.swap_remove(which.index(held.len()));
                    limiter.finish(permit, sign);
                    match sign {
                        Sign::Well => prop_assert!((before..=before + 1).contains(&limiter.limit())),
                        Sign::Overloaded => prop_assert!(limiter.limit() <= before && limiter.limit() + 1 >= before * 9 / 10),
                        Sign::Unknown => prop_assert_eq!(limiter.limit(), before),
                    }
                }
                Step::Finish(..) => {}
                Step::Ceiling(most) => {
                    ceiling = most.clamp(1, 200);
                    limiter.set_ceiling(most);
                }
            }
            prop_assert!((1..=ceiling).contains(&limiter.limit()));
            prop_assert_eq!(usize::from(limiter.in_flight()), held.len());
        }
    }

    /// It finds what the target can take, from wherever it starts, and stays near it.
    #[test]
    fn the_limit_settles_at_what_the_target_takes(capacity in 1_u16..150, before in 0_u32..200) {
        let mut limiter = Concurrency::new(200);
        for _ in 0..before { round(&mut limiter, 200); }
        for _ in 0..500 { round(&mut limiter, capacity); }
        for _ in 0..100 {
            round(&mut limiter, capacity);
            let (least, most) = (u32::from(capacity) * 8 / 10, u32::from(capacity) + 1);
            prop_assert!((least.max(1)..=most).contains(&u32::from(limiter.limit())), "{} for {capacity}", limiter.limit());
        }
    }

    /// Whatever comes, retries are at most what was saved, what came since, and a fifth of the traffic; and exactly that
    /// while nothing overflows.
    #[test]
    fn retries_keep_to_their_budget(
        nodes in 1_u32..8,
        steps in prop::collection::vec((0_u64..300_000_000, 0_u8..3), 1..400),
    ) {
        let mut budget = RetryBudget::new(nodes, 0);
        // In millionths of a thousandth, so that nothing is rounded.
        let rate = u128::from(10_000 / nodes);
        let (mut now, mut first, mut retries) = (0_u64, 0_u128, 0_u128);
        let mut exact: u128 = 100 * 1_000 * 1_000_000_000;
        for (pause, kind) in steps {
            now += pause;
            exact = (exact + u128::from(pause) * rate).min(100_000 * 1_000_000_000);
            if kind == 0 {
                budget.first_attempt(now);
                first += 1;
                exact = (exact + 200 * 1_000_000_000).min(100_000 * 1_000_000_000);
            } else {
                let wait = budget.wait(now);
                let passes = budget.take_retry(now);
                prop_assert_eq!(passes, wait == 0);
                if passes {
                    retries += 1;
                    prop_assert!(exact >= 1_000 * 1_000_000_000, "more than was saved");
                    exact -= 1_000 * 1_000_000_000;
                } else {
                    prop_assert!(exact < 1_000 * 1_000_000_000, "refused what was saved");
                    let mut later = budget;
                    prop_assert!(!later.take_retry(now + wait - 1));
                    prop_assert!(later.take_retry(now + wait), "waited {wait}");
                }
            }
            let most = 100_000 + u128::from(now) * rate / 1_000_000_000 + 200 * first;
            prop_assert!(retries * 1_000 <= most, "{retries} retries");
        }
    }
}

#[test]
fn an_idle_target_does_not_raise_its_limit() {
    let mut limiter = Concurrency::new(200);
    for _ in 0..1_000 {
        let permit = limiter.begin().unwrap();
        limiter.finish(permit, Sign::Well);
    }
    assert_eq!(limiter.limit(), Concurrency::START);
}

#[test]
fn one_bad_round_costs_one_step() {
    let mut limiter = Concurrency::new(200);
    let permits: Vec<Permit> = std::iter::from_fn(|| limiter.begin()).collect();
    permits.into_iter().for_each(|permit| limiter.finish(permit, Sign::Overloaded));
    assert_eq!(limiter.limit(), 9);
}

#[test]
fn a_target_without_traffic_gets_ten_retries_a_second() {
    let mut budget = RetryBudget::new(1, 0);
    while budget.take_retry(0) {}
    let passed = (1..=1_000).filter(|milli| budget.take_retry(milli * 1_000_000)).count();
    assert_eq!(passed, 10);
}
