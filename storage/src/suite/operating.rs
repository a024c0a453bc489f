//! What senders and operators do.

use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, DeadReason, SettleOutcome};
use hub_core::id::MessageId;
use hub_core::message::Status;
use hub_core::port::{CancelOutcome, Claimed, DeadLetterOutcome};

use super::kit::{LEASE, MAX_AGE, message_id};
use super::{Failure, Stage, Verdict, ensure, ensure_eq};

const CERTAIN: CancelOutcome = CancelOutcome::Cancelled { may_have_arrived: false };
const DOUBTFUL: CancelOutcome = CancelOutcome::Cancelled { may_have_arrived: true };

impl Stage {
    async fn cancel(&self, id: MessageId) -> Result<CancelOutcome, Failure> {
        Ok(self.store.cancel(id, self.deadline()).await?)
    }

    async fn fail(&self, claimed: &Claimed, attempt: AttemptOutcome) -> Result<bool, Failure> {
        let retry = SettleOutcome::RetryAt { at: self.now(), counted: true };
        self.settle(&claimed.claim, retry, attempt).await
    }

    async fn bury(&self, target: &str) -> Result<bool, Failure> {
        let claimed = self.claim_one(target).await?;
        let dead = SettleOutcome::Dead(DeadReason::Exhausted);
        self.settle(&claimed.claim, dead, AttemptOutcome::Failed).await
    }
}

pub(super) async fn cancels_what_waits(stage: &Stage) -> Verdict {
    let waiting = stage.send_one("one").await?;
    ensure_eq!(stage.cancel(waiting).await?, CERTAIN, "a waiting one");
    let record = stage.get(waiting).await?;
    ensure_eq!((record.status, record.processed_at), (Status::Cancelled, Some(stage.now())), "state");
    ensure_eq!(stage.cancel(waiting).await?, CancelOutcome::Conflict(Status::Cancelled), "another request");
    ensure!(stage.claim("one", 1).await?.is_empty(), "claimed after the cancel");
    ensure_eq!(stage.backlog("one").await?.depth, 0, "depth");

    stage.advance(Duration::from_secs(1)).await?;
    let failed = stage.send_one("two").await?;
    let claimed = stage.claim_one("two").await?;
    ensure_eq!(stage.cancel(failed).await?, CancelOutcome::Conflict(Status::Delivering), "a claimed one");
    ensure!(stage.fail(&claimed, AttemptOutcome::Failed).await?, "a retry");
    ensure_eq!(stage.cancel(failed).await?, CERTAIN, "the target answered that it did not take it");

    stage.advance(Duration::from_secs(1)).await?;
    let delivered = stage.send_one("three").await?;
    let claimed = stage.claim_one("three").await?;
    ensure!(stage.deliver(&claimed).await?, "a delivery");
    ensure_eq!(stage.cancel(delivered).await?, CancelOutcome::Conflict(Status::Delivered), "a delivered one");
    let missing = message_id(stage.now(), 999);
    ensure_eq!(stage.cancel(missing).await?, CancelOutcome::NotFound, "one that was never sent");
    Ok(())
}

pub(super) async fn cancels_with_doubt(stage: &Stage) -> Verdict {
    let unanswered = stage.send_one("one").await?;
    let claimed = stage.claim_one("one").await?;
    ensure!(stage.fail(&claimed, AttemptOutcome::NoAnswer).await?, "a retry");
    let claimed = stage.claim_one("one").await?;
    ensure!(stage.fail(&claimed, AttemptOutcome::NotSent).await?, "another retry");
    ensure_eq!(stage.cancel(unanswered).await?, DOUBTFUL, "an earlier attempt had no answer");

    stage.advance(Duration::from_secs(1)).await?;
    let lapsed = stage.send_one("two").await?;
    stage.claim_one("two").await?;
    stage.advance(LEASE).await?;
    ensure_eq!(stage.cancel(lapsed).await?, DOUBTFUL, "its lease ran out: nobody knows what its node did");
    let backlog = stage.backlog("two").await?;
    ensure_eq!((backlog.depth, backlog.in_flight), (0, 0), "counters");

    let reclaimed = stage.send_one("three").await?;
    stage.claim_one("three").await?;
    stage.advance(LEASE).await?;
    let claimed = stage.claim_one("three").await?;
    ensure!(stage.fail(&claimed, AttemptOutcome::NotSent).await?, "a retry");
    ensure_eq!(stage.cancel(reclaimed).await?, DOUBTFUL, "an earlier lease ran out");
    Ok(())
}

pub(super) async fn replays_a_dead_letter(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let claimed = stage.claim_one("target").await?;
    ensure!(stage.fail(&claimed, AttemptOutcome::NoAnswer).await?, "a retry");
    ensure_eq!(
        stage.store.replay(id, stage.deadline()).await?,
        DeadLetterOutcome::Conflict(Status::Retrying),
        "not dead yet"
    );
    ensure!(stage.bury("target").await?, "a burial");
    stage.advance(MAX_AGE).await?;
    let done = DeadLetterOutcome::Done(Status::Pending);
    ensure_eq!(stage.store.replay(id, stage.deadline()).await?, done, "a dead letter");
    let record = stage.get(id).await?;
    ensure_eq!((record.status, record.retry_count, record.attempts.len()), (Status::Pending, 0, 2), "state");
    ensure_eq!((record.processed_at, record.dead_reason), (None, None), "what it was dead by");
    let claimed = stage.claim_one("target").await?;
    ensure_eq!((claimed.claim.attempt, claimed.retry_count), (3, 0), "the number goes on");
    ensure!(stage.fail(&claimed, AttemptOutcome::NotSent).await?, "a retry after the replay");
    let backlog = stage.backlog("target").await?;
    ensure_eq!((backlog.depth, backlog.dead_letters), (1, 0), "counters");
    ensure_eq!(stage.cancel(id).await?, DOUBTFUL, "an attempt before the replay had no answer");

    stage.advance(Duration::from_secs(1)).await?;
    let mut brief = stage.message(7, "sender", "brief")?;
    brief.expires_at = Some(stage.now().plus(Duration::from_secs(10)));
    let brief = stage.accept(brief).await?.id;
    ensure!(stage.bury("brief").await?, "a burial");
    stage.advance(Duration::from_secs(10)).await?;
    let outcome = stage.store.replay(brief, stage.deadline()).await?;
    ensure_eq!(outcome, DeadLetterOutcome::Expired, "past its expires_at");
    let missing = message_id(stage.now(), 999);
    let outcome = stage.store.replay(missing, stage.deadline()).await?;
    ensure_eq!(outcome, DeadLetterOutcome::NotFound, "one that was never sent");
    Ok(())
}

pub(super) async fn discards_a_dead_letter(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let outcome = stage.store.discard(id, stage.deadline()).await?;
    ensure_eq!(outcome, DeadLetterOutcome::Conflict(Status::Pending), "an open one");
    ensure!(stage.bury("target").await?, "a burial");
    let outcome = stage.store.discard(id, stage.deadline()).await?;
    ensure_eq!(outcome, DeadLetterOutcome::Done(Status::Discarded), "a dead letter");
    let record = stage.get(id).await?;
    ensure_eq!(record.status, Status::Discarded, "state");
    ensure_eq!(record.dead_reason.as_deref(), Some("exhausted"), "dead_reason");
    let outcome = stage.store.replay(id, stage.deadline()).await?;
    ensure_eq!(outcome, DeadLetterOutcome::Conflict(Status::Discarded), "replay of a discarded one");
    ensure_eq!(stage.backlog("target").await?.dead_letters, 0, "counter");
    Ok(())
}
