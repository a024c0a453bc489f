//! Lists.

use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, DeadReason, SettleOutcome};
use hub_core::id::MessageId;
use hub_core::message::{Filter, PAGE_BYTES, Status};

use super::kit::service;
use super::{Failure, Stage, Verdict, ensure, ensure_eq};

impl Stage {
    /// All pages of a list, each of at most `limit`.
    async fn pages(&self, filter: &Filter, limit: u32) -> Result<Vec<MessageId>, Failure> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(filter, after, limit).await?;
            ensure!(page.items.len() <= limit as usize, "a page of {} for {limit}", page.items.len());
            ids.extend(page.items.iter().map(|record| record.message.id));
            ensure!(page.next.is_none() || page.next != after, "the cursor stands still");
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(ids),
            }
        }
    }
}

pub(super) async fn pages_are_bounded_in_bytes(stage: &Stage) -> Verdict {
    let mut ids = Vec::new();
    for number in 0..12 {
        let mut message = stage.message(number, "sender", "target")?;
        let bytes = if number == 11 { 10 } else { 1_000_000 };
        message.content = format!("\"{}\"", "x".repeat(bytes)).into();
        ids.push(stage.accept(message).await?.id);
    }
    let mut after = None;
    let mut pages = Vec::new();
    loop {
        let page = stage.store.list(&Filter::default(), after, 500).await?;
        let bytes: usize = page.items.iter().map(|record| record.message.content.len()).sum();
        ensure!(bytes <= PAGE_BYTES, "a page of {bytes} bytes");
        pages.push(page.items.len());
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    ensure_eq!(pages, [9, 3], "as many as fit");
    ensure_eq!(stage.pages(&Filter::default(), 500).await?, newest_first(ids), "all pages");
    Ok(())
}

fn newest_first(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    ids.sort_unstable_by(|one, other| other.cmp(one));
    ids
}

pub(super) async fn pages_newest_first(stage: &Stage) -> Verdict {
    let mut ids = Vec::new();
    for number in 0..23 {
        stage.advance(Duration::from_millis(number % 3)).await?;
        ids.push(
            stage.accept(stage.message(number, "sender", if number % 2 == 0 { "a" } else { "b" })?).await?.id,
        );
    }
    let wanted = newest_first(ids);
    for limit in [1, 4, 22, 23, 24, 500] {
        ensure_eq!(stage.pages(&Filter::default(), limit).await?, wanted, "all pages");
    }
    let page = stage.store.list(&Filter::default(), None, 5).await?;
    ensure!(page.items.iter().all(|record| record.attempts.is_empty()), "lists carry no attempts");
    Ok(())
}

pub(super) async fn filters(stage: &Stage) -> Verdict {
    let start = stage.now();
    let mut all = Vec::new();
    for number in 0..24_u64 {
        let mut message = stage.message(
            number,
            ["s-1", "s-2"][number as usize % 2],
            ["t-1", "t-2", "t-3"][number as usize % 3],
        )?;
        message.message_type = ["x", "y"][number as usize / 12].into();
        message.correlation_id = (number % 5 == 0).then(|| "c".into());
        stage.accept(message.clone()).await?;
        all.push((message, Status::Pending));
        stage.advance(Duration::from_secs(60)).await?;
    }
    for (target, outcome, status) in [
        ("t-1", Some(SettleOutcome::Delivered), Status::Delivered),
        ("t-2", Some(SettleOutcome::Dead(DeadReason::Gone)), Status::DeadLetter),
        ("t-3", Some(SettleOutcome::RetryAt { at: stage.now(), counted: true }), Status::Retrying),
    ] {
        for one in stage.claim(target, 3).await? {
            let outcome = outcome.clone().unwrap_or(SettleOutcome::Released);
            ensure!(stage.settle(&one.claim, outcome, AttemptOutcome::Failed).await?, "a settlement");
            set(&mut all, one.message.id, status);
        }
    }
    for one in stage.claim("t-1", 2).await? {
        set(&mut all, one.message.id, Status::Delivering);
    }
    if let Some((message, status)) = all
        .iter_mut()
        .rfind(|(message, status)| *status == Status::Pending && message.target.as_str() == "t-2")
    {
        stage.store.cancel(message.id, stage.deadline()).await?;
        *status = Status::Cancelled;
    }
    for filter in some_filters(start)? {
        let wanted = all.iter().filter(|(message, status)| {
            filter.status.is_none_or(|wanted| wanted == *status)
                && filter.target.as_ref().is_none_or(|wanted| *wanted == message.target)
                && filter.sender.as_ref().is_none_or(|wanted| *wanted == message.sender)
                && filter.message_type.as_ref().is_none_or(|wanted| *wanted == message.message_type)
                && (filter.correlation_id.is_none() || filter.correlation_id == message.correlation_id)
                && filter.created_after.is_none_or(|after| message.created_at >= after)
                && filter.created_before.is_none_or(|before| message.created_at < before)
                && filter
                    .visible_to
                    .as_ref()
                    .is_none_or(|service| [&message.sender, &message.target].contains(&service))
        });
        let wanted = newest_first(wanted.map(|(message, _)| message.id).collect());
        for limit in [2, 100] {
            ensure_eq!(stage.pages(&filter, limit).await?, wanted, &format!("{filter:?}"));
        }
    }
    Ok(())
}

fn set(all: &mut [(hub_core::message::NewMessage, Status)], id: MessageId, status: Status) {
    for (message, at) in all.iter_mut() {
        if message.id == id {
            *at = status;
        }
    }
}

fn some_filters(start: hub_core::time::Timestamp) -> Result<Vec<Filter>, Failure> {
    let minutes = |count: u64| Some(start.plus(Duration::from_secs(60 * count)));
    let mut filters = Vec::new();
    for status in [None].into_iter().chain(Status::ALL.map(Some)) {
        for target in [None, Some("t-1"), Some("t-2"), Some("t-3"), Some("unknown")] {
            let target = target.map(service).transpose()?;
            filters.push(Filter { status, target: target.clone(), ..Filter::default() });
            let sender = Some(service("s-1")?);
            filters.push(Filter { status, target: target.clone(), sender, ..Filter::default() });
            let visible_to = Some(service("s-2")?);
            filters.push(Filter { status, target, visible_to, ..Filter::default() });
        }
        filters.push(Filter { status, correlation_id: Some("c".into()), ..Filter::default() });
        filters.push(Filter { status, message_type: Some("y".into()), ..Filter::default() });
        let (created_after, created_before) = (minutes(5), minutes(17));
        filters.push(Filter { status, created_after, created_before, ..Filter::default() });
    }
    Ok(filters)
}

pub(super) async fn shows_each_its_own(stage: &Stage) -> Verdict {
    let mut wanted = Vec::new();
    for number in 0..30 {
        let (sender, target) = match number % 4 {
            0 => ("me", "you"),
            1 => ("you", "me"),
            2 => ("me", "me"),
            _ => ("you", "they"),
        };
        let id = stage.accept(stage.message(number, sender, target)?).await?.id;
        if number % 4 < 3 {
            wanted.push(id);
        }
    }
    let wanted = newest_first(wanted);
    let filter = Filter { visible_to: Some(service("me")?), ..Filter::default() };
    for limit in [1, 3, 7, 100] {
        ensure_eq!(stage.pages(&filter, limit).await?, wanted, "what one service may see");
    }
    Ok(())
}
