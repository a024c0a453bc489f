//! Counters of each target: the parts that this process adds to, what the flushers know of them, and how they are read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hub_core::id::ServiceName;
use hub_core::port::Backlog;
use sqlx::postgres::PgRow;

use super::fault::Fault;
use super::link::Link;
use super::row;

/// A part is left for a new one after so many additions: each leaves a dead row behind, and while some session holds an old
/// snapshot those cannot be cleared away and would be walked over again and again.
const USES: u32 = 2_000;

macro_rules! sums {
    ($where:literal) => {
        concat!(
            "SELECT s.target, s.depth, s.in_flight, s.accepted_total, s.delivered_total, s.dead_letters, \
             CASE WHEN s.depth > s.in_flight THEN (SELECT hub_millis(d.created_at) FROM deliveries d \
              WHERE d.target = s.target AND d.owner IS NULL \
              AND d.id > '00000000-0000-0000-0000-000000000000' ORDER BY d.id LIMIT 1) END, \
             CASE WHEN s.in_flight > 0 THEN (SELECT hub_millis(min(d.created_at)) FROM deliveries d \
              WHERE d.owner IS NOT NULL AND d.lease_end > '-infinity' AND d.target = s.target) END \
             FROM (SELECT b.target, sum(b.depth)::int8 AS depth, sum(b.in_flight)::int8 AS in_flight, \
              sum(b.accepted_total)::int8 AS accepted_total, sum(b.delivered_total)::int8 AS delivered_total, \
              sum(b.dead_letters)::int8 AS dead_letters FROM backlog b ",
            $where,
            " GROUP BY b.target) s ORDER BY s.target"
        )
    };
}

const ALL: &str = sums!("");
const ONE: &str = sums!("WHERE b.target = $1");
const DEPTHS: &str = "SELECT b.target, sum(b.depth)::int8 FROM backlog b GROUP BY b.target";
const DEPTHS_OF: &str =
    "SELECT b.target, sum(b.depth)::int8 FROM backlog b WHERE b.target = ANY($1) GROUP BY b.target";

/// Puts parts together that nobody has added to for a while.
pub(super) const FOLD: &str = "WITH old AS (DELETE FROM backlog b WHERE b.slot <> 0 \
      AND b.touched_at < hub_now() - interval '1 minute' RETURNING b.*) \
     INSERT INTO backlog AS b (target, slot, depth, in_flight, accepted_total, delivered_total, dead_letters, touched_at) \
     SELECT o.target, 0, sum(o.depth), sum(o.in_flight), sum(o.accepted_total), sum(o.delivered_total), \
      sum(o.dead_letters), hub_now() FROM old o GROUP BY o.target \
     ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth, \
      in_flight = b.in_flight + excluded.in_flight, accepted_total = b.accepted_total + excluded.accepted_total, \
      delivered_total = b.delivered_total + excluded.delivered_total, \
      dead_letters = b.dead_letters + excluded.dead_letters, touched_at = excluded.touched_at";

/// The parts of this process: each is used by one statement at a time.
pub(super) struct Parts {
    next: AtomicI64,
    free: Mutex<Vec<Part>>,
}

/// A part in use. Not put back after a failure: the server may still be working on it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: i64,
    uses: u32,
}

impl Parts {
    /// Parts with numbers from `start` on, which no other process should use.
    pub(super) const fn new(start: i64) -> Self {
        Self { next: AtomicI64::new(start), free: Mutex::new(Vec::new()) }
    }

    pub(super) fn take(&self) -> Part {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Part { number: self.next.fetch_add(1, Ordering::Relaxed).max(1), uses: 0 })
    }

    pub(super) fn put(&self, part: Part) {
        let part = Part { uses: part.uses + 1, ..part };
        if part.uses < USES {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        }
    }
}

/// What this node believes the depths to be: read every second, and moved by its own writes in between.
#[derive(Default)]
pub(super) struct Depths {
    state: Mutex<DepthState>,
}

#[derive(Default)]
struct DepthState {
    known: HashMap<ServiceName, i64>,
    /// Own changes while a read is under way: it may not have seen them.
    meanwhile: HashMap<ServiceName, i64>,
}

impl Depths {
    fn state(&self) -> MutexGuard<'_, DepthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node just changed.
    pub(super) fn add(&self, target: &ServiceName, by: i64) {
        let mut state = self.state();
        *state.known.entry(target.clone()).or_default() += by;
        *state.meanwhile.entry(target.clone()).or_default() += by;
    }

    pub(super) fn of(&self, target: &ServiceName) -> u64 {
        u64::try_from(self.state().known.get(target).copied().unwrap_or(0)).unwrap_or(0)
    }

    /// Reads them all.
    pub(super) async fn refresh(&self, link: &Link, deadline: Instant) -> Result<(), Fault> {
        self.state().meanwhile.clear();
        let rows = link.read("reading the backlogs", deadline, || sqlx::query(DEPTHS)).await?;
        let mut read = rows.iter().map(depth).collect::<Result<HashMap<_, _>, _>>()?;
        let mut state = self.state();
        for (target, by) in &state.meanwhile {
            *read.entry(target.clone()).or_default() += by;
        }
        state.known = read;
        Ok(())
    }
}

fn depth(found: &PgRow) -> Result<(ServiceName, i64), Fault> {
    Ok((row::service(found, 0)?, row::get(found, 1)?))
}

/// The depths of these targets, as they are.
pub(super) async fn depths_of(
    link: &Link,
    targets: &[&str],
    deadline: Instant,
) -> Result<HashMap<ServiceName, u64>, Fault> {
    let query = || sqlx::query(DEPTHS_OF).bind(targets);
    let rows = link.read("reading backlogs", deadline, query).await?;
    rows.iter()
        .map(|found| depth(found).map(|(target, depth)| (target, u64::try_from(depth).unwrap_or(0))))
        .collect()
}

/// One target's counters.
pub(super) async fn one(link: &Link, target: &ServiceName, deadline: Instant) -> Result<Backlog, Fault> {
    let rows = link
        .read("reading a backlog", deadline, || sqlx::query(ONE).bind(target.as_str().to_owned()))
        .await?;
    rows.first().map_or_else(|| Ok(Backlog::default()), backlog)
}

/// All targets' counters.
pub(super) async fn all(link: &Link, deadline: Instant) -> Result<Vec<(ServiceName, Backlog)>, Fault> {
    let rows = link.read("reading the backlogs", deadline, || sqlx::query(ALL)).await?;
    rows.iter().map(|found| Ok((row::service(found, 0)?, backlog(found)?))).collect()
}

fn backlog(found: &PgRow) -> Result<Backlog, Fault> {
    let count = |column| row::get::<i64>(found, column).map(|count| u64::try_from(count).unwrap_or(0));
    let oldest = [row::optional_time(found, 6)?, row::optional_time(found, 7)?];
    Ok(Backlog {
        depth: count(1)?,
        in_flight: count(2)?,
        oldest: oldest.into_iter().flatten().min(),
        accepted_total: count(3)?,
        delivered_total: count(4)?,
        dead_letters: count(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_shared_and_are_left_in_time() {
        let parts = Parts::new(7);
        let (one, other) = (parts.take(), parts.take());
        assert_ne!(one.number, other.number);
        let first = one.number;
        parts.put(one);
        let mut uses = 1;
        loop {
            let part = parts.take();
            if part.number != first {
                break;
            }
            uses += 1;
            parts.put(part);
        }
        assert_eq!(uses, USES);
    }
}
