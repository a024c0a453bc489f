//! Ends that time brings: expired and too old messages, old keys, and what is past its retention. Every hub sweeps; none takes
//! what another one is at.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hub_core::delivery::DeadReason;
use hub_core::id::ServiceName;
use hub_core::port::{StoreError, SweepReport};
use hub_core::time::Timestamp;
use sqlx::postgres::PgRow;

use super::claim;
use super::fault::Fault;
use super::outbox_port::Burial;
use super::row;
use super::store::Inner;

pub(super) const ENDED_TARGETS: &str = "SELECT DISTINCT e.target FROM (SELECT d.target FROM deliveries d \
     WHERE d.owner IS NULL AND d.ends_at > '-infinity' AND d.ends_at <= hub_now() ORDER BY d.ends_at, d.id LIMIT $1) e";
pub(super) const END_OF_TIME: &str = include_str!("sql/end_of_time.sql");
pub(super) const PRUNE: &str = include_str!("sql/prune.sql");
pub(super) const OLD_KEYS: &str = "WITH old AS MATERIALIZED (SELECT k.caller, k.key FROM idempotency k \
      WHERE k.stored_at <= hub_now() - interval '24 hours' ORDER BY k.stored_at LIMIT $1 FOR UPDATE SKIP LOCKED), \
     gone AS (DELETE FROM idempotency k USING old o WHERE k.caller = ANY (ARRAY[o.caller]) AND k.key = ANY (ARRAY[o.key]) RETURNING 1) \
     SELECT count(*) FROM gone";
/// The next end, and the time by the same clock.
pub(super) const NEXT: &str = "SELECT hub_millis(hub_now()), (SELECT hub_millis(d.ends_at) FROM deliveries d WHERE d.owner IS NULL \
     AND d.ends_at > '-infinity' ORDER BY d.ends_at LIMIT 1)";
const DROP_PARTITIONS: &str = "SELECT hub_drop_partitions(hub_now() - $1 * interval '1 millisecond')";

/// Empty partitions are looked for so often.
const DROP: Duration = Duration::from_secs(60);

/// When this node last looked for empty partitions.
#[derive(Default)]
pub(super) struct LastDrop(Mutex<Option<Timestamp>>);

impl LastDrop {
    fn is_due(&self, now: Timestamp) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last > now || now.since(last) >= DROP);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// One sweep; see the port.
pub(super) async fn sweep(
    inner: &Inner,
    registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
    retention: Duration,
    limit: u32,
    deadline: Instant,
) -> Result<SweepReport, StoreError> {
    run(inner, registered, retention, limit, deadline).await.map_err(Fault::of_read)
}

fn number(rows: &[PgRow], column: usize) -> Result<u64, Fault> {
    let Some(found) = rows.first() else { return Ok(0) };
    Ok(u64::try_from(row::get::<i64>(found, column)?).unwrap_or(0))
}

async fn run(
    inner: &Inner,
    registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
    retention: Duration,
    limit: u32,
    deadline: Instant,
) -> Result<SweepReport, Fault> {
    let link = &inner.work;
    let most = i64::from(limit);
    claim::lapse(inner, deadline).await?;
    let (expired, buried) = end(inner, registered, most, deadline).await?;
    let retention = row::millis(retention);
    let query = sqlx::query(PRUNE).bind(retention).bind(most);
    let pruned = number(&link.write("deleting old messages", deadline, query).await?, 0)?;
    let keys = link.write("deleting old keys", deadline, sqlx::query(OLD_KEYS).bind(most)).await?;
    let keys = number(&keys, 0)?;
    if inner.last_drop.is_due(inner.ports.clock.now()) {
        let query = sqlx::query(DROP_PARTITIONS).bind(retention);
        link.write("dropping partitions", deadline, query).await?;
    }
    let now = inner.ports.clock.now();
    let rows = link.read("looking for the next end", deadline, || sqlx::query(NEXT)).await?;
    let mut next = None;
    if let Some(found) = rows.first() {
        let there = row::time(found, 0)?;
        next = row::optional_time(found, 1)?.map(|at| now.plus(at.since(there)));
    }
    let full = |count: u64| count >= u64::from(limit);
    let more = limit > 0 && (full(expired + buried) || full(pruned) || full(keys));
    Ok(SweepReport { expired, buried, pruned, more, next })
}

/// Ends what has reached its end; how many expired, and how many became dead letters.
async fn end(
    inner: &Inner,
    registered: &(dyn for<'t> Fn(&'t ServiceName) -> bool + Send + Sync),
    most: i64,
    deadline: Instant,
) -> Result<(u64, u64), Fault> {
    let during = "ending messages";
    let rows = inner.work.read(during, deadline, || sqlx::query(ENDED_TARGETS).bind(most)).await?;
    let targets = rows.iter().map(|found| row::service(found, 0)).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Ok((0, 0));
    }
    let gone: Vec<&str> =
        targets.iter().filter(|target| !registered(target)).map(ServiceName::as_str).collect();
    let part = inner.parts.take();
    let query = sqlx::query(END_OF_TIME).bind(most).bind(gone).bind(part.number);
    let rows = inner.work.write(during, deadline, query).await?;
    inner.parts.put(part);
    let buried = rows.iter().filter_map(|found| buried(found).transpose()).collect::<Result<Vec<_>, _>>()?;
    let counts = ((rows.len() - buried.len()) as u64, buried.len() as u64);
    if let Some(outbox) = inner.ports.outbox.as_ref().filter(|_| !buried.is_empty()) {
        outbox.bury(buried);
    }
    Ok(counts)
}

/// The dead letter that a message became, unless it expired.
fn buried(found: &PgRow) -> Result<Option<Burial>, Fault> {
    let reason = match row::get::<Option<&str>>(found, 2)? {
        None => return Ok(None),
        Some(text) if text == DeadReason::NoTarget.as_str() => DeadReason::NoTarget,
        Some(_) => DeadReason::TooOld,
    };
    Ok(Some(Burial { id: row::message_id(found, 0)?, target: row::service(found, 1)?, reason }))
}
