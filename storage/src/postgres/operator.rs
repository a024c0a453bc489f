//! What senders and operators do to a message: cancel, replay, discard. Each is one transaction on the locked rows of the
//! message. It carries a request id, so that it can be sent again when its outcome is unknown, and answers the same.

use std::time::{Duration, Instant};

use hub_core::id::{MessageId, RequestId};
use hub_core::message::{Status, Transition};
use hub_core::port::{CancelOutcome, DeadLetterOutcome, StoreError};
use sqlx::PgConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use uuid::Uuid;

use super::fault::{Fault, command, within};
use super::row;
use super::store::Inner;

pub(super) const OPEN: &str = "SELECT d.status, d.retry_count, d.may_have_arrived, d.owner IS NOT NULL AND d.lease_end <= hub_now() \
     FROM deliveries d WHERE d.id = $1 FOR UPDATE";
pub(super) const MESSAGE: &str = "SELECT m.status, m.may_have_arrived, m.last_request, m.target_service, \
     m.expires_at IS NOT NULL AND m.expires_at <= hub_now() FROM messages m WHERE m.id = $1 FOR UPDATE";

/// Takes away a claim whose lease has run out; nobody knows what its node did.
pub(super) const LAPSE: &str = "WITH noted AS (INSERT INTO attempts (id, number, node, started_at, duration_ms, outcome, error_class) \
      SELECT d.id, d.attempt, d.owner, d.claimed_at, hub_millis(d.lease_end) - hub_millis(d.claimed_at), 'no_answer', \
       'lease_expired' FROM deliveries d WHERE d.id = $1 ON CONFLICT (id, number) DO NOTHING) \
     UPDATE deliveries d SET may_have_arrived = true, \
      error_message = 'the node that made the attempt did not report how it ended' WHERE d.id = $1";
pub(super) const CANCEL: &str = "WITH gone AS (DELETE FROM deliveries d WHERE d.id = $1 RETURNING d.*), \
     ended AS (UPDATE messages m SET status = $2, processed_at = hub_now(), retry_count = g.retry_count, \
      attempt = g.attempt, may_have_arrived = g.may_have_arrived, error_message = g.error_message, last_request = $3 \
      FROM gone g WHERE m.id = ANY (ARRAY[g.id])), \
     rare AS (INSERT INTO endings (id, target, status, ended_at) SELECT g.id, g.target, $2, hub_now() FROM gone g) \
     INSERT INTO backlog AS b (target, slot, depth, in_flight, touched_at) \
     SELECT g.target, $4::int8, -1, -(g.owner IS NOT NULL)::int, hub_now() FROM gone g \
     ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth, \
      in_flight = b.in_flight + excluded.in_flight, touched_at = excluded.touched_at";
/// A replayed message gets the whole of its time again.
pub(super) const REPLAY: &str = "WITH again AS (UPDATE messages m SET status = $2, processed_at = NULL, retry_count = 0, \
      dead_reason = NULL, error_message = NULL, last_request = $3 WHERE m.id = $1 RETURNING m.*), \
     opened AS (INSERT INTO deliveries (id, target, priority, status, created_at, due, expires_at, ends_at, attempt, \
       may_have_arrived) \
      SELECT a.id, a.target_service, a.priority, $2, a.created_at, hub_now(), a.expires_at, \
       least(a.expires_at, hub_now() + (a.too_old_at - a.created_at)), a.attempt, a.may_have_arrived FROM again a), \
     alive AS (DELETE FROM endings e WHERE e.id = $1) \
     INSERT INTO backlog AS b (target, slot, depth, dead_letters, touched_at) \
     SELECT a.target_service, $4::int8, 1, -1, hub_now() FROM again a \
     ON CONFLICT (target, slot) DO UPDATE SET depth = b.depth + excluded.depth, \
      dead_letters = b.dead_letters + excluded.dead_letters, touched_at = excluded.touched_at";
pub(super) const DISCARD: &str = "WITH ended AS (UPDATE messages m SET status = $2, processed_at = hub_now(), last_request = $3 \
      WHERE m.id = $1 RETURNING m.id, m.target_service), \
     rare AS (UPDATE endings e SET status = $2, ended_at = hub_now() WHERE e.id = $1) \
     INSERT INTO backlog AS b (target, slot, dead_letters, touched_at) \
     SELECT a.target_service, $4::int8, -1, hub_now() FROM ended a \
     ON CONFLICT (target, slot) DO UPDATE SET dead_letters = b.dead_letters + excluded.dead_letters, \
      touched_at = excluded.touched_at";

/// The pause before the same is tried again.
const PAUSE_MS: u64 = 50;

type Statement<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// What is to be done to a message.
#[derive(Clone, Copy)]
enum Order {
    Cancel,
    Replay,
    Discard,
}

/// What came of it.
enum Done {
    Cancelled { may_have_arrived: bool },
    Moved(Status),
    Conflict(Status),
    Expired,
    NotFound,
}

/// The rows of a message, locked.
struct Rows {
    open: Option<Open>,
    status: Status,
    may_have_arrived: bool,
    last_request: Option<Uuid>,
    expired: bool,
}

struct Open {
    status: Status,
    retried: bool,
    may_have_arrived: bool,
    lapsed: bool,
}

/// Cancels a message that no node holds a claim on.
pub(super) async fn cancel(
    inner: &Inner,
    id: MessageId,
    deadline: Instant,
) -> Result<CancelOutcome, StoreError> {
    Ok(match carry_out(inner, Order::Cancel, id, deadline).await? {
        Done::Cancelled { may_have_arrived } => CancelOutcome::Cancelled { may_have_arrived },
        Done::Conflict(status) | Done::Moved(status) => CancelOutcome::Conflict(status),
        Done::Expired => CancelOutcome::Conflict(Status::Expired),
        Done::NotFound => CancelOutcome::NotFound,
    })
}

/// Sends a dead letter again.
pub(super) async fn replay(
    inner: &Inner,
    id: MessageId,
    deadline: Instant,
) -> Result<DeadLetterOutcome, StoreError> {
    carry_out(inner, Order::Replay, id, deadline).await.map(dead_letter)
}

/// Throws a dead letter away.
pub(super) async fn discard(
    inner: &Inner,
    id: MessageId,
    deadline: Instant,
) -> Result<DeadLetterOutcome, StoreError> {
    carry_out(inner, Order::Discard, id, deadline).await.map(dead_letter)
}

const fn dead_letter(done: Done) -> DeadLetterOutcome {
    match done {
        Done::Moved(status) => DeadLetterOutcome::Done(status),
        Done::Conflict(status) => DeadLetterOutcome::Conflict(status),
        Done::Cancelled { .. } => DeadLetterOutcome::Conflict(Status::Cancelled),
        Done::Expired => DeadLetterOutcome::Expired,
        Done::NotFound => DeadLetterOutcome::NotFound,
    }
}

async fn carry_out(
    inner: &Inner,
    order: Order,
    id: MessageId,
    deadline: Instant,
) -> Result<Done, StoreError> {
    let request = inner.ports.ids.request_id();
    let mut unknown = false;
    loop {
        let fault = match attempt(inner, order, id, request, deadline).await {
            Ok(done) => {
                if matches!((order, &done), (Order::Replay, Done::Moved(_))) {
                    // It is due at once: whoever has a slot may look.
                    inner.signals.waits([], Some(inner.ports.clock.now()));
                }
                return Ok(done);
            }
            Err(fault) => fault,
        };
        unknown |= matches!(fault, Fault::Lost { .. });
        let again = fault.is_collision() || unknown;
        let pause = Duration::from_millis(PAUSE_MS / 2 + inner.ports.ids.below(PAUSE_MS));
        if !again || inner.ports.clock.instant() + pause >= deadline {
            let error = StoreError::from(fault);
            return Err(if unknown { StoreError::Unknown(error.to_string()) } else { error });
        }
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(
    inner: &Inner,
    order: Order,
    id: MessageId,
    request: RequestId,
    deadline: Instant,
) -> Result<Done, Fault> {
    let during = "changing a message";
    let part = inner.parts.take();
    let mut lease = inner.work.acquire(deadline).await?;
    let connection = lease.connection();
    let work = async {
        command(connection, during, deadline, "BEGIN").await?;
        let done = match rows(connection, id, deadline).await? {
            Some(rows) => decide(connection, order, rows, (id, request, part.number), deadline).await?,
            None => Done::NotFound,
        };
        command(connection, during, deadline, "COMMIT").await?;
        Ok(done)
    };
    let done = work.await;
    let done = lease.close_transaction(done)?;
    inner.parts.put(part);
    Ok(done)
}

/// Locks the open row first, as every statement does that touches both.
async fn rows(
    connection: &mut PgConnection,
    id: MessageId,
    deadline: Instant,
) -> Result<Option<Rows>, Fault> {
    let during = "reading a message";
    let open = sqlx::query(OPEN).bind(id.0).fetch_optional(&mut *connection);
    let open = within(during, deadline, open).await?;
    let message = sqlx::query(MESSAGE).bind(id.0).fetch_optional(&mut *connection);
    let Some(message) = within(during, deadline, message).await? else { return Ok(None) };
    let read_open = |found: &PgRow| {
        Ok::<_, Fault>(Open {
            status: row::status(found, 0)?,
            retried: row::get::<i32>(found, 1)? > 0,
            may_have_arrived: row::get(found, 2)?,
            lapsed: row::get(found, 3)?,
        })
    };
    Ok(Some(Rows {
        open: open.as_ref().map(read_open).transpose()?,
        status: row::status(&message, 0)?,
        may_have_arrived: row::get(&message, 1)?,
        last_request: row::get(&message, 2)?,
        expired: row::get(&message, 4)?,
    }))
}

async fn decide(
    connection: &mut PgConnection,
    order: Order,
    rows: Rows,
    names: (MessageId, RequestId, i64),
    deadline: Instant,
) -> Result<Done, Fault> {
    let repeated = rows.last_request == Some(names.1.0);
    let status = rows.open.as_ref().map_or(rows.status, |open| open.status);
    match order {
        Order::Cancel => cancel_rows(connection, rows, repeated, names, deadline).await,
        Order::Replay | Order::Discard if repeated => Ok(Done::Moved(status)),
        Order::Replay => {
            let Some(next) = status.after(Transition::Replay, false) else {
                return Ok(Done::Conflict(status));
            };
            if rows.expired {
                return Ok(Done::Expired);
            }
            change(connection, sqlx::query(REPLAY), next, names, deadline).await?;
            Ok(Done::Moved(next))
        }
        Order::Discard => {
            let Some(next) = status.after(Transition::Discard, false) else {
                return Ok(Done::Conflict(status));
            };
            change(connection, sqlx::query(DISCARD), next, names, deadline).await?;
            Ok(Done::Moved(next))
        }
    }
}

async fn cancel_rows(
    connection: &mut PgConnection,
    rows: Rows,
    repeated: bool,
    names: (MessageId, RequestId, i64),
    deadline: Instant,
) -> Result<Done, Fault> {
    let Some(open) = rows.open else {
        return Ok(if repeated && rows.status == Status::Cancelled {
            Done::Cancelled { may_have_arrived: rows.may_have_arrived }
        } else {
            Done::Conflict(rows.status)
        });
    };
    let waiting =
        if open.lapsed { open.status.after(Transition::Release, open.retried) } else { Some(open.status) };
    let Some(next) = waiting.and_then(|status| status.after(Transition::Cancel, open.retried)) else {
        return Ok(Done::Conflict(open.status));
    };
    if open.lapsed {
        let lapse = sqlx::query(LAPSE).bind(names.0.0).execute(&mut *connection);
        within("ending a lease", deadline, lapse).await?;
    }
    change(connection, sqlx::query(CANCEL), next, names, deadline).await?;
    Ok(Done::Cancelled { may_have_arrived: open.may_have_arrived || open.lapsed })
}

async fn change(
    connection: &mut PgConnection,
    statement: Statement<'_>,
    next: Status,
    (id, request, part): (MessageId, RequestId, i64),
    deadline: Instant,
) -> Result<(), Fault> {
    let query = statement.bind(id.0).bind(next.as_str()).bind(request.0).bind(part);
    within("changing a message", deadline, query.execute(connection)).await.map(drop)
}
