//! Ending attempts.

use hub_core::delivery::{Claim, SettleOutcome, Settlement};
use hub_core::message::{Attempt, Status, Transition};
use hub_core::time::Timestamp;

use super::work::{Ending, Work};
use crate::sqlite::fault::Fault;
use crate::sqlite::row::{self, blob};

impl Work<'_> {
    /// `true` for each that took effect, now or (the same settlement, asked again) before.
    pub(super) async fn settle(&mut self, settlements: Vec<Settlement>) -> Result<Vec<bool>, Fault> {
        let mut results = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            let done = if self.holds(&settlement.claim) {
                self.settle_one(settlement)
            } else {
                let repeated = self.settled_before(&settlement).await?;
                self.ledger.late_settles += u64::from(!repeated);
                repeated
            };
            results.push(done);
        }
        Ok(results)
    }

    fn holds(&self, claim: &Claim) -> bool {
        let open = self.slots.get(&claim.message).and_then(|slot| slot.open.as_ref());
        open.is_some_and(|open| {
            open.attempt == claim.attempt
                && open.hold.is_some_and(|hold| (hold.owner, hold.term) == (claim.owner, claim.term))
        })
    }

    fn settle_one(&mut self, settlement: Settlement) -> bool {
        let id = settlement.claim.message;
        let unanswered = match &settlement.attempt {
            Some(attempt) => attempt.outcome.may_have_arrived(),
            // A retry without a word about the attempt: nobody knows.
            None => matches!(settlement.outcome, SettleOutcome::RetryAt { .. }),
        };
        if unanswered {
            self.change(id, |open| open.may_have_arrived = true);
        }
        let done = match settlement.outcome {
            SettleOutcome::Delivered => self.finish(id, Transition::Deliver, None, settlement.error),
            SettleOutcome::Dead(reason) => {
                self.finish(id, Transition::Bury, Some(reason.as_str()), settlement.error)
            }
            SettleOutcome::Expired => self.finish(id, Transition::Expire, None, settlement.error),
            SettleOutcome::Released => self.let_go(id, Transition::Release, None),
            SettleOutcome::RetryAt { at, counted } => self.retry(id, at, counted, settlement.error),
        };
        if done && let Some(attempt) = settlement.attempt {
            self.attempts.push((id, Attempt { number: settlement.claim.attempt, ..attempt }));
        }
        done
    }

    fn finish(
        &mut self,
        id: hub_core::id::MessageId,
        transition: Transition,
        reason: Option<&'static str>,
        error: Option<std::sync::Arc<str>>,
    ) -> bool {
        let next = self.status(id).and_then(|status| status.after(transition, true));
        if next == Some(Status::Delivered) {
            self.change(id, |open| open.error = None);
        }
        next.is_some_and(|status| self.end(id, Ending { status, reason, error, request: None }))
    }

    fn retry(
        &mut self,
        id: hub_core::id::MessageId,
        at: Timestamp,
        counted: bool,
        error: Option<std::sync::Arc<str>>,
    ) -> bool {
        if !self.let_go(id, Transition::Retry, Some(at)) {
            return false;
        }
        self.change(id, |open| {
            open.retry_count = open.retry_count.saturating_add(u32::from(counted));
            open.error = error;
        });
        true
    }

    /// The attempt's row says so: its answer was lost on the way, and it is asked again.
    async fn settled_before(&mut self, settlement: &Settlement) -> Result<bool, Fault> {
        let (id, claim) = (settlement.claim.message, &settlement.claim);
        let Some(attempt) = &settlement.attempt else { return Ok(false) };
        let same = |node: u64, started_at: i64, outcome: &str| {
            node == attempt.node.0
                && started_at == attempt.started_at.as_millis()
                && outcome == attempt.outcome.as_str()
        };
        let waiting = self.attempts.iter().rfind(|(of, other)| *of == id && other.number == claim.attempt);
        if let Some((_, other)) = waiting {
            return Ok(same(other.node.0, other.started_at.as_millis(), other.outcome.as_str()));
        }
        let found = sqlx::query("SELECT node, started_at, outcome FROM attempts WHERE id = ? AND number = ?")
            .bind(blob(id))
            .bind(claim.attempt)
            .fetch_optional(&mut *self.connection)
            .await
            .map_err(Fault::sql("reading an attempt"))?;
        let Some(found) = found else { return Ok(false) };
        let node: i64 = row::get(&found, 0, "node")?;
        Ok(same(node.cast_unsigned(), row::get(&found, 1, "started_at")?, row::get(&found, 2, "outcome")?))
    }
}
