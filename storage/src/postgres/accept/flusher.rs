//! The flushers: each writes what has gathered in one statement, tells the callers after the commit, and takes the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::delivery::Claim;
use hub_core::message::NewMessage;
use hub_core::port::{Claimed, StoreError};
use hub_core::time::Timestamp;
use uuid::Uuid;

use super::batch::{Batch, Row, Verdict};
use super::queue::Unit;
use super::{judge, statement};
use crate::postgres::Outgoing;
use crate::postgres::backlog;
use crate::postgres::fault::{Fault, command};
use crate::postgres::store::Inner;

/// The pause before the same statement is sent again.
const PAUSE_MS: u64 = 50;
/// A target is near its bound from this many tenths on: then its counters are read before more is taken.
const NEAR: u64 = 8;
/// How often a statement is repeated that lost against another one, or found no partition.
const COLLISIONS: u32 = 10;

const MAKE_PARTITIONS: &str = "SELECT hub_make_partitions(hub_time($1), hub_time($2))";

/// Writes until the queue is closed and empty.
pub(in crate::postgres) async fn run(inner: Arc<Inner>) {
    while let Some(units) = inner.queue.take().await {
        flush(&inner, units).await;
    }
}

async fn flush(inner: &Inner, units: Vec<Unit>) {
    let mut batch = Batch::of(units);
    let Some(deadline) = batch.deadline else { return };
    let started = inner.ports.clock.now();
    let written = match make_room(inner, &mut batch, deadline).await {
        Ok(()) if batch.atomic && batch.has_refusal() => Ok(()),
        Ok(()) => {
            reserve(inner, &mut batch, started);
            match write(inner, &mut batch, deadline).await {
                Written::Done => Ok(()),
                Written::Spoiled if batch.can_be_parted() => {
                    give_up(inner, &mut batch, started, false);
                    for unit in batch.into_units() {
                        Box::pin(flush(inner, vec![unit])).await;
                    }
                    return;
                }
                Written::Spoiled => Err(StoreError::Unavailable {
                    reason: "Postgres refuses a value of the message".to_owned(),
                    retryable: false,
                }),
                Written::Failed(error) => Err(error),
            }
        }
        Err(fault) => Err(fault.of_read()),
    };
    let unknown = matches!(written, Err(StoreError::Unknown(_)));
    let refused = batch.atomic && batch.has_refusal();
    if written.is_err() || refused {
        give_up(inner, &mut batch, started, unknown);
    } else {
        hand_over(inner, &mut batch, started);
    }
    batch.answer(written, inner.options.backlog_retry_after);
}

/// Judges the rows whose targets are full; nothing is read while they are far from that.
async fn make_room(inner: &Inner, batch: &mut Batch, deadline: Instant) -> Result<(), Fault> {
    let bound = inner.options.max_backlog;
    let mut more: HashMap<&str, u64> = HashMap::new();
    for row in &batch.rows {
        *more.entry(row.message.target.as_str()).or_default() += 1;
    }
    let near: Vec<&str> = batch
        .rows
        .iter()
        .map(|row| &row.message.target)
        .filter(|target| {
            let after = inner.depths.of(target) + more.get(target.as_str()).copied().unwrap_or(0);
            after.saturating_mul(10) > bound.saturating_mul(NEAR)
        })
        .map(hub_core::id::ServiceName::as_str)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    if near.is_empty() {
        return Ok(());
    }
    let mut depths = backlog::depths_of(&inner.work, &near, deadline).await?;
    for target in near {
        if let Ok(name) = target.parse() {
            depths.entry(name).or_insert(0);
        }
    }
    let mut full = Vec::new();
    for (at, row) in batch.rows.iter().enumerate() {
        if let Some(depth) = depths.get_mut(&row.message.target) {
            *depth += 1;
            if *depth > bound {
                full.push(at);
            }
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    // What is known already is not refused for want of room.
    let rows: Vec<&Row> = full.iter().filter_map(|at| batch.rows.get(*at)).collect();
    let mut lease = inner.work.acquire(deadline).await?;
    let found = judge::known(lease.connection(), &rows, inner.ports.node, deadline).await;
    let mut known = lease.close(found)?;
    for at in full {
        if let Some(row) = batch.rows.get_mut(at) {
            row.verdict = Some(known.remove(&row.message.id.0).unwrap_or(Verdict::Full));
        }
    }
    Ok(())
}

fn is_due(message: &NewMessage, now: Timestamp) -> bool {
    let ended = message.expires_at.is_some_and(|expires| expires <= now) || message.too_old_at <= now;
    !ended && message.deliver_at.is_none_or(|at| at <= now)
}

/// Takes slots, or room in the broker, for what can start at once.
fn reserve(inner: &Inner, batch: &mut Batch, now: Timestamp) {
    let ports = &inner.ports;
    for row in batch.rows.iter_mut().filter(|row| row.verdict.is_none() && is_due(&row.message, now)) {
        match &ports.outbox {
            Some(outbox) => row.publish = outbox.undertake(&row.message.target),
            None => row.lease = ports.slots.try_reserve(&row.message.target),
        }
    }
}

/// How writing ended.
enum Written {
    Done,
    /// The server cannot hold a value of one of the rows.
    Spoiled,
    Failed(StoreError),
}

/// Writes, and writes again with the same ids while the outcome is unknown.
async fn write(inner: &Inner, batch: &mut Batch, deadline: Instant) -> Written {
    let (mut unknown, mut collisions) = (false, 0);
    loop {
        let fault = match attempt(inner, batch, unknown, deadline).await {
            Ok(()) => return Written::Done,
            Err(fault) => fault,
        };
        match &fault {
            Fault::Lost { .. } => unknown = true,
            Fault::Refused { .. } if fault.is_missing_partition() && collisions < COLLISIONS => {
                collisions += 1;
                if make_partitions(inner, batch, deadline).await.is_ok() {
                    continue;
                }
            }
            Fault::Refused { .. } if fault.is_collision() && collisions < COLLISIONS => {
                collisions += 1;
                continue;
            }
            Fault::Refused { .. } if fault.is_of_the_data() => return Written::Spoiled,
            Fault::Unreachable(_) | Fault::Refused { .. } => turn_away(inner, &fault),
            Fault::Corrupt(_) => {}
        }
        if !unknown {
            return Written::Failed(fault.into());
        }
        let pause = Duration::from_millis(PAUSE_MS / 2 + inner.ports.ids.below(PAUSE_MS));
        if inner.ports.clock.instant() + pause >= deadline {
            return Written::Failed(StoreError::Unknown(fault.to_string()));
        }
        tokio::time::sleep(pause).await;
    }
}

/// The server is gone, or writes nothing: nobody who still waits in the queue needs to wait longer.
fn turn_away(inner: &Inner, fault: &Fault) {
    for unit in inner.queue.drain() {
        let error = StoreError::Unavailable { reason: fault.to_string(), retryable: true };
        let _ = unit.answer.send(Err(error));
    }
}

/// One try. `repeated`: an earlier one may have been committed, so what is found under a claim of this node is its own.
async fn attempt(inner: &Inner, batch: &mut Batch, repeated: bool, deadline: Instant) -> Result<(), Fault> {
    let during = "writing messages";
    let part = inner.parts.take();
    let mut lease = inner.work.acquire(deadline).await?;
    let connection = lease.connection();
    let work = async {
        if batch.atomic {
            command(connection, during, deadline, "BEGIN").await?;
        }
        let new =
            statement::insert(connection, batch.open(), inner.ports.node, part.number, deadline).await?;
        let old: Vec<&Row> = batch.open().filter(|row| !new.contains(&row.message.id.0)).collect();
        let mut verdicts = HashMap::new();
        if !old.is_empty() {
            verdicts = judge::known(connection, &old, inner.ports.node, deadline).await?;
            if verdicts.len() < old.len() {
                // A key or a message went away between the two statements.
                let code = "40001".to_owned();
                return Err(Fault::Refused { during, code, reason: "it changed meanwhile".to_owned() });
            }
        }
        let refused = batch.has_refusal() || verdicts.values().any(Verdict::is_refusal);
        if batch.atomic {
            let end = if refused { "ROLLBACK" } else { "COMMIT" };
            command(connection, during, deadline, end).await?;
        }
        verdicts.extend(new.into_iter().map(|id| (id, Verdict::New)));
        Ok(verdicts)
    };
    let done = work.await;
    let verdicts = if batch.atomic { lease.close_transaction(done) } else { lease.close(done) }?;
    inner.parts.put(part);
    settle(batch, verdicts, repeated);
    Ok(())
}

fn settle(batch: &mut Batch, mut verdicts: HashMap<Uuid, Verdict>, repeated: bool) {
    for row in &mut batch.rows {
        if row.verdict.is_none() {
            row.verdict = verdicts.remove(&row.message.id.0).map(|verdict| match verdict {
                Verdict::Known { created_at, claimed } => {
                    Verdict::Known { created_at, claimed: claimed && repeated }
                }
                other => other,
            });
        }
    }
}

async fn make_partitions(inner: &Inner, batch: &Batch, deadline: Instant) -> Result<(), Fault> {
    let days = || batch.open().filter_map(|row| made_at(row.message.id.0));
    let (Some(first), Some(last)) = (days().min(), days().max()) else { return Ok(()) };
    let query = sqlx::query(MAKE_PARTITIONS).bind(first).bind(last);
    inner.work.write("making partitions", deadline, query).await.map(drop)
}

/// The time in a UUIDv7.
fn made_at(id: Uuid) -> Option<i64> {
    i64::try_from(id.as_u128() >> 80).ok()
}

/// Nothing is handed over: slots go back, and claims that may have been written are given back when that can be told.
fn give_up(inner: &Inner, batch: &mut Batch, started: Timestamp, unknown: bool) {
    let mut unused = Vec::new();
    for row in &mut batch.rows {
        unused.extend(row.lease.filter(|_| unknown).map(|lease| claim(inner, row, started, lease)));
        release(inner, row);
    }
    inner.signals.unused(unused);
}

fn release(inner: &Inner, row: &mut Row) {
    let target = &row.message.target;
    if row.lease.take().is_some() {
        inner.ports.slots.give_back(target);
    }
    if row.publish.take().is_some()
        && let Some(outbox) = &inner.ports.outbox
    {
        outbox.not_written(target);
    }
}

/// The claim that `row` was written under. Its end by this node's clock: counted from before the write, so it is not late.
fn claim(inner: &Inner, row: &Row, started: Timestamp, lease: Duration) -> Claim {
    Claim {
        message: row.message.id,
        owner: inner.ports.node,
        term: 0,
        attempt: 1,
        lease_end: started.plus(lease),
    }
}

/// What was committed goes to the dispatcher, to the broker, or waits.
fn hand_over(inner: &Inner, batch: &mut Batch, started: Timestamp) {
    let (mut claimed, mut outgoing) = (Vec::new(), Vec::new());
    let (mut due, mut later) = (std::collections::BTreeSet::new(), None::<Timestamp>);
    for row in &mut batch.rows {
        let (new, ours) = match row.verdict {
            Some(Verdict::New) => (true, true),
            Some(Verdict::Known { claimed, .. }) => (false, claimed),
            _ => (false, false),
        };
        if new {
            inner.depths.add(&row.message.target, 1);
        }
        if let Some(lease) = row.lease.filter(|_| ours) {
            let claim = claim(inner, row, started, lease);
            claimed.push(Claimed { claim, message: row.message.to_message(), retry_count: 0 });
            continue;
        }
        if new && row.publish.is_some() {
            let (id, priority) = (row.message.id, row.message.priority);
            outgoing.push(Outgoing { id, target: row.message.target.clone(), priority });
            continue;
        }
        release(inner, row);
        if new {
            if is_due(&row.message, started) {
                due.insert(row.message.target.clone());
            } else {
                let at = row.message.due_at();
                later = Some(later.map_or(at, |first| first.min(at)));
            }
        }
    }
    if let Some(outbox) = inner.ports.outbox.as_ref().filter(|_| !outgoing.is_empty()) {
        outbox.publish(outgoing);
    }
    inner.signals.waits(due, later);
    if !claimed.is_empty() {
        let targets: Vec<_> = claimed.iter().map(|one| one.message.target.clone()).collect();
        if !inner.signals.claimed(claimed) {
            targets.iter().for_each(|target| inner.ports.slots.give_back(target));
        }
    }
}
