//! What is known already of messages that were not new.

use std::collections::HashMap;
use std::time::Instant;

use hub_core::id::NodeId;
use hub_core::time::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::batch::{Row, Verdict};
use crate::postgres::fault::{Fault, within};
use crate::postgres::{row, text};

pub(in crate::postgres) const KNOWN: &str = include_str!("../sql/known.sql");

/// What the database has under an id.
struct ById {
    created_at: Timestamp,
    claimed: bool,
}

/// What the database has under a key.
struct ByKey {
    id: Uuid,
    accepted_at: Timestamp,
    fingerprint: Vec<u8>,
}

/// Verdicts for those of `rows` that are known: by their ids, else by their keys.
pub(super) async fn known(
    connection: &mut PgConnection,
    rows: &[&Row],
    node: NodeId,
    deadline: Instant,
) -> Result<HashMap<Uuid, Verdict>, Fault> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.message.id.0).collect();
    let key = |row: &&Row| row.message.idempotency.clone();
    let callers: Vec<Option<String>> =
        rows.iter().map(|row| Some(text::exact(&key(row)?.caller).into_owned())).collect();
    let keys: Vec<Option<String>> =
        rows.iter().map(|row| Some(text::exact(&key(row)?.key).into_owned())).collect();
    let query = sqlx::query(KNOWN).bind(ids).bind(callers).bind(keys).fetch_all(connection);
    let found = within("looking messages up", deadline, query).await?;
    let (mut by_id, mut by_key) = (HashMap::new(), HashMap::new());
    for found in &found {
        let asked: Uuid = row::get(found, 1)?;
        let at = row::time(found, 3)?;
        if row::get::<i32>(found, 0)? == 0 {
            let owner: Option<i64> = row::get(found, 5)?;
            let attempt: Option<i32> = row::get(found, 6)?;
            let claimed = owner == Some(node.0.cast_signed()) && attempt == Some(1);
            by_id.insert(asked, ById { created_at: at, claimed });
        } else {
            let fingerprint = row::get(found, 4)?;
            by_key.insert(asked, ByKey { id: row::get(found, 2)?, accepted_at: at, fingerprint });
        }
    }
    let mut verdicts = HashMap::new();
    for row in rows {
        let id = row.message.id.0;
        let verdict = match (by_id.get(&id), by_key.get(&id), &row.message.idempotency) {
            (Some(known), ..) => Verdict::Known { created_at: known.created_at, claimed: known.claimed },
            (None, Some(first), Some(key)) if first.fingerprint == key.fingerprint.0 => {
                Verdict::Replayed { id: first.id, created_at: first.accepted_at }
            }
            (None, Some(_), _) => Verdict::KeyReused,
            (None, None, _) => continue,
        };
        verdicts.insert(id, verdict);
    }
    Ok(verdicts)
}
