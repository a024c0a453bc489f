//! Handing out claims on what is due.

use std::collections::BTreeMap;
use std::time::Duration;

use hub_core::id::{MessageId, NodeId, RequestId, ServiceName};
use hub_core::message::{Status, Transition};

use super::work::{Ending, Work};
use crate::sqlite::command::{ClaimDue, Granted};
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{Hold, Open, open_columns};

/// Most leases that one command finds to have run out.
const LAPSES: u32 = 1_000;

/// Most messages that one command finds to be past their end.
const ENDINGS: usize = 1_000;

/// Due messages of a target, by the time they became due. Asked for one
/// priority at a time, so that it walks one stretch of the index and stops: a sort over a backlog of millions would not.
const DUE: &str = concat!(
    "SELECT ",
    open_columns!(),
    " FROM deliveries d INDEXED BY deliveries_due ",
    "WHERE d.target = ?1 AND d.priority = ?2 AND d.owner IS NULL AND d.due <= ?3 ",
    "ORDER BY d.due, d.id LIMIT ?4"
);

const LAPSED: &str = concat!(
    "SELECT ",
    open_columns!(),
    " FROM deliveries d INDEXED BY deliveries_lease ",
    "WHERE d.owner IS NOT NULL AND d.lease_end <= ?1 ORDER BY d.lease_end, d.id LIMIT ?2"
);

/// Priorities that a target has due messages in.
const PRIORITIES: &str = "SELECT p.priority FROM \
     (SELECT 9 AS priority UNION ALL SELECT 8 UNION ALL SELECT 7 UNION ALL SELECT 6 UNION ALL SELECT 5 \
      UNION ALL SELECT 4 UNION ALL SELECT 3 UNION ALL SELECT 2 UNION ALL SELECT 1 UNION ALL SELECT 0) p \
     WHERE EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_due \
      WHERE d.target = ?1 AND d.priority = p.priority AND d.owner IS NULL AND d.due <= ?2)";

/// One command on its way through the targets.
struct Round {
    owner: NodeId,
    term: u64,
    /// How many more messages it may find to be past their end.
    endings: usize,
    granted: Vec<Granted>,
}

impl Work<'_> {
    pub(super) async fn claim(&mut self, claim: ClaimDue, request: RequestId) -> Result<Vec<Granted>, Fault> {
        self.flush().await?;
        if self.lapse_all(LAPSES).await? > 0 {
            self.flush().await?;
        }
        let mut wants: BTreeMap<ServiceName, (u32, Duration)> = BTreeMap::new();
        for want in claim.wants {
            let entry = wants.entry(want.target).or_insert((0, want.lease));
            entry.0 = entry.0.saturating_add(want.count);
        }
        let mut round = Round { owner: claim.owner, term: claim.term, endings: ENDINGS, granted: Vec::new() };
        for (target, (count, lease)) in wants {
            self.claim_of(&target, count, lease, &mut round).await?;
        }
        let granted = round.granted;
        if claim.owner == self.node {
            let claims = granted.iter().map(|one| one.claim(claim.owner, claim.term)).collect();
            self.effects.granted.push((request, claims));
        }
        Ok(granted)
    }

    /// Takes away claims whose leases have run out; how many.
    pub(super) async fn lapse_all(&mut self, limit: u32) -> Result<usize, Fault> {
        let lapsed = self.select(sqlx::query(LAPSED).bind(self.clock().as_millis()).bind(limit)).await?;
        for id in &lapsed {
            self.lapse(*id);
        }
        Ok(lapsed.len())
    }

    async fn claim_of(
        &mut self,
        target: &ServiceName,
        count: u32,
        lease: Duration,
        round: &mut Round,
    ) -> Result<(), Fault> {
        let clock = self.clock();
        let waiting = self
            .ledger
            .backlog
            .get(target)
            .map_or(0, |counters| counters.depth.saturating_sub(counters.in_flight));
        if waiting == 0 || count == 0 {
            return Ok(());
        }
        let hold =
            Hold { owner: round.owner, term: round.term, claimed_at: clock, lease_end: clock.plus(lease) };
        let mut left = count;
        for priority in self.due_priorities(target).await? {
            while left > 0 {
                let due = sqlx::query(DUE)
                    .bind(target.as_str().to_owned())
                    .bind(priority)
                    .bind(clock.as_millis())
                    .bind(left);
                let found = self.select(due).await?;
                let before = round.endings;
                for id in &found {
                    if let Some(one) = self.claim_one(*id, hold, &mut round.endings) {
                        round.granted.push(one);
                        left -= 1;
                    }
                }
                if round.endings == before {
                    break;
                }
                // Those that were past their end made room for others.
                self.flush().await?;
            }
        }
        if round.endings == 0 && left > 0 {
            // There may be more behind them: it is asked again.
            self.effects.waits(target, clock, clock);
        }
        Ok(())
    }

    /// Claims one message, or ends it (where `endings` allow that) if no attempt may start any more.
    fn claim_one(&mut self, id: MessageId, hold: Hold, endings: &mut usize) -> Option<Granted> {
        let open = self.slots.get(&id)?.open.as_ref()?;
        if open.expires_at.is_some_and(|expires| expires <= hold.claimed_at) {
            let status = open.status.after(Transition::Expire, false).unwrap_or(Status::Expired);
            if let Some(left) = endings.checked_sub(1) {
                *endings = left;
                self.end(id, Ending::plain(status));
            }
            return None;
        }
        let (attempt, retry_count) = (open.attempt.saturating_add(1), open.retry_count);
        self.hold(id, attempt, hold).then_some(Granted {
            message: id,
            attempt,
            lease_end: hold.lease_end,
            retry_count,
        })
    }

    async fn due_priorities(&mut self, target: &ServiceName) -> Result<Vec<u8>, Fault> {
        sqlx::query_scalar(PRIORITIES)
            .bind(target.as_str().to_owned())
            .bind(self.clock().as_millis())
            .fetch_all(&mut *self.connection)
            .await
            .map_err(Fault::sql("looking for due messages"))
    }

    /// Open rows by a query that gives `OPEN_COLUMNS`, taken into the set.
    pub(super) async fn select(
        &mut self,
        query: crate::sqlite::bulk::Query,
    ) -> Result<Vec<MessageId>, Fault> {
        let rows =
            query.fetch_all(&mut *self.connection).await.map_err(Fault::sql("looking for messages"))?;
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(open) = Open::read(row, 0)? {
                ids.push(self.adopt(open));
            }
        }
        Ok(ids)
    }
}
