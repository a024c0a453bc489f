//! A node's window against a list of its calls.

use std::time::Duration;

use hub_core::breaker::{Call, Config, Window};
use hub_core::delivery::Evidence;
use hub_core::time::Timestamp;
use proptest::prelude::*;

fn call() -> impl Strategy<Value = (i64, Evidence, u64)> {
    let evidence = prop_oneof![
        3 => Just(Evidence::Success),
        3 => Just(Evidence::Failure),
        1 => Just(Evidence::Throttle),
        1 => Just(Evidence::NotCounted),
    ];
    (prop_oneof![0_i64..50, 0_i64..4_000, 0_i64..60_000], evidence, 0_u64..200)
}

fn config(window_s: u32) -> Config {
    Config { window_s, slow_ms: Some(100), ..Config::default() }
}

proptest! {
    /// A call counts for nine to ten tenths of the window; the streak is not bound to it.
    #[test]
    fn counts_the_calls_of_the_window(calls in prop::collection::vec(call(), 1..120), window_s in 10_u32..60) {
        let (mut window, config) = (Window::default(), config(window_s));
        let width = i64::from(window_s) * 100;
        let mut now = 1_800_000_000_000;
        let mut seen: Vec<(i64, Evidence, u64)> = Vec::new();
        for (pause, evidence, took) in calls {
            now += pause;
            let call = Call { evidence, took: Duration::from_millis(took), retry_after: None };
            window.count(&call, &config, Timestamp::from_millis(now));
            if evidence != Evidence::NotCounted { seen.push((now, evidence, took)); }
            let sight = window.sight(&config, Timestamp::from_millis(now));
            let inside: Vec<_> = seen.iter().filter(|(at, ..)| now / width - at / width < 10).collect();
            let bad = |evidence: Evidence| evidence != Evidence::Success;
            prop_assert_eq!(sight.counts.calls as usize, inside.len());
            prop_assert_eq!(sight.counts.failures as usize, inside.iter().filter(|(_, what, _)| bad(*what)).count());
            prop_assert_eq!(sight.counts.slow as usize, inside.iter().filter(|(.., took)| *took > 100).count());
            let since_success: Vec<_> = seen.iter().rev().take_while(|(_, what, _)| *what != Evidence::Success).collect();
            let streak: Vec<_> = since_success.iter().filter(|(_, what, _)| *what == Evidence::Failure).collect();
            prop_assert_eq!(sight.counts.consecutive as usize, streak.len());
            prop_assert_eq!(sight.streak_began.map(Timestamp::as_millis), streak.last().map(|(at, ..)| *at));
            let newest = |well: bool| seen.iter().rev().find(|(_, what, _)| bad(*what) != well).map(|(at, ..)| *at);
            prop_assert_eq!(sight.last_success.map(Timestamp::as_millis), newest(true));
            prop_assert_eq!(sight.last_failure.map(Timestamp::as_millis), newest(false));
            let first_bad = inside.iter().find(|(_, what, took)| bad(*what) || *took > 100).map(|(at, ..)| at / width * width);
            prop_assert_eq!(sight.bad_since.map(Timestamp::as_millis), first_bad);
        }
    }

    /// A new length of the window, or a clock that was set back, loses no call.
    #[test]
    fn changes_lose_nothing(calls in prop::collection::vec((0_i64..900, 10_u32..60), 1..40), back in 0_i64..100_000) {
        let mut window = Window::default();
        let mut now = 1_800_000_000_000;
        let call = Call { evidence: Evidence::Failure, took: Duration::ZERO, retry_after: None };
        for (_, window_s) in &calls {
            window.count(&call, &config(*window_s), Timestamp::from_millis(now));
        }
        now -= back;
        let last = calls.last().unwrap().1;
        let sight = window.sight(&config(last), Timestamp::from_millis(now));
        prop_assert_eq!(sight.counts.calls as usize, calls.len());
        prop_assert_eq!(sight.counts.consecutive as usize, calls.len());
    }
}
