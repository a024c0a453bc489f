//! Claims, leases and how attempts end.

use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, DeadReason, SettleOutcome, Settlement};
use hub_core::id::ServiceName;
use hub_core::message::{Priority, Status};

use super::kit::{LEASE, foreign_claim};
use super::{Stage, Verdict, ensure, ensure_eq};

pub(super) async fn claims_by_priority_then_due(stage: &Stage) -> Verdict {
    let mut wanted = Vec::new();
    for (number, priority) in [(1, 4), (2, 9), (3, 4), (4, 0), (5, 9)] {
        let mut message = stage.message(number, "sender", "target")?;
        message.priority = Priority::new(priority).unwrap_or_default();
        wanted.push((u8::MAX - priority, number, message.id));
        stage.accept(message).await?;
        stage.advance(Duration::from_millis(5)).await?;
    }
    stage.send(100..103, "other").await?;
    wanted.sort_unstable();
    let mut claimed = stage.claim("target", 2).await?;
    claimed.extend(stage.claim("target", 10).await?);
    let found: Vec<_> = claimed.iter().map(|one| one.message.id).collect();
    let wanted: Vec<_> = wanted.into_iter().map(|(_, _, id)| id).collect();
    ensure_eq!(found, wanted, "order of claims");
    let now = stage.now();
    let fits = claimed.iter().all(|one| one.claim.attempt == 1 && one.claim.lease_end == now.plus(LEASE));
    ensure!(fits, "claims {claimed:?}");
    Ok(())
}

pub(super) async fn waits_for_the_due_time(stage: &Stage) -> Verdict {
    let mut later = stage.message(1, "sender", "target")?;
    later.priority = Priority::new(9).unwrap_or_default();
    later.deliver_at = Some(stage.now().plus(Duration::from_secs(60)));
    let now = stage.message(2, "sender", "target")?;
    stage.accept(later.clone()).await?;
    let (targets, next) = stage.queue.due().await?;
    ensure_eq!((targets.len(), next), (0, later.deliver_at), "due before");
    stage.accept(now.clone()).await?;
    let names = |targets: Vec<ServiceName>| targets.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure_eq!(names(stage.queue.due().await?.0), ["target"], "targets with due messages");
    let claimed = stage.claim("target", 10).await?;
    ensure_eq!(claimed.iter().map(|one| one.message.id).collect::<Vec<_>>(), [now.id], "due ones");
    let (targets, next) = stage.queue.due().await?;
    ensure!(targets.is_empty(), "nothing is due: {targets:?}");
    ensure_eq!(next, Some(stage.now().plus(LEASE)), "the lease is next");
    ensure_eq!(stage.get(later.id).await?.retry_at, later.deliver_at, "retry_at of a scheduled one");
    stage.advance(Duration::from_secs(60)).await?;
    ensure_eq!(names(stage.queue.due().await?.0), ["target"], "due at its time");
    let claimed = stage.claim("target", 1).await?;
    ensure_eq!(claimed.iter().map(|one| one.message.id).collect::<Vec<_>>(), [later.id], "at its time");
    Ok(())
}

pub(super) async fn delivers_once(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let claimed = stage.claim_one("target").await?;
    let foreign = foreign_claim(&claimed.claim);
    ensure!(
        !stage.settle(&foreign, SettleOutcome::Delivered, AttemptOutcome::Delivered).await?,
        "a claim of another node took effect"
    );
    let next = hub_core::delivery::Claim { attempt: 2, ..claimed.claim.clone() };
    ensure!(
        !stage.settle(&next, SettleOutcome::Delivered, AttemptOutcome::Delivered).await?,
        "a claim of another attempt took effect"
    );
    ensure_eq!(stage.status(id).await?, Status::Delivering, "state before");
    ensure!(stage.deliver(&claimed).await?, "its own claim");
    let record = stage.get(id).await?;
    ensure_eq!((record.status, record.processed_at), (Status::Delivered, Some(stage.now())), "state");
    ensure_eq!(record.attempts.len(), 1, "attempts");
    ensure!(stage.deliver(&claimed).await?, "the same settlement, asked again, was taken before");
    ensure!(
        !stage
            .settle(&claimed.claim, SettleOutcome::Dead(DeadReason::Gone), AttemptOutcome::Rejected)
            .await?,
        "another end of what has ended"
    );
    let record = stage.get(id).await?;
    ensure_eq!((record.status, record.attempts.len()), (Status::Delivered, 1), "state after late ones");
    Ok(())
}

pub(super) async fn retries(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let claimed = stage.claim_one("target").await?;
    let at = stage.now().plus(Duration::from_secs(5));
    let retry = SettleOutcome::RetryAt { at, counted: true };
    ensure!(stage.settle(&claimed.claim, retry, AttemptOutcome::Failed).await?, "a retry");
    let record = stage.get(id).await?;
    ensure_eq!(
        (record.status, record.retry_count, record.retry_at),
        (Status::Retrying, 1, Some(at)),
        "state"
    );
    ensure_eq!(record.error_message.as_deref(), Some("it failed"), "error_message");
    ensure!(stage.claim("target", 1).await?.is_empty(), "claimed before its time");
    stage.advance(Duration::from_secs(5)).await?;
    let claimed = stage.claim_one("target").await?;
    ensure_eq!((claimed.claim.attempt, claimed.retry_count), (2, 1), "second attempt");
    let retry = SettleOutcome::RetryAt { at: stage.now(), counted: false };
    ensure!(stage.settle(&claimed.claim, retry, AttemptOutcome::HubFault).await?, "an uncounted retry");
    let claimed = stage.claim_one("target").await?;
    ensure_eq!((claimed.claim.attempt, claimed.retry_count), (3, 1), "third attempt");
    ensure!(stage.deliver(&claimed).await?, "the end");
    let record = stage.get(id).await?;
    let numbers: Vec<_> = record.attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    let wanted = [(1, AttemptOutcome::Failed), (2, AttemptOutcome::HubFault), (3, AttemptOutcome::Delivered)];
    ensure_eq!(numbers, wanted, "attempts");
    ensure_eq!((record.retry_count, record.error_message), (1, None), "at the end");
    Ok(())
}

pub(super) async fn gives_back_a_claim(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let claimed = stage.claim_one("target").await?;
    let release = Settlement {
        claim: claimed.claim.clone(),
        outcome: SettleOutcome::Released,
        attempt: None,
        error: None,
    };
    ensure!(stage.settle_raw(release.clone()).await?, "a release");
    let record = stage.get(id).await?;
    ensure_eq!((record.status, record.attempts.len()), (Status::Pending, 0), "state");
    let again = stage.claim_one("target").await?;
    ensure!(again.claim.attempt > claimed.claim.attempt, "a new claim can be told from the old one");
    ensure!(!stage.settle_raw(release).await?, "the old release took the new claim away");
    ensure_eq!(stage.status(id).await?, Status::Delivering, "state under the new claim");
    Ok(())
}

pub(super) async fn lets_a_lease_run_out(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let old = stage.claim_one("target").await?;
    stage.advance(LEASE.saturating_sub(Duration::from_millis(1))).await?;
    ensure!(stage.claim("target", 1).await?.is_empty(), "claimed under a live lease");
    stage.advance(Duration::from_millis(1)).await?;
    ensure_eq!(stage.queue.due().await?.0.len(), 1, "targets with due messages");
    let new = stage.claim_one("target").await?;
    ensure_eq!((new.message.id, new.claim.attempt, new.retry_count), (id, 2, 0), "the new claim");
    ensure!(!stage.deliver(&old).await?, "a settlement that came too late took effect");
    ensure_eq!(stage.status(id).await?, Status::Delivering, "state");
    let record = stage.get(id).await?;
    let attempts: Vec<_> = record.attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    ensure_eq!(attempts, [(1, AttemptOutcome::NoAnswer)], "attempts");
    ensure!(stage.deliver(&new).await?, "the new claim");
    ensure_eq!(stage.status(id).await?, Status::Delivered, "state at the end");
    Ok(())
}

pub(super) async fn buries(stage: &Stage) -> Verdict {
    let id = stage.send_one("target").await?;
    let claimed = stage.claim_one("target").await?;
    let dead = SettleOutcome::Dead(DeadReason::Rejected);
    ensure!(stage.settle(&claimed.claim, dead, AttemptOutcome::Rejected).await?, "a burial");
    let record = stage.get(id).await?;
    ensure_eq!(record.status, Status::DeadLetter, "state");
    ensure_eq!(record.dead_reason.as_deref(), Some("rejected"), "dead_reason");
    ensure_eq!(record.error_message.as_deref(), Some("it failed"), "error_message");
    ensure_eq!(record.processed_at, Some(stage.now()), "processed_at");
    Ok(())
}

pub(super) async fn counts(stage: &Stage) -> Verdict {
    let first = stage.now();
    stage.send(0..6, "target").await?;
    stage.advance(Duration::from_secs(1)).await?;
    let claimed = stage.claim("target", 4).await?;
    let backlog = stage.backlog("target").await?;
    ensure_eq!((backlog.depth, backlog.in_flight, backlog.accepted_total), (6, 4, 6), "while claimed");
    ensure_eq!(backlog.oldest, Some(first), "oldest");
    for (at, one) in claimed.iter().enumerate() {
        let (outcome, attempt) = match at {
            0 | 1 => (SettleOutcome::Delivered, AttemptOutcome::Delivered),
            2 => (SettleOutcome::Dead(DeadReason::Gone), AttemptOutcome::Rejected),
            _ => (SettleOutcome::RetryAt { at: stage.now(), counted: true }, AttemptOutcome::Failed),
        };
        ensure!(stage.settle(&one.claim, outcome, attempt).await?, "settlement {at}");
    }
    let backlog = stage.backlog("target").await?;
    let found = (backlog.depth, backlog.in_flight, backlog.delivered_total, backlog.dead_letters);
    ensure_eq!(found, (3, 0, 2, 1), "after the settlements");
    let all = stage.store.backlogs().await?;
    ensure_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["target"], "targets");
    ensure_eq!(stage.backlog("unknown").await?, hub_core::port::Backlog::default(), "an unknown target");
    Ok(())
}
