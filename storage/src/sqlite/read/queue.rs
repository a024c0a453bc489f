//! What the queue and the sweeper ask before they propose anything.

use std::collections::BTreeSet;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::time::Timestamp;

use super::Reader;
use crate::sqlite::fault::Fault;
use crate::sqlite::row;

/// The earliest due time of each target that has waiting messages: one look into the index for each priority.
const WAITING: &str = "SELECT b.target, min((SELECT min(d.due) FROM deliveries d INDEXED BY deliveries_due \
      WHERE d.target = b.target AND d.priority = p.priority AND d.owner IS NULL)) \
     FROM backlog b CROSS JOIN (SELECT 0 AS priority UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 \
      UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 \
      UNION ALL SELECT 9) p \
     WHERE b.depth > b.in_flight GROUP BY b.target";

const LEASES: &str = "SELECT d.target, min(d.lease_end) FROM deliveries d INDEXED BY deliveries_lease \
     WHERE d.owner IS NOT NULL GROUP BY d.target";

const ENDED_TARGETS: &str = "SELECT DISTINCT e.target FROM (SELECT d.target FROM deliveries d \
     INDEXED BY deliveries_end WHERE d.owner IS NULL AND d.ends_at <= ?1 ORDER BY d.ends_at, d.id LIMIT ?2) e";

const ANY_WORK: &str = "SELECT \
     EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_end WHERE d.owner IS NULL AND d.ends_at <= ?1) \
     OR EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_lease \
      WHERE d.owner IS NOT NULL AND d.lease_end <= ?1) \
     OR EXISTS (SELECT 1 FROM messages m INDEXED BY messages_final \
      WHERE m.status IN ('delivered', 'cancelled', 'expired', 'discarded') AND m.processed_at <= ?2) \
     OR EXISTS (SELECT 1 FROM idempotency i INDEXED BY idempotency_age WHERE i.stored_at <= ?3), \
     (SELECT min(d.ends_at) FROM deliveries d INDEXED BY deliveries_end WHERE d.owner IS NULL)";

/// What a sweep would find.
#[derive(Debug)]
pub(in crate::sqlite) struct Endings {
    /// There is something to do.
    pub(in crate::sqlite) work: bool,
    /// Targets of messages that have reached an end.
    pub(in crate::sqlite) targets: Vec<ServiceName>,
    /// When the next message reaches an end.
    pub(in crate::sqlite) next: Option<Timestamp>,
}

impl Reader {
    /// Targets with due messages (leases that ran out included), and when the next of the others becomes due.
    pub(in crate::sqlite) async fn due(
        &self,
        now: Timestamp,
    ) -> Result<(Vec<ServiceName>, Option<Timestamp>), Fault> {
        let pool = self.pool();
        let mut due = BTreeSet::new();
        let mut next: Option<Timestamp> = None;
        for text in [WAITING, LEASES] {
            let rows =
                sqlx::query(text).fetch_all(&pool).await.map_err(Fault::sql("looking for due messages"))?;
            for found in &rows {
                let Some(at) = row::optional_time(found, 1, "due")? else { continue };
                if at <= now {
                    due.insert(row::service(found, 0, "target")?);
                } else {
                    next = Some(next.map_or(at, |other| other.min(at)));
                }
            }
        }
        Ok((due.into_iter().collect(), next))
    }

    /// What a sweep at `now` would find, at most `limit` messages deep.
    pub(in crate::sqlite) async fn endings(
        &self,
        now: Timestamp,
        retention: Duration,
        key_lifetime: Duration,
        limit: u32,
    ) -> Result<Endings, Fault> {
        let during = "looking for messages that reached an end";
        let pool = self.pool();
        let found = sqlx::query(ANY_WORK)
            .bind(now.as_millis())
            .bind(now.minus(retention).as_millis())
            .bind(now.minus(key_lifetime).as_millis())
            .fetch_one(&pool)
            .await
            .map_err(Fault::sql(during))?;
        let work: bool = row::get(&found, 0, "work")?;
        let next = row::optional_time(&found, 1, "ends_at")?;
        let mut targets = Vec::new();
        if work {
            let rows = sqlx::query(ENDED_TARGETS)
                .bind(now.as_millis())
                .bind(limit)
                .fetch_all(&pool)
                .await
                .map_err(Fault::sql(during))?;
            targets = rows.iter().map(|found| row::service(found, 0, "target")).collect::<Result<_, _>>()?;
        }
        Ok(Endings { work, targets, next })
    }
}
