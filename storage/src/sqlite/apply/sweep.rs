//! Ending what has reached its end, and deleting what is past its retention.

use hub_core::delivery::DeadReason;
use hub_core::id::MessageId;
use hub_core::message::{Status, Transition};
use hub_core::port::SweepReport;
use hub_core::time::Timestamp;

use super::insert::KEY_LIFETIME;
use super::work::{Ending, Work};
use crate::sqlite::bulk::Bulk;
use crate::sqlite::command::Sweep;
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, blob, open_columns};

const ENDED: &str = concat!(
    "SELECT ",
    open_columns!(),
    " FROM deliveries d INDEXED BY deliveries_end ",
    "WHERE d.owner IS NULL AND d.ends_at <= ?1 ORDER BY d.ends_at, d.id LIMIT ?2"
);

const OLD: &str = "SELECT m.seq, m.id FROM messages m INDEXED BY messages_final \
     WHERE m.status IN ('delivered', 'cancelled', 'expired', 'discarded') AND m.processed_at <= ?1 \
     ORDER BY m.processed_at, m.seq LIMIT ?2";

const OLD_KEYS: &str = "DELETE FROM idempotency WHERE (caller, key) IN (SELECT i.caller, i.key \
     FROM idempotency i INDEXED BY idempotency_age WHERE i.stored_at <= ?1 \
     ORDER BY i.stored_at, i.caller, i.key LIMIT ?2)";

const NEXT: &str = "SELECT min(d.ends_at) FROM deliveries d INDEXED BY deliveries_end WHERE d.owner IS NULL";

static DROP_MESSAGES: Bulk =
    Bulk::new("deleting old messages", "DELETE FROM messages WHERE seq IN (", "?", ")");
static DROP_ATTEMPTS: Bulk =
    Bulk::new("deleting old attempts", "DELETE FROM attempts WHERE id IN (", "?", ")");

impl Work<'_> {
    pub(super) async fn sweep(&mut self, sweep: Sweep) -> Result<SweepReport, Fault> {
        let clock = self.clock();
        self.flush().await?;
        let lapsed = self.lapse_all(sweep.limit).await?;
        self.flush().await?;
        let ended = self.select(sqlx::query(ENDED).bind(clock.as_millis()).bind(sweep.limit)).await?;
        let mut report = SweepReport::default();
        for id in &ended {
            self.end_of_time(*id, &sweep, &mut report);
        }
        self.flush().await?;
        let pruned = self.prune(clock.minus(sweep.retention), sweep.limit).await?;
        report.pruned = u64::try_from(pruned).unwrap_or(u64::MAX);
        let keys = self.forget_keys(clock.minus(KEY_LIFETIME), sweep.limit).await?;
        let full = |count: usize| u32::try_from(count).unwrap_or(u32::MAX) >= sweep.limit;
        report.more = sweep.limit > 0 && (full(lapsed) || full(ended.len()) || full(pruned) || full(keys));
        let next: Option<i64> = sqlx::query_scalar(NEXT)
            .fetch_one(&mut *self.connection)
            .await
            .map_err(Fault::sql("looking for the next end"))?;
        report.next = next.map(Timestamp::from_millis);
        Ok(report)
    }

    fn end_of_time(&mut self, id: MessageId, sweep: &Sweep, report: &mut SweepReport) {
        let clock = self.clock();
        let Some(open) = self.slots.get(&id).and_then(|slot| slot.open.as_ref()) else { return };
        if open.expires_at.is_some_and(|expires| expires <= clock) {
            if let Some(status) = open.status.after(Transition::Expire, false) {
                report.expired += u64::from(self.end(id, Ending::plain(status)));
            }
            return;
        }
        let gone = sweep.gone.contains(&open.target);
        let reason = if gone { DeadReason::NoTarget } else { DeadReason::TooOld };
        if let Some(status) = open.status.after(Transition::Bury, false) {
            let ending = Ending { reason: Some(reason.as_str()), ..Ending::plain(status) };
            report.buried += u64::from(status == Status::DeadLetter && self.end(id, ending));
        }
    }

    async fn prune(&mut self, before: Timestamp, limit: u32) -> Result<usize, Fault> {
        let rows = sqlx::query(OLD)
            .bind(before.as_millis())
            .bind(limit)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(Fault::sql("looking for old messages"))?;
        let mut old = Vec::with_capacity(rows.len());
        for found in &rows {
            let seq: i64 = row::get(found, 0, "seq")?;
            old.push((seq, row::message_id(row::get(found, 1, "id")?)?));
        }
        DROP_ATTEMPTS.execute(self.connection, &old, |query, (_, id)| query.bind(blob(*id))).await?;
        DROP_MESSAGES.execute(self.connection, &old, |query, (seq, _)| query.bind(*seq)).await?;
        for (_, id) in &old {
            self.slots.remove(id);
        }
        Ok(old.len())
    }

    async fn forget_keys(&mut self, before: Timestamp, limit: u32) -> Result<usize, Fault> {
        let done = sqlx::query(OLD_KEYS)
            .bind(before.as_millis())
            .bind(limit)
            .execute(&mut *self.connection)
            .await
            .map_err(Fault::sql("deleting old idempotency keys"))?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }
}
