//! The leader's clock: never back, never a jump, never faster or slower than a tenth.

use std::time::Duration;

use hub_core::id::NodeId;
use hub_core::time::{LeaderClock, Sample, Timestamp};
use proptest::prelude::*;

const T: i64 = 1_800_000_000_000;

fn samples(walls: &[i64]) -> Vec<Sample> {
    (1..)
        .zip(walls)
        .map(|(node, wall)| Sample { node: NodeId(node), wall: Timestamp::from_millis(*wall) })
        .collect()
}

fn up(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a clock must never do, told by its readings alone.
fn check(readings: &[(u64, i64)]) -> Result<(), String> {
    for pair in readings.windows(2) {
        let [(boot_a, a), (boot_b, b)] = [pair[0], pair[1]];
        let elapsed = (boot_b - boot_a) as i64;
        // One millisecond of rounding at each end.
        if b < a || (b - a - elapsed).abs() * 10 > elapsed + 20 {
            return Err(format!("from {a} to {b} in {elapsed} ms"));
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Adjust(Vec<i64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let walls = prop::collection::vec(prop_oneof![-20_000_i64..20_000, -100_000_000_i64..100_000_000], 0..6);
    prop::collection::vec(
        prop_oneof![(0_u64..30_000).prop_map(Step::Pass), walls.prop_map(Step::Adjust)],
        1..40,
    )
}

/// Runs a clock; `jump` plants a mistake: it is started anew at each sampling.
fn run(steps: &[Step], jump: bool) -> Vec<(u64, i64)> {
    let mut clock = LeaderClock::start(&samples(&[T]), Timestamp::EPOCH, up(5));
    let mut boot = 5;
    let mut readings = vec![(boot, clock.now(up(boot)).as_millis())];
    for step in steps {
        match step {
            Step::Pass(millis) => boot += millis,
            Step::Adjust(walls) => {
                let walls: Vec<i64> = walls.iter().map(|off| T + off).collect();
                if jump {
                    clock = LeaderClock::start(&samples(&walls), Timestamp::EPOCH, up(boot));
                } else {
                    clock.adjust(&samples(&walls), up(boot));
                }
            }
        }
        readings.push((boot, clock.now(up(boot)).as_millis()));
    }
    readings
}

proptest! {
    #[test]
    fn never_steps_back_and_slews_a_tenth_at_most(steps in steps()) {
        check(&run(&steps, false)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn reaches_the_median(offset in -4_000_i64..4_000, spread in 0_i64..900) {
        let mut clock = LeaderClock::start(&samples(&[T]), Timestamp::EPOCH, up(0));
        clock.adjust(&samples(&[T + offset - spread, T + offset, T + offset + spread]), up(0));
        let later = 10 * offset.unsigned_abs() + 10;
        prop_assert_eq!(clock.now(up(later)).as_millis(), T + offset + later as i64);
    }

    #[test]
    fn a_minority_cannot_move_it(lie in any::<i32>(), honest in prop::collection::vec(0_i64..50, 3..4)) {
        let mut walls: Vec<i64> = honest.iter().map(|off| T + off).collect();
        walls.push(T + i64::from(lie));
        let clock = LeaderClock::start(&samples(&walls), Timestamp::EPOCH, up(0));
        prop_assert!((T..T + 50).contains(&clock.now(up(0)).as_millis()));
    }
}

#[test]
fn the_check_catches_a_clock_that_jumps() {
    let steps = [Step::Adjust(vec![9_000, 9_000]), Step::Pass(10), Step::Adjust(vec![0, 0])];
    assert!(check(&run(&steps, false)).is_ok());
    assert!(check(&run(&steps, true)).is_err());
}

#[test]
fn who_is_far_off_is_named_and_not_counted() {
    let walls = samples(&[T, T + 4_000, T + 3_600_000]);
    let mut clock = LeaderClock::start(&walls, Timestamp::EPOCH, up(0));
    // The median of all is `T + 4_000`; without the third node it is the lower of the two that are left.
    assert_eq!(clock.now(up(0)).as_millis(), T);
    let off = clock.adjust(&walls, up(0));
    assert_eq!(off.iter().map(|off| (off.node.0, off.millis)).collect::<Vec<_>>(), [(3, 3_596_000)]);
}

#[test]
fn starts_no_earlier_than_the_state_and_a_lone_node_trusts_its_boot_clock() {
    let floor = Timestamp::from_millis(T + 100);
    let mut clock = LeaderClock::start(&samples(&[T]), floor, up(7));
    assert_eq!(clock.now(up(7)), floor);
    assert!(clock.adjust(&samples(&[T + 3_600_000]), up(7)).is_empty());
    assert_eq!(clock.now(up(1_007)).as_millis(), T + 1_100);
    assert_eq!(LeaderClock::start(&[], floor, up(7)).now(up(7)), floor);
}
