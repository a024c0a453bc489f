//! Accepting messages.

use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::message::{Fingerprint, IdempotencyKey, NewMessage, Status};
use hub_core::port::{AcceptMode, AcceptRefusal, Consistency, QueueSignal};

use super::kit::{message_id, service};
use super::{BACKLOG_BOUND, Stage, Verdict, ensure, ensure_eq};

fn with_key(mut message: NewMessage, key: &str, body: u8) -> NewMessage {
    message.idempotency = Some(IdempotencyKey {
        caller: "sender".to_owned(),
        key: key.to_owned(),
        fingerprint: Fingerprint([body; 16]),
    });
    message
}

pub(super) async fn keeps_what_came(stage: &Stage) -> Verdict {
    let mut message = stage.message(1, "sender", "target")?;
    message.content = "{ \"b\": 1.00, \"a\": [1e3, \"\\u00e4\\u0000\"],\"a\":2 }".into();
    message.metadata = Some("{\"correlation_id\":\"c-1\",  \"z\":1}".into());
    message.correlation_id = Some("c-1".into());
    message.max_retries = Some(3);
    message.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let accepted = stage.accept(message.clone()).await?;
    ensure_eq!(
        (accepted.id, accepted.status, accepted.replayed),
        (message.id, Status::Pending, false),
        "answer"
    );
    let record = stage.get(message.id).await?;
    ensure_eq!(record.message.content, message.content, "content");
    ensure_eq!(record.message.metadata, message.metadata, "metadata");
    ensure_eq!(record.message.traceparent, message.traceparent, "traceparent");
    ensure_eq!(record.message.max_retries, message.max_retries, "max_retries");
    ensure_eq!((record.status, record.retry_count, record.processed_at), (Status::Pending, 0, None), "state");
    ensure!(record.attempts.is_empty(), "attempts before any");
    let other = message_id(stage.now(), 999);
    let missing = stage.store.get(other, Consistency::Stale, stage.deadline()).await?;
    ensure_eq!(missing, None, "a message that was never sent");
    Ok(())
}

pub(super) async fn repeats_an_id(stage: &Stage) -> Verdict {
    let message = stage.message(1, "sender", "target")?;
    let first = stage.accept(message.clone()).await?;
    stage.advance(Duration::from_secs(1)).await?;
    let claimed = stage.claim_one("target").await?;
    ensure!(stage.deliver(&claimed).await?, "a settlement under its claim");
    let again = stage.accept(message.clone()).await?;
    ensure_eq!(again, first, "the same answer, whatever became of it");
    ensure_eq!(stage.status(message.id).await?, Status::Delivered, "state after the repeat");
    ensure_eq!(stage.backlog("target").await?.accepted_total, 1, "accepted_total");
    let twice = stage.message(2, "sender", "target")?;
    let results = stage.accept_all(vec![twice.clone(), twice], AcceptMode::Each).await?;
    ensure!(results.iter().all(Result::is_ok), "twice in one batch: {results:?}");
    ensure_eq!(stage.backlog("target").await?.depth, 1, "depth");
    Ok(())
}

pub(super) async fn knows_keys_for_a_day(stage: &Stage) -> Verdict {
    let first = with_key(stage.message(1, "sender", "target")?, "k", 1);
    let same = with_key(stage.message(2, "sender", "target")?, "k", 1);
    let other = with_key(stage.message(3, "sender", "target")?, "k", 2);
    ensure!(!stage.accept(first.clone()).await?.replayed, "first use");
    stage.advance(Duration::from_secs(3_600)).await?;
    let replayed = stage.accept(same.clone()).await?;
    ensure_eq!((replayed.id, replayed.replayed), (first.id, true), "same body");
    ensure_eq!(replayed.created_at, first.created_at, "created_at of the first");
    let results = stage.accept_all(vec![other.clone()], AcceptMode::Each).await?;
    ensure_eq!(results, [Err(AcceptRefusal::KeyReused)], "other body");
    let mut stranger = other.clone();
    if let Some(key) = &mut stranger.idempotency {
        key.caller = "somebody".to_owned();
    }
    stage.accept(stranger).await?;
    stage.advance(Duration::from_secs(23 * 3_600)).await?;
    let mut late = with_key(stage.message(4, "sender", "target")?, "k", 2);
    late.too_old_at = late.created_at.plus(Duration::from_secs(3_600));
    ensure!(!stage.accept(late).await?.replayed, "after a day the key is free");
    Ok(())
}

pub(super) async fn judges_a_batch_one_by_one(stage: &Stage) -> Verdict {
    stage.accept(with_key(stage.message(1, "sender", "target")?, "k", 1)).await?;
    let mut batch = Vec::new();
    for number in 10..200 {
        batch.push(stage.message(number, "sender", &format!("target-{}", number % 10))?);
    }
    batch.insert(5, with_key(stage.message(500, "sender", "target")?, "k", 2));
    let wanted: Vec<_> = batch.iter().map(|message| message.id).collect();
    let results = stage.accept_all(batch, AcceptMode::Each).await?;
    ensure_eq!(results.len(), wanted.len(), "answers");
    for (at, (result, id)) in results.iter().zip(wanted).enumerate() {
        match result {
            Ok(accepted) => ensure_eq!(accepted.id, id, "order of the answers"),
            Err(AcceptRefusal::KeyReused) => ensure_eq!(at, 5, "place of the refusal"),
            Err(other) => ensure!(false, "refused: {other}"),
        }
    }
    let large = stage.message(300, "sender", "large")?;
    let larger: Vec<_> = (301..310)
        .map(|number| {
            let content = format!("\"{}\"", "x".repeat(200_000)).into();
            NewMessage { id: message_id(stage.now(), number), content, ..large.clone() }
        })
        .collect();
    let results = stage.accept_all(larger, AcceptMode::Each).await?;
    ensure!(results.len() == 9 && results.iter().all(Result::is_ok), "a batch of more than one entry");
    Ok(())
}

pub(super) async fn takes_an_atomic_batch_whole_or_not(stage: &Stage) -> Verdict {
    stage.accept(with_key(stage.message(1, "sender", "target")?, "k", 1)).await?;
    let good = stage.message(2, "sender", "target")?;
    let bad = with_key(stage.message(3, "sender", "target")?, "k", 2);
    let results = stage.accept_all(vec![good.clone(), bad], AcceptMode::Atomic).await?;
    ensure_eq!(results, [Err(AcceptRefusal::BatchRefused), Err(AcceptRefusal::KeyReused)], "refusals");
    let missing = stage.store.get(good.id, Consistency::Linearizable, stage.deadline()).await?;
    ensure_eq!(missing, None, "a message of a refused batch");
    ensure_eq!(stage.backlog("target").await?.depth, 1, "depth after a refused batch");
    let mut full = Vec::new();
    for number in 10..(10 + BACKLOG_BOUND) {
        full.push(stage.message(number, "sender", "target")?);
    }
    let results = stage.accept_all(full, AcceptMode::Atomic).await?;
    ensure!(results.iter().all(Result::is_err), "a batch that would pass the bound: {results:?}");
    ensure_eq!(stage.backlog("target").await?.depth, 1, "depth after a batch too many");
    let results =
        stage.accept_all(vec![good, stage.message(4, "sender", "target")?], AcceptMode::Atomic).await?;
    ensure!(results.iter().all(Result::is_ok), "a good batch: {results:?}");
    ensure_eq!(stage.backlog("target").await?.depth, 3, "depth after a good batch");
    Ok(())
}

pub(super) async fn bounds_the_backlog(stage: &Stage) -> Verdict {
    stage.send(0..BACKLOG_BOUND, "target").await?;
    let more = stage.message(1_000, "sender", "target")?;
    let results = stage.accept_all(vec![more.clone()], AcceptMode::Each).await?;
    let refused = matches!(results.as_slice(), [Err(AcceptRefusal::BacklogFull { target, retry_after })]
        if target.as_str() == "target" && !retry_after.is_zero());
    ensure!(refused, "one too many: {results:?}");
    stage.send(2_000..2_001, "another").await?;
    let claimed = stage.claim_one("target").await?;
    ensure!(stage.deliver(&claimed).await?, "a settlement under its claim");
    stage.accept(more).await?;
    Ok(())
}

pub(super) async fn hands_over_what_found_a_slot(stage: &Stage) -> Verdict {
    let target = service("target")?;
    ensure_eq!(stage.queue.next().await, QueueSignal::Started, "first signal");
    if stage.has_broker {
        return says_what_came_through_the_broker(stage, &target).await;
    }
    stage.slots.grant(&target, 1);
    let first = stage.message(1, "sender", "target")?;
    stage.accept(first.clone()).await?;
    let signal = stage.queue.next().await;
    let QueueSignal::Claimed(claimed) = signal else {
        ensure!(false, "found {signal:?} instead of a claimed message");
        return Ok(());
    };
    let [claimed] = claimed.as_slice() else {
        ensure!(false, "claimed {claimed:?}");
        return Ok(());
    };
    ensure_eq!((claimed.message.id, claimed.claim.attempt), (first.id, 1), "claimed");
    ensure_eq!(claimed.message.content, first.content, "content");
    ensure_eq!(stage.status(first.id).await?, Status::Delivering, "state");
    ensure!(stage.claim("target", 5).await?.is_empty(), "claimed twice");
    let second = stage.message(2, "sender", "target")?;
    stage.accept(second.clone()).await?;
    ensure_eq!(stage.queue.next().await, QueueSignal::Due(target.clone()), "without a slot");
    ensure_eq!(stage.status(second.id).await?, Status::Pending, "state without a slot");
    stage.slots.grant(&target, 1);
    stage.accept(second).await?;
    ensure_eq!(stage.slots.free(&target), 1, "slots after a repeat");
    let mut later = stage.message(3, "sender", "target")?;
    later.deliver_at = Some(stage.now().plus(Duration::from_secs(60)));
    stage.accept(later.clone()).await?;
    ensure_eq!(stage.slots.free(&target), 1, "slots after a scheduled one");
    let due = later.due_at();
    ensure_eq!(stage.queue.next().await, QueueSignal::Later(due), "signal of a scheduled one");
    ensure!(stage.deliver(claimed).await?, "a settlement of what was handed over");
    Ok(())
}

/// With a broker nothing is claimed before it came through its queue, be there a slot or not.
async fn says_what_came_through_the_broker(stage: &Stage, target: &ServiceName) -> Verdict {
    stage.slots.grant(target, 1);
    let message = stage.message(1, "sender", "target")?;
    stage.accept(message.clone()).await?;
    ensure_eq!(stage.queue.next().await, QueueSignal::Due(target.clone()), "signal");
    ensure_eq!(stage.status(message.id).await?, Status::Pending, "state before it is claimed");
    ensure_eq!(stage.slots.free(target), 1, "slots");
    let claimed = stage.claim_one("target").await?;
    ensure_eq!((claimed.message.id, claimed.claim.attempt), (message.id, 1), "claimed");
    ensure_eq!(claimed.message.content, message.content, "content");
    ensure!(stage.claim("target", 5).await?.is_empty(), "claimed twice");
    ensure!(stage.deliver(&claimed).await?, "a settlement");
    let mut later = stage.message(2, "sender", "target")?;
    later.deliver_at = Some(stage.now().plus(Duration::from_secs(60)));
    stage.accept(later.clone()).await?;
    loop {
        match stage.queue.next().await {
            // It came through the broker before it was claimed.
            QueueSignal::Due(_) => {}
            signal => {
                ensure_eq!(signal, QueueSignal::Later(later.due_at()), "signal of a scheduled one");
                return Ok(());
            }
        }
    }
}
