//! The clock of a leader: the voters' median to begin with, then the leader's own boot-time clock, drawn gently towards
//! the median. It never steps back and never jumps.

use std::time::Duration;

use super::Timestamp;
use crate::id::NodeId;

/// A voter's wall clock, as it is believed to be at the moment of sampling (half the round trip added).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whose.
    pub node: NodeId,
    /// What it shows.
    pub wall: Timestamp,
}

/// A voter whose wall clock is too far from the median to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffMedian {
    /// Whose.
    pub node: NodeId,
    /// How far it is off, in milliseconds; positive if it is ahead.
    pub millis: i64,
}

/// What a leader stamps into entries. Pure: it is told how long the machine has been up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderClock {
    /// Hub time at `anchor_boot`, in microseconds, so that rounding never adds up.
    anchor: i64,
    anchor_boot: Duration,
    /// What is still to be made up since the anchor, in microseconds.
    offset: i64,
}

impl LeaderClock {
    /// A clock further than this off the median raises an alarm and is not counted.
    pub const TOLERANCE: Duration = Duration::from_secs(5);
    /// How often the voters are to be sampled.
    pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
    /// The slew is at most one part in this many.
    const SLEW_DIVISOR: i64 = 10;

    /// Starts a term at the median of the samples, but not before `floor`, the newest time that the state knows.
    /// Without a sample it starts at the floor.
    #[must_use]
    pub fn start(samples: &[Sample], floor: Timestamp, since_boot: Duration) -> Self {
        let start = judge(samples).0.map_or(floor, |median| median.max(floor));
        let mut clock =
            Self { anchor: start.as_millis().saturating_mul(1_000), anchor_boot: since_boot, offset: 0 };
        clock.adjust(samples, since_boot);
        clock
    }

    /// The time to stamp now.
    #[must_use]
    pub fn now(&self, since_boot: Duration) -> Timestamp {
        Timestamp::from_millis(self.micros(since_boot).div_euclid(1_000))
    }

    /// Takes a new round of samples: from now on the clock is drawn towards their median. Returns the voters that are too
    /// far off. A lone node's wall clock is no authority over its own boot-time clock, so one sample changes nothing.
    pub fn adjust(&mut self, samples: &[Sample], since_boot: Duration) -> Vec<OffMedian> {
        if samples.len() < 2 {
            return Vec::new();
        }
        let (median, off) = judge(samples);
        if let Some(median) = median {
            self.anchor = self.micros(since_boot);
            self.anchor_boot = self.anchor_boot.max(since_boot);
            self.offset = median.as_millis().saturating_mul(1_000).saturating_sub(self.anchor);
        }
        off
    }

    fn micros(&self, since_boot: Duration) -> i64 {
        let elapsed = since_boot.saturating_sub(self.anchor_boot).as_micros();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let slew = elapsed / Self::SLEW_DIVISOR;
        self.anchor.saturating_add(elapsed).saturating_add(self.offset.clamp(-slew, slew))
    }
}

/// The median of those within tolerance of the median of all, and the others. Of an even number the lower middle one, so
/// that it is always the time of some clock: of two that disagree, the one that did not run ahead.
fn judge(samples: &[Sample]) -> (Option<Timestamp>, Vec<OffMedian>) {
    let Some(middle) = median(samples.iter().map(|sample| sample.wall)) else { return (None, Vec::new()) };
    let millis = |sample: &Sample| sample.wall.as_millis().saturating_sub(middle.as_millis());
    let tolerance = u64::try_from(LeaderClock::TOLERANCE.as_millis()).unwrap_or(u64::MAX);
    let is_off = |sample: &&Sample| millis(sample).unsigned_abs() > tolerance;
    let off = samples.iter().filter(is_off);
    let off = off.map(|sample| OffMedian { node: sample.node, millis: millis(sample) }).collect();
    (median(samples.iter().filter(|sample| !is_off(sample)).map(|sample| sample.wall)), off)
}

fn median(walls: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
    let mut walls: Vec<Timestamp> = walls.collect();
    walls.sort_unstable();
    walls.get(walls.len().saturating_sub(1) / 2).copied()
}
