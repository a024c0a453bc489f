//! The invariants of messages and counters over a database, read by SQL of its own.

use std::collections::BTreeMap;
use std::path::Path;

use hub_core::delivery::AttemptOutcome;
use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::invariant::{self, Stored};
use hub_core::port::Backlog;
use hub_core::time::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::dump::open;

fn outcome(word: &str) -> AttemptOutcome {
    use AttemptOutcome as A;
    let all = [A::Delivered, A::Failed, A::Rejected, A::NotSent, A::NoAnswer, A::HubFault];
    all.into_iter().find(|outcome| outcome.as_str() == word).unwrap()
}

fn time(row: &SqliteRow, column: usize) -> Option<Timestamp> {
    row.get::<Option<i64>, _>(column).map(Timestamp::from_millis)
}

fn stored(row: &SqliteRow) -> Stored {
    let id: Vec<u8> = row.get(0);
    Stored {
        id: MessageId(Uuid::from_slice(&id).unwrap()),
        target: row.get::<String, _>(1).parse().unwrap(),
        created_at: time(row, 2).unwrap(),
        status: row.get::<String, _>(3).parse().unwrap(),
        processed_at: time(row, 4),
        retry_count: row.get(5),
        attempt: row.get(6),
        may_have_arrived: row.get(7),
        dead_reason: row.get::<Option<String>, _>(8).map(Into::into),
        owner: row.get::<Option<i64>, _>(9).map(|owner| NodeId(owner.cast_unsigned())),
        attempts: BTreeMap::new(),
    }
}

/// Every message of the database, by id.
pub(crate) async fn messages(folder: &Path) -> BTreeMap<MessageId, Stored> {
    let mut connection = open(folder).await;
    let rows = sqlx::query(
        "SELECT m.id, m.target_service, m.created_at, coalesce(d.status, m.status), m.processed_at, \
         coalesce(d.retry_count, m.retry_count), coalesce(d.attempt, m.attempt), \
         coalesce(d.may_have_arrived, m.may_have_arrived), m.dead_reason, d.owner \
         FROM messages m LEFT JOIN deliveries d USING (id)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut all: BTreeMap<_, _> = rows.iter().map(stored).map(|one| (one.id, one)).collect();
    let rows =
        sqlx::query("SELECT id, number, outcome FROM attempts").fetch_all(&mut connection).await.unwrap();
    for row in rows {
        let id = MessageId(Uuid::from_slice(row.get(0)).unwrap());
        all.get_mut(&id).unwrap().attempts.insert(row.get(1), outcome(row.get(2)));
    }
    all
}

async fn counters(folder: &Path) -> BTreeMap<ServiceName, Backlog> {
    let mut connection = open(folder).await;
    let rows = sqlx::query(
        "SELECT b.target, b.depth, b.in_flight, (SELECT min(created_at) FROM deliveries WHERE target = b.target), \
         b.accepted_total, b.delivered_total, b.dead_letters FROM backlog b",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let number = |row: &SqliteRow, column| row.get::<i64, _>(column).cast_unsigned();
    let backlog = |row: &SqliteRow| Backlog {
        depth: number(row, 1),
        in_flight: number(row, 2),
        oldest: time(row, 3),
        accepted_total: number(row, 4),
        delivered_total: number(row, 5),
        dead_letters: number(row, 6),
    };
    rows.iter().map(|row| (row.get::<String, _>(0).parse().unwrap(), backlog(row))).collect()
}

/// Checks everything, and what became of each message since `before`; the messages as they are now.
pub(crate) async fn audit(
    folder: &Path,
    before: &BTreeMap<MessageId, Stored>,
) -> Result<BTreeMap<MessageId, Stored>, String> {
    let now = messages(folder).await;
    for (id, stored) in &now {
        invariant::message(stored)?;
        if let Some(before) = before.get(id) {
            invariant::message_step(before, stored)?;
        }
    }
    let lost = before.iter().find(|(id, stored)| !stored.status.is_final() && !now.contains_key(id));
    if let Some((id, stored)) = lost {
        return Err(format!("{id} is gone; it was {}", stored.status));
    }
    let all: Vec<_> = now.values().cloned().collect();
    invariant::backlogs(&all, &counters(folder).await)?;
    Ok(now)
}
