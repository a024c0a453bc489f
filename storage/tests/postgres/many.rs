//! Several hubs on one database.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, SettleOutcome, Settlement};
use hub_core::message::{Attempt, Fingerprint, IdempotencyKey, Status};
use hub_core::port::{AcceptMode, Claimed, Consistency, DeliveryQueue, MessageStore, QueueSignal};
use hub_storage::suite::ManualClock;
use uuid::Uuid;

use crate::base::{Base, LEASE, Node, advance, deadline, service, until};

fn delivered(node: &Node, one: &Claimed) -> Settlement {
    let attempt = Attempt {
        number: one.claim.attempt,
        node: one.claim.owner,
        instance: None,
        started_at: node.clock.now(),
        duration_ms: 1,
        outcome: AttemptOutcome::Delivered,
        http_status: Some(200),
        error_class: None,
        response: Some("nul \0 in the answer".into()),
    };
    Settlement {
        claim: one.claim.clone(),
        outcome: SettleOutcome::Delivered,
        attempt: Some(attempt),
        error: None,
    }
}

/// Claims and delivers until everything is delivered; what this node had.
async fn work(base: &Base, node: &Node) -> Vec<Uuid> {
    let mut had = Vec::new();
    loop {
        let claimed = node.claim("target", 7).await;
        if claimed.is_empty() {
            if base.number("SELECT count(*) FROM deliveries").await == 0 {
                return had;
            }
            continue;
        }
        had.extend(claimed.iter().map(|one| one.message.id.0));
        let settlements: Vec<_> = claimed.iter().map(|one| delivered(node, one)).collect();
        let done = node.store.settle(settlements, deadline()).await.unwrap();
        assert!(done.iter().all(|done| *done), "each under its own claim");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hubs_never_hold_one_message() {
    let base = Base::migrated().await;
    let (one, other) = (Node::start(&base.url, 1), Node::start(&base.url, 2));
    let messages: Vec<_> = (0..400).map(|_| one.message("target")).collect();
    let results = one.store.accept(messages, AcceptMode::Each, deadline()).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
    let (first, second) = tokio::join!(work(&base, &one), work(&base, &other));
    assert_eq!(first.len() + second.len(), 400, "each once");
    let all: HashSet<Uuid> = first.into_iter().chain(second).collect();
    assert_eq!(all.len(), 400);
    let backlog = one.store.backlog(&service("target")).await.unwrap();
    let found = (backlog.depth, backlog.in_flight, backlog.accepted_total, backlog.delivered_total);
    assert_eq!(found, (0, 0, 400, 400));
    base.audit().await;
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_used_once_whichever_hub_is_asked() {
    let base = Base::migrated().await;
    let (one, other) = (Node::start(&base.url, 1), Node::start(&base.url, 2));
    let batch = |node: &Node, reversed: bool| {
        let mut batch: Vec<_> = (0..100)
            .map(|number| {
                let mut message = node.message("target");
                let key = format!("key \0 {number}");
                let fingerprint = Fingerprint([7; 16]);
                message.idempotency = Some(IdempotencyKey { caller: "caller".to_owned(), key, fingerprint });
                message
            })
            .collect();
        // Each in an order of its own.
        if reversed {
            batch.reverse();
        }
        batch
    };
    let accept = async |node: &Node, reversed: bool| {
        let calls = batch(node, reversed).into_iter().map(|message| {
            let key = message.idempotency.clone().unwrap().key;
            async move { (key, node.accept(message).await.unwrap()) }
        });
        futures::future::join_all(calls).await
    };
    let (first, second) = tokio::join!(accept(&one, false), accept(&other, true));
    let mut ids: HashMap<String, HashSet<Uuid>> = HashMap::new();
    let mut new = 0;
    for (key, accepted) in first.into_iter().chain(second) {
        ids.entry(key).or_default().insert(accepted.id.0);
        new += usize::from(!accepted.replayed);
    }
    assert_eq!((ids.len(), new), (100, 100), "each key was new once");
    assert!(ids.values().all(|ids| ids.len() == 1), "both hubs gave the same id");
    assert_eq!(base.number("SELECT count(*) FROM messages").await, 100);
    base.audit().await;
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_hub_held_goes_to_another() {
    let base = Base::with_hands().await;
    let clock = Arc::new(ManualClock::default());
    let one = Node::start_with(&base.url, 1, clock.clone(), |_| {});
    let other = Node::start_with(&base.url, 2, clock.clone(), |_| {});
    one.slots.grant(&service("target"), 1);
    let id = one.accept(one.message("target")).await.unwrap().id;
    let held = one.handed().await.remove(0);
    assert!(other.claim("target", 1).await.is_empty(), "claimed under a live lease");
    advance(&base, &clock, LEASE).await;
    // The other hub finds it by itself.
    until("it is due", || async {
        let signal = tokio::time::timeout(Duration::from_millis(50), other.store.next()).await;
        matches!(signal, Ok(QueueSignal::Due(target)) if target == service("target"))
    })
    .await;
    let again = other.claim("target", 1).await.remove(0);
    assert_eq!((again.message.id, again.claim.attempt), (id, 2));
    let late = one.store.settle(vec![delivered(&one, &held)], deadline()).await.unwrap();
    assert_eq!(late, [false], "its claim is gone");
    let done = other.store.settle(vec![delivered(&other, &again)], deadline()).await.unwrap();
    assert_eq!(done, [true]);
    let record = other.store.get(id, Consistency::Linearizable, deadline()).await.unwrap().unwrap();
    let attempts: Vec<_> = record.attempts.iter().map(|attempt| (attempt.number, attempt.outcome)).collect();
    assert_eq!(attempts, [(1, AttemptOutcome::NoAnswer), (2, AttemptOutcome::Delivered)]);
    assert_eq!(record.status, Status::Delivered);
    base.audit().await;
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_hub_has_no_slot_for_another_finds() {
    let base = Base::migrated().await;
    let (busy, idle) = (Node::start(&base.url, 1), Node::start(&base.url, 2));
    busy.accept(busy.message("target")).await.unwrap();
    until("the idle hub hears of it", || async {
        let signal = tokio::time::timeout(Duration::from_millis(50), idle.store.next()).await;
        matches!(signal, Ok(QueueSignal::Due(_)))
    })
    .await;
    assert_eq!(idle.claim("target", 1).await.len(), 1);
    busy.end().await;
    idle.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_of_hubs_that_are_gone_are_put_together() {
    let base = Base::migrated().await;
    for number in 1..4 {
        let node = Node::start(&base.url, number);
        for target in ["a", "b", "a"] {
            node.accept(node.message(target)).await.unwrap();
        }
        node.claim("a", 1).await;
        node.end().await;
    }
    assert!(base.number("SELECT count(*) FROM backlog").await >= 6, "each has parts of its own");
    base.sql("UPDATE backlog SET touched_at = touched_at - interval '1 hour'").await;
    let node = Node::start(&base.url, 4);
    until("they are put together", || async {
        base.number("SELECT count(*) FROM backlog WHERE slot <> 0").await == 0
    })
    .await;
    base.audit().await;
    node.accept(node.message("b")).await.unwrap();
    let backlog = node.store.backlog(&service("a")).await.unwrap();
    assert_eq!((backlog.depth, backlog.accepted_total), (6, 6));
    base.audit().await;
    node.end().await;
}
