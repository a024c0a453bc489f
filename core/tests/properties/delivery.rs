//! Retry schedule, answer table and state table against what the contract says, written out.

use std::time::Duration;

use hub_core::delivery::{
    AttemptOutcome, DeadReason, Evidence, Outcome, Reaction, RetryPolicy, TargetAnswer, TransportError,
};
use hub_core::message::{Status, Transition};
use hub_core::time::Timestamp;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::EPOCH;

proptest! {
    #[test]
    fn waits_lie_within_full_jitter(base_ms in 1_u32..3_600_000, cap_ms in 1_u32..86_400_000, n in 0_u32..200,
        chance in 0.0..1.0_f64, asked in prop::option::of(0_u64..1 << 40)) {
        let policy = RetryPolicy { base_ms, cap_ms, ..RetryPolicy::default() };
        let widest = (f64::from(base_ms) * 2_f64.powi(n as i32)).min(f64::from(cap_ms));
        prop_assert_eq!(policy.ceiling(n).as_millis() as f64, widest);
        let below = |bound: u64| ((bound as f64) * chance) as u64;
        let wait = policy.delay(n, asked.map(Duration::from_millis), below).as_millis() as f64;
        let least = asked.map_or(0.0, |asked| (asked as f64).min(f64::from(cap_ms)));
        prop_assert!(wait >= least && wait <= widest.max(least), "{wait}");
        let all = |bound: u64| bound - 1;
        prop_assert_eq!(policy.delay(n, None, all).as_millis() as f64, widest);
    }

    #[test]
    fn answers_mean_what_the_table_says(status in 100_u16..1_000, after in prop::option::of(0_u64..10_000),
        done in 0_u32..4, most in 0_u32..4, listed: bool) {
        let policy = RetryPolicy { retry_on: if listed { vec![status] } else { vec![] }, ..RetryPolicy::default() };
        let answer = TargetAnswer::Http { status, retry_after: after.map(Duration::from_secs) };
        let reaction = Reaction::to(&answer, &policy, done, most, NOW, |_| 0);
        let (evidence, retry) = match status {
            200..=299 => (Evidence::Success, false),
            429 => (Evidence::Throttle, true),
            503 if after.is_some() => (Evidence::Throttle, true),
            408 => (Evidence::Failure, true),
            300..=499 => (Evidence::Success, listed),
            _ => (Evidence::Failure, true),
        };
        prop_assert_eq!(reaction.evidence, evidence);
        let wait = Duration::from_secs(after.unwrap_or(0).min(3_600));
        let outcome = match status {
            200..=299 => Outcome::Delivered,
            _ if retry && done >= most => Outcome::DeadLetter(DeadReason::Exhausted),
            _ if retry => Outcome::RetryAt { at: NOW.plus(wait), counted: true },
            410 => Outcome::DeadLetter(DeadReason::Gone),
            _ => Outcome::DeadLetter(DeadReason::Rejected),
        };
        prop_assert_eq!(reaction.outcome, outcome);
        prop_assert_eq!(reaction.slow_target.is_some(), evidence == Evidence::Throttle);
        prop_assert!(!reaction.attempt.may_have_arrived());
    }
}

#[test]
fn faults_of_the_hub_are_never_counted() {
    use TransportError as E;
    for (error, attempt, counted) in [
        (E::NameNotFound, AttemptOutcome::NotSent, true),
        (E::Connect, AttemptOutcome::NotSent, true),
        (E::ConnectTimeout, AttemptOutcome::NotSent, true),
        (E::Tls, AttemptOutcome::NotSent, true),
        (E::Broken, AttemptOutcome::NoAnswer, true),
        (E::Timeout, AttemptOutcome::NoAnswer, true),
        (E::Guarded, AttemptOutcome::HubFault, false),
        (E::Local, AttemptOutcome::HubFault, false),
    ] {
        let reaction = Reaction::to(&TargetAnswer::Failed(error), &RetryPolicy::default(), 9, 9, NOW, |_| 0);
        assert_eq!(reaction.attempt, attempt, "{error:?}");
        let expected = if counted {
            Outcome::DeadLetter(DeadReason::Exhausted)
        } else {
            Outcome::RetryAt { at: NOW, counted: false }
        };
        assert_eq!(reaction.outcome, expected, "{error:?}");
        assert_eq!(reaction.evidence == Evidence::Failure, counted, "{error:?}");
    }
}

/// Every legal move, as `messages.md` tells it: from, what happens, an attempt was counted before, to.
const MOVES: &str = "
    held Unhold * pending          held Cancel * cancelled          held Expire * expired
    pending Claim * delivering     pending Bury * dead_letter       pending Cancel * cancelled
    pending Expire * expired       retrying Claim * delivering      retrying Bury * dead_letter
    retrying Cancel * cancelled    retrying Expire * expired        delivering Release no pending
    delivering Release yes retrying delivering Deliver * delivered  delivering Retry * retrying
    delivering Bury * dead_letter  delivering Expire * expired      dead_letter Replay * pending
    dead_letter Discard * discarded";

fn legal(from: Status, transition: Transition, attempted: bool, moves: &str) -> Option<String> {
    let words: Vec<&str> = moves.split_whitespace().collect();
    let attempted = if attempted { "yes" } else { "no" };
    words.chunks(4).find_map(|row| {
        let fits = row[0] == from.as_str()
            && row[1] == format!("{transition:?}")
            && (row[2] == "*" || row[2] == attempted);
        fits.then(|| row[3].to_owned())
    })
}

fn table_differs(moves: &str) -> bool {
    use Transition as T;
    let transitions = [
        T::Claim,
        T::Release,
        T::Deliver,
        T::Retry,
        T::Bury,
        T::Cancel,
        T::Expire,
        T::Replay,
        T::Discard,
        T::Unhold,
    ];
    Status::ALL.into_iter().any(|from| {
        transitions.into_iter().any(|transition| {
            [false, true].into_iter().any(|attempted| {
                let is = from.after(transition, attempted).map(|status| status.as_str().to_owned());
                is != legal(from, transition, attempted, moves)
            })
        })
    })
}

#[test]
fn the_state_table_is_the_contract() {
    assert!(!table_differs(MOVES));
    // A planted mistake is found: a message under way could be cancelled.
    assert!(table_differs(&format!("{MOVES} delivering Cancel * cancelled")));
    assert!(Status::ALL.iter().all(|status| !(status.is_final() && status.is_open())));
}
