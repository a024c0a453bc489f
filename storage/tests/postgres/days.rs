//! Days: partitions, keys and retention across midnight.

use std::sync::Arc;
use std::time::Duration;

use hub_core::delivery::{AttemptOutcome, SettleOutcome, Settlement};
use hub_core::message::{Attempt, Filter, Fingerprint, IdempotencyKey};
use hub_core::port::{Clock, Consistency, DeliveryQueue, MessageStore};
use hub_core::time::Timestamp;
use hub_storage::suite::ManualClock;

use crate::base::{Base, Node, advance, deadline};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn deliver(node: &Node) {
    let claimed = node.claim("target", 10).await;
    assert!(!claimed.is_empty());
    let settlements = claimed.iter().map(|one| {
        let attempt = Attempt {
            number: one.claim.attempt,
            node: one.claim.owner,
            instance: None,
            started_at: node.clock.now(),
            duration_ms: 1,
            outcome: AttemptOutcome::Delivered,
            http_status: Some(204),
            error_class: None,
            response: None,
        };
        Settlement {
            claim: one.claim.clone(),
            outcome: SettleOutcome::Delivered,
            attempt: Some(attempt),
            error: None,
        }
    });
    let done = node.store.settle(settlements.collect(), deadline()).await.unwrap();
    assert!(done.iter().all(|done| *done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn midnight_is_a_moment_like_any_other() {
    let base = Base::with_hands().await;
    let clock = Arc::new(ManualClock::default());
    let node = Node::start_with(&base.url, 1, clock.clone(), |_| {});
    let midnight = Timestamp::from_millis((clock.now().as_millis() / 86_400_000 + 1) * 86_400_000);
    advance(&base, &clock, midnight.since(clock.now()).saturating_sub(Duration::from_millis(1))).await;
    let with_key = || {
        let mut message = node.message("target");
        let (caller, key) = ("caller".to_owned(), "key".to_owned());
        message.idempotency = Some(IdempotencyKey { caller, key, fingerprint: Fingerprint([1; 16]) });
        message
    };
    let before = node.accept(with_key()).await.unwrap();
    advance(&base, &clock, Duration::from_millis(1)).await;
    let after = node.accept(node.message("target")).await.unwrap();
    let again = node.accept(with_key()).await.unwrap();
    assert_eq!((again.id, again.replayed), (before.id, true), "the key outlives its day");
    let days = base.number("SELECT count(DISTINCT tableoid) FROM messages").await;
    assert_eq!(days, 2, "each in the partition of its day");
    let page = node.store.list(&Filter::default(), None, 10).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|record| record.message.id).collect();
    assert_eq!(ids, [after.id, before.id], "newest first, over midnight");
    deliver(&node).await;
    for id in [before.id, after.id] {
        let record = node.store.get(id, Consistency::Linearizable, deadline()).await.unwrap().unwrap();
        assert_eq!(record.attempts.len(), 1);
    }
    base.audit().await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_goes_when_nothing_of_it_is_left() {
    let base = Base::with_hands().await;
    let clock = Arc::new(ManualClock::default());
    let node = Node::start_with(&base.url, 1, clock.clone(), |_| {});
    let old = node.accept(node.message("target")).await.unwrap();
    deliver(&node).await;
    let open = node.accept(node.message("target")).await.unwrap();
    let day = "SELECT count(*) FROM pg_class WHERE relname IN ('messages_20270115', 'attempts_20270115')";
    assert_eq!(base.number(day).await, 2);
    let sweep = async || {
        let report = node.store.sweep(&|_| true, DAY, 100, deadline()).await.unwrap();
        report.pruned
    };
    advance(&base, &clock, DAY * 2).await;
    assert_eq!(sweep().await, 1, "the old one goes by itself");
    assert_eq!(base.number(day).await, 2, "its day stays for the open one");
    assert!(node.store.get(old.id, Consistency::Linearizable, deadline()).await.unwrap().is_none());
    assert!(node.store.get(open.id, Consistency::Linearizable, deadline()).await.unwrap().is_some());
    deliver(&node).await;
    // A session that looks at it holds it, and nobody waits for that session.
    let mut holder = base.connect().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM messages").execute(&mut holder).await.unwrap();
    advance(&base, &clock, DAY).await;
    assert_eq!(sweep().await, 1);
    assert_eq!(base.number(day).await, 2, "empty, but held");
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    advance(&base, &clock, Duration::from_secs(120)).await;
    sweep().await;
    assert_eq!(base.number(day).await, 0, "now the day is gone");
    node.accept(node.message("target")).await.unwrap();
    node.end().await;
}
