//! The way to the broker and back: confirmations, the window, retries, dead letters, several nodes.

use std::time::Duration;

use hub_core::delivery::{DeadReason, SettleOutcome};
use hub_core::port::{AcceptMode, Clock, DeliveryQueue, MessageStore, QueueSignal, Want};

use super::hub::{
    Hub, LEASE, database, deadline, ending, message, number, options, service, until, virtual_host,
};
use crate::rabbitmq::Kind;
use crate::rabbitmq::admin::Admin;
use crate::suite::RealClock;

async fn claim(hub: &Hub, target: &str, count: u32) -> Vec<hub_core::port::Claimed> {
    let want = Want { target: service(target), count, lease: LEASE };
    hub.queue.claim(vec![want], deadline()).await.unwrap()
}

/// Claims one, as soon as it has come.
async fn claim_one(hub: &Hub, target: &str) -> hub_core::port::Claimed {
    let end = deadline();
    loop {
        if let Some(one) = claim(hub, target, 1).await.pop() {
            return one;
        }
        assert!(RealClock.instant() < end, "nothing came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_goes_through_the_broker_once() {
    let (database, broker) = (database().await, virtual_host().await);
    let mut hub = Hub::start(1, &database, options(&broker));
    hub.is_connected().await;
    hub.deliver(50);
    let mut ids = Vec::new();
    for target in ["a", "b", "dlq.a"] {
        ids.extend(hub.accept(target, 1_500).await);
    }
    hub.has_delivered(&ids).await;
    assert_eq!(number(&database, "SELECT count(*) FROM deliveries").await, 0);
    assert!(hub.metric("confirmed_total") >= 4_500, "each was confirmed");
    until("all is acknowledged", || async {
        hub.metric("acknowledged_total") == hub.metric("consumed_total")
    })
    .await;
    let mut admin = Admin::connect(options(&broker)).await.unwrap();
    let version = admin.version().await.unwrap();
    assert!(version.starts_with('4'), "{version}");
    for target in ["a", "b", "dlq.a"] {
        let queues = admin.look(&service(target)).await.unwrap();
        assert_eq!(queues.work.unwrap().messages, 0, "{queues:?}");
        assert_eq!(queues.dead, None);
    }
    admin.close().await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_holds_a_window_and_the_rest_follows() {
    let (database, broker) = (database().await, virtual_host().await);
    let mut settings = options(&broker);
    settings.window = 100;
    let mut hub = Hub::start(1, &database, settings.clone());
    hub.is_connected().await;
    let ids = hub.accept("target", 1_000).await;
    until("the window is full", || async { hub.metric("confirmed_total") == 100 }).await;
    let parked = "SELECT count(*) FROM deliveries WHERE publish_after IS NULL";
    assert_eq!(number(&database, parked).await, 900);
    let mut admin = Admin::connect(settings).await.unwrap();
    let queues = admin.look(&service("target")).await.unwrap();
    assert_eq!(queues.work.unwrap().messages, 100);
    admin.close().await;
    hub.deliver(50);
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_what_another_node_takes_for_room() {
    let (database, broker) = (database().await, virtual_host().await);
    let mut settings = options(&broker);
    settings.window = 100;
    let (mut one, two) = (Hub::start(1, &database, settings.clone()), Hub::start(2, &database, settings));
    one.is_connected().await;
    two.is_connected().await;
    let mut ids = one.accept("target", 100).await;
    until("the queue is full", || async { one.metric("confirmed_total") == 100 }).await;
    let end = deadline();
    while two.metric("refused_total") == 0 {
        assert!(RealClock.instant() < end, "never refused: the queue takes all");
        // What it would believe if it had looked before the other one published. The queue's bound is no sharp one.
        two.shared.gate.seen(&service("target"), 0);
        ids.extend(two.accept("target", 50).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    one.deliver(20);
    one.has_delivered(&ids).await;
    two.end().await;
    one.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_comes_again_when_it_is_due_and_a_dead_letter_is_shown() {
    let (database, broker) = (database().await, virtual_host().await);
    let hub = Hub::start(1, &database, options(&broker));
    hub.is_connected().await;
    let id = hub.accept("target", 1).await[0];
    let claimed = claim_one(&hub, "target").await;
    let at = RealClock.now().plus(Duration::from_millis(300));
    let retry = ending(claimed.claim, SettleOutcome::RetryAt { at, counted: true });
    assert_eq!(hub.queue.settle(vec![retry], deadline()).await.unwrap(), [true]);
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(hub.queue.due().await.unwrap().0, [service("target")]);
    let again = claim_one(&hub, "target").await;
    assert_eq!((again.message.id, again.claim.attempt, again.retry_count), (id, 2, 1));
    let dead = ending(again.claim, SettleOutcome::Dead(DeadReason::Rejected));
    assert_eq!(hub.queue.settle(vec![dead], deadline()).await.unwrap(), [true]);
    until("the copy is there", || async { hub.metric("dead_letter_copies_total") == 1 }).await;
    let mut admin = Admin::connect(options(&broker)).await.unwrap();
    let queues = admin.look(&service("target")).await.unwrap();
    assert_eq!((queues.work.unwrap().messages, queues.dead.unwrap().messages), (0, 1));
    assert_eq!(admin.purge(Kind::Dead, &service("target")).await.unwrap(), Some(1));
    assert_eq!(admin.purge(Kind::Dead, &service("another")).await.unwrap(), None);
    admin.close().await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_died_while_it_waited_is_shown_too() {
    let (database, broker) = (database().await, virtual_host().await);
    let hub = Hub::start(1, &database, options(&broker));
    hub.is_connected().await;
    let mut old = message(RealClock.now(), 1, "gone");
    old.too_old_at = RealClock.now().plus(Duration::from_millis(200));
    hub.store.accept(vec![old], AcceptMode::Each, deadline()).await.unwrap();
    until("it is buried", || async {
        let report = hub.store.sweep(&|_| false, Duration::from_secs(3600), 10, deadline()).await.unwrap();
        report.buried == 1
    })
    .await;
    until("the copy is there", || async { hub.metric("dead_letter_copies_total") == 1 }).await;
    let mut admin = Admin::connect(options(&broker)).await.unwrap();
    assert_eq!(admin.look(&service("gone")).await.unwrap().dead.unwrap().messages, 1);
    admin.close().await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_goes_back_to_the_store_until_somebody_does() {
    let (database, broker) = (database().await, virtual_host().await);
    let mut settings = options(&broker);
    settings.patience = Duration::from_millis(500);
    let mut hub = Hub::start(1, &database, settings);
    hub.is_connected().await;
    let ids = hub.accept("target", 30).await;
    assert!(claim(&hub, "target", 0).await.is_empty(), "only says that it is wanted");
    until("they are parked", || async { hub.metric("parked_total") > 0 && hub.metric("consumers") == 0 })
        .await;
    let parked = "SELECT count(*) FROM deliveries WHERE publish_after IS NULL";
    assert!(number(&database, parked).await > 0);
    hub.deliver(10);
    hub.has_delivered(&ids).await;
    hub.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_leaves_its_messages_to_the_others() {
    let (database, broker) = (database().await, virtual_host().await);
    let (one, mut two) =
        (Hub::start(1, &database, options(&broker)), Hub::start(2, &database, options(&broker)));
    one.is_connected().await;
    two.is_connected().await;
    let ids = one.accept("target", 50).await;
    until("it has been told", || async { one.queue.next().await == QueueSignal::Due(service("target")) })
        .await;
    claim(&one, "target", 0).await;
    until("some wait here", || async { one.shared.shelves.waiting(&service("target")) > 0 }).await;
    one.end().await;
    two.deliver(10);
    claim(&two, "target", 0).await;
    two.has_delivered(&ids).await;
    two.end().await;
}
