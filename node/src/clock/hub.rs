//! Hub time on a real node: it starts at the wall clock, goes on with the boot-time clock, and is drawn gently towards
//! the median of the nodes. A wall clock that jumps disturbs nothing.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hub_core::id::NodeId;
use hub_core::port::Clock;
use hub_core::time::{LeaderClock, OffMedian, Sample, Timestamp};

use super::machine::{Machine, SystemMachine};

/// The clocks of this node.
pub struct HubClock {
    machine: Box<dyn Machine>,
    time: ArcSwap<LeaderClock>,
    /// Serialises changes of `time`.
    change: Mutex<()>,
    /// The newest time that was given, in milliseconds: hub time never steps back.
    given: AtomicI64,
}

impl Default for HubClock {
    fn default() -> Self {
        Self::new(SystemMachine)
    }
}

impl HubClock {
    /// Hub time is the machine's wall clock now.
    #[must_use]
    pub fn new(machine: impl Machine) -> Self {
        let own = Sample { node: NodeId(0), wall: machine.wall() };
        let time = LeaderClock::start(&[own], Timestamp::EPOCH, machine.since_boot());
        Self {
            machine: Box::new(machine),
            time: ArcSwap::from_pointee(time),
            change: Mutex::new(()),
            given: AtomicI64::new(i64::MIN),
        }
    }

    /// Starts anew at the median of the samples, not before `floor` (the newest time in the state) nor before what was
    /// given already. Before anything was given, this may also turn the clock back.
    pub fn begin(&self, samples: &[Sample], floor: Timestamp) -> Vec<OffMedian> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let given = self.given.load(Ordering::Acquire);
        let floor = if given == i64::MIN { floor } else { floor.max(Timestamp::from_millis(given)) };
        let since_boot = self.machine.since_boot();
        let mut time = LeaderClock::start(samples, floor, since_boot);
        let off = time.adjust(samples, since_boot);
        self.time.store(Arc::new(time));
        off
    }

    /// Takes a round of samples: hub time is drawn towards their median. The nodes whose clocks are too far off.
    pub fn adjust(&self, samples: &[Sample]) -> Vec<OffMedian> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut time = LeaderClock::clone(&self.time.load());
        let off = time.adjust(samples, self.machine.since_boot());
        self.time.store(Arc::new(time));
        off
    }

    /// How far this machine's wall clock is from hub time.
    #[must_use]
    pub fn off(&self) -> Duration {
        let (wall, now) = (self.machine.wall(), self.now());
        wall.since(now).max(now.since(wall))
    }
}

impl Clock for HubClock {
    fn now(&self) -> Timestamp {
        let now = self.time.load().now(self.machine.since_boot()).as_millis();
        Timestamp::from_millis(self.given.fetch_max(now, Ordering::AcqRel).max(now))
    }

    fn wall(&self) -> Timestamp {
        self.machine.wall()
    }

    fn instant(&self) -> Instant {
        self.machine.instant()
    }

    fn since_boot(&self) -> Duration {
        self.machine.since_boot()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const START: i64 = 1_795_424_100_000;
    const HOUR: i64 = 3_600_000;

    /// Clocks that a test sets.
    #[derive(Clone, Default)]
    struct Fake(Arc<(AtomicI64, AtomicU64)>);

    impl Fake {
        fn at(wall: i64) -> Self {
            let fake = Self::default();
            fake.0.0.store(wall, Ordering::SeqCst);
            fake
        }

        fn pass(&self, millis: u64) {
            self.0.0.fetch_add(millis.cast_signed(), Ordering::SeqCst);
            self.0.1.fetch_add(millis, Ordering::SeqCst);
        }

        fn jump(&self, millis: i64) {
            self.0.0.fetch_add(millis, Ordering::SeqCst);
        }
    }

    impl Machine for Fake {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(self.0.0.load(Ordering::SeqCst))
        }

        fn since_boot(&self) -> Duration {
            Duration::from_millis(self.0.1.load(Ordering::SeqCst))
        }

        fn instant(&self) -> Instant {
            SystemMachine.instant()
        }
    }

    fn samples(walls: &[i64]) -> Vec<Sample> {
        let sample =
            |(node, wall): (u64, &i64)| Sample { node: NodeId(node), wall: Timestamp::from_millis(*wall) };
        (1..).zip(walls).map(sample).collect()
    }

    #[test]
    fn a_wall_clock_that_jumps_an_hour_changes_nothing() {
        let machine = Fake::at(START);
        let clock = HubClock::new(machine.clone());
        for jump in [HOUR, -2 * HOUR, HOUR] {
            let before = clock.now().as_millis();
            machine.jump(jump);
            machine.pass(10);
            assert_eq!(clock.now().as_millis(), before + 10);
            // A lone node's wall clock is no authority.
            clock.adjust(&samples(&[clock.wall().as_millis()]));
            machine.pass(10);
            assert_eq!(clock.now().as_millis(), before + 20);
        }
        machine.jump(HOUR);
        assert_eq!(clock.off(), Duration::from_secs(3600));
    }

    #[test]
    fn one_clock_of_three_that_is_off_is_named_and_not_counted() {
        let machine = Fake::at(START + HOUR);
        let clock = HubClock::new(machine);
        let off = clock.begin(&samples(&[START + HOUR, START, START + 4]), Timestamp::EPOCH);
        assert_eq!(off.len(), 1);
        assert_eq!((off[0].node, off[0].millis > 0), (NodeId(1), true));
        assert!((clock.now().as_millis() - START).abs() < 10);
    }

    #[test]
    fn hub_time_never_steps_back_once_it_was_given() {
        let machine = Fake::at(START);
        let clock = HubClock::new(machine);
        let given = clock.now();
        clock.begin(&samples(&[START - HOUR, START - HOUR]), Timestamp::EPOCH);
        assert!(clock.now() >= given);
        clock.begin(&samples(&[START - HOUR, START - HOUR]), Timestamp::from_millis(START + 5_000));
        assert!(clock.now().as_millis() >= START + 5_000);
    }
}
