//! Claims on what is due, and leases that have run out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_core::delivery::Claim;
use hub_core::id::ServiceName;
use hub_core::port::{Claimed, StoreError, Want};
use hub_core::time::Timestamp;
use sqlx::postgres::PgRow;

use super::fault::{Fault, command, within};
use super::row;
use super::store::Inner;

pub(super) const CLAIM: &str = include_str!("sql/claim.sql");
pub(super) const LAPSE: &str = include_str!("sql/lapse.sql");
pub(super) const DUE: &str = include_str!("sql/due.sql");

/// Leases that one look takes away.
const LAPSES: i64 = 1_000;
/// Leases are not looked at more often than this.
const LOOK: Duration = Duration::from_secs(1);
/// What ended before the last look is left out of the next: rows of settled messages lie there. A little overlap, and
/// everything once in a while, in case that the database's clock went back.
const OVERLAP_MS: i64 = 5_000;
const WHOLE: Duration = Duration::from_secs(60);

/// What was looked at.
#[derive(Default)]
pub(super) struct Looks {
    state: Mutex<LookState>,
}

#[derive(Default)]
struct LookState {
    last: Option<Timestamp>,
    last_whole: Option<Timestamp>,
    /// By the database's clock: no lease that ended before is left.
    floor: i64,
}

impl Looks {
    /// Where the next look begins; `None` if the last one was just now.
    fn next(&self, now: Timestamp) -> Option<i64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last <= now && now.since(last) < LOOK) {
            return None;
        }
        state.last = Some(now);
        if state.last_whole.is_none_or(|whole| whole > now || now.since(whole) >= WHOLE) {
            state.last_whole = Some(now);
            state.floor = 0;
        }
        Some(state.floor)
    }

    fn done(&self, database_now: i64, complete: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if complete {
            state.floor = database_now.saturating_sub(OVERLAP_MS);
        } else {
            // There are more.
            state.last = None;
        }
    }

    /// The next look is not too early, whenever it comes.
    fn again(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).last = None;
    }

    fn floor(&self) -> i64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).floor
    }
}

/// Takes away claims whose leases ran out, unless that was just done; how many.
pub(super) async fn lapse(inner: &Inner, deadline: Instant) -> Result<u64, Fault> {
    let Some(floor) = inner.looks.next(inner.ports.clock.now()) else { return Ok(0) };
    let part = inner.parts.take();
    let query = sqlx::query(LAPSE).bind(floor).bind(LAPSES).bind(part.number);
    let rows = inner.work.write("ending leases", deadline, query).await;
    let rows = rows.inspect_err(|_| inner.looks.again())?;
    inner.parts.put(part);
    let mut lapsed = 0;
    let mut database_now = 0;
    for found in &rows {
        database_now = row::get(found, 0)?;
        lapsed += row::get::<Option<i64>>(found, 2)?.unwrap_or(0);
    }
    inner.looks.done(database_now, lapsed < LAPSES);
    Ok(u64::try_from(lapsed).unwrap_or(0))
}

/// Claims due messages; see the port.
pub(super) async fn claim(
    inner: &Inner,
    wants: Vec<Want>,
    deadline: Instant,
) -> Result<Vec<Claimed>, StoreError> {
    lapse(inner, deadline).await.map_err(Fault::of_read)?;
    let mut merged: BTreeMap<ServiceName, (u32, Duration)> = BTreeMap::new();
    for want in wants {
        let entry = merged.entry(want.target).or_insert((0, want.lease));
        entry.0 = entry.0.saturating_add(want.count);
    }
    let targets: Vec<&str> = merged.keys().map(ServiceName::as_str).collect();
    let counts: Vec<i64> = merged.values().map(|(count, _)| i64::from(*count)).collect();
    let leases: Vec<Duration> = merged.values().map(|(_, lease)| *lease).collect();
    let millis: Vec<i64> = leases.iter().copied().map(row::millis).collect();
    let part = inner.parts.take();
    let query = sqlx::query(CLAIM)
        .bind(targets)
        .bind(counts)
        .bind(millis)
        .bind(inner.ports.node.0.cast_signed())
        .bind(part.number);
    let claimed = grant(inner, deadline, query, &leases).await?;
    inner.parts.put(part);
    Ok(claimed)
}

/// Runs a claiming statement. Its last column says, from 1, which of `leases` a message was claimed for.
pub(super) async fn grant(
    inner: &Inner,
    deadline: Instant,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    leases: &[Duration],
) -> Result<Vec<Claimed>, StoreError> {
    let started = inner.ports.clock.now();
    transact(inner, deadline, query, |found| {
        let place: i64 = row::get(found, 13)?;
        let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
        let lease = leases.get(at).copied().unwrap_or_default();
        read(inner, found, started.plus(lease))
    })
    .await
}

/// Runs a claiming statement in a transaction: so it is known which claims hang in the air when the commit is not confirmed.
/// Those are given back.
async fn transact(
    inner: &Inner,
    deadline: Instant,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    read: impl Fn(&PgRow) -> Result<Claimed, Fault> + Send,
) -> Result<Vec<Claimed>, StoreError> {
    let during = "claiming messages";
    let mut lease = inner.work.acquire(deadline).await?;
    let connection = lease.connection();
    let granted = async {
        command(connection, during, deadline, "BEGIN").await?;
        let rows = within(during, deadline, query.fetch_all(&mut *connection)).await?;
        rows.iter().map(read).collect::<Result<Vec<_>, _>>()
    };
    let claimed = match granted.await {
        Ok(claimed) => claimed,
        Err(fault) => return lease.close_transaction(Err(fault)).map_err(Fault::of_read),
    };
    let committed = command(connection, during, deadline, "COMMIT").await;
    match lease.close_transaction(committed) {
        Ok(_) => Ok(claimed),
        Err(fault) => {
            inner.signals.unused(claimed.into_iter().map(|one| one.claim));
            Err(fault.into())
        }
    }
}

/// A claimed message. Its lease ends, by this node's clock, so long after the moment before it was asked for: not late.
fn read(inner: &Inner, found: &PgRow, lease_end: Timestamp) -> Result<Claimed, Fault> {
    let message = row::message(found)?;
    let claim = Claim {
        message: message.id,
        owner: inner.ports.node,
        term: 0,
        attempt: row::count(found, 11)?,
        lease_end,
    };
    Ok(Claimed { claim, message, retry_count: row::count(found, 12)? })
}

/// Targets with due messages, and when the next of the others becomes due, by this node's clock.
pub(super) async fn due(
    inner: &Inner,
    deadline: Instant,
) -> Result<(Vec<ServiceName>, Option<Timestamp>), Fault> {
    lapse(inner, deadline).await?;
    let mut found = look(inner, deadline).await?;
    if found.lapsed {
        inner.looks.again();
        lapse(inner, deadline).await?;
        found = look(inner, deadline).await?;
    }
    Ok((found.due.into_iter().collect(), found.next))
}

/// What one look found.
#[derive(Default)]
struct Found {
    due: BTreeSet<ServiceName>,
    next: Option<Timestamp>,
    /// A lease ran out that is not taken away yet.
    lapsed: bool,
}

async fn look(inner: &Inner, deadline: Instant) -> Result<Found, Fault> {
    let floor = inner.looks.floor();
    let now = inner.ports.clock.now();
    let rows = inner.work.read("looking for due messages", deadline, || sqlx::query(DUE).bind(floor)).await?;
    let mut look = Found::default();
    for found in &rows {
        let there = row::time(found, 0)?;
        let Some(at) = row::optional_time(found, 2)? else { continue };
        let is_lease = row::get::<Option<&str>>(found, 1)?.is_none();
        if at > there {
            let at = now.plus(at.since(there));
            look.next = Some(look.next.map_or(at, |first| first.min(at)));
        } else if is_lease {
            look.lapsed = true;
        } else {
            look.due.insert(row::service(found, 1)?);
        }
    }
    Ok(look)
}
