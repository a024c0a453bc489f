//! Who gets how much, when: claims, slots, slow and paused targets, connections.

use std::sync::atomic::Ordering;

use hub_core::delivery::SettleOutcome;
use hub_core::port::Slots;

use super::target::{Answer, Target};
use super::*;

impl Bench {
    /// Sends a message to a target of its own and waits for it: whatever the dispatcher was about to do when this was
    /// called has been done by then.
    pub(super) async fn send_and_wait_elsewhere(&self) {
        let target = Target::start(|_| Answer::Status(200)).await;
        self.register(service("elsewhere", &[&target.url]));
        let id = self.send(self.message("elsewhere"));
        self.wait_status(id, Status::Delivered).await;
    }
}

fn all(status: Status, count: usize) -> impl Fn(&[queue::Row]) -> bool {
    move |rows| rows.iter().filter(|row| row.status == status).count() == count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_delivered_in_batches_over_few_connections() {
    let target = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start_following(Options::default());
    let mut combat = service("combat", &[&target.url]);
    combat.delivery.max_concurrency = 20;
    bench.register(combat);
    for _ in 0..1_000 {
        bench.queue.put(bench.message("combat"), bench.clock.now());
    }
    bench.queue.signal(QueueSignal::Started);
    bench.queue.wait("all delivered", all(Status::Delivered, 1_000)).await;
    assert_eq!(target.got().len(), 1_000, "each once");
    assert!(bench.queue.claims().len() < 800, "claims are batched");
    assert!(bench.queue.claims().iter().flatten().all(|want| want.count <= 20));
    assert!(bench.queue.settles().len() < 1_000, "settles are batched");
    assert!(target.connections() < 100, "{} connections for 1000 requests", target.connections());
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_target_takes_its_share_of_slots_and_no_more() {
    let slow = Target::start(|_| Answer::WhenOpened).await;
    let quick = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options { slots: 16, ..Options::default() }).await;
    let mut dead = service("slow", &[&slow.url]);
    dead.delivery.max_concurrency = 200;
    bench.register(dead);
    bench.register(service("quick", &[&quick.url]));
    for _ in 0..50 {
        bench.send(bench.message("slow"));
    }
    slow.wait_for(4).await;
    let sent: Vec<_> = (0..50).map(|_| bench.send(bench.message("quick"))).collect();
    for id in sent {
        bench.wait_status(id, Status::Delivered).await;
    }
    assert_eq!(slow.got().len(), 4, "a quarter of 16");
    slow.open();
    bench.queue.wait("the rest", all(Status::Delivered, 100)).await;
    bench.finish().await;
}

#[tokio::test]
async fn paused_and_unregistered_targets_wait_and_go_on_by_themselves() {
    let target = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options::default()).await;
    let mut paused = service("paused", &[&target.url]);
    paused.paused = true;
    bench.register(paused);
    let (first, second) = (bench.send(bench.message("paused")), bench.send(bench.message("later")));
    bench.send_and_wait_elsewhere().await;
    assert_eq!(bench.queue.row(first).status, Status::Pending);
    assert_eq!(bench.queue.row(second).status, Status::Pending);
    bench.change("paused", |service| service.paused = false);
    bench.wait_status(first, Status::Delivered).await;
    bench.register(service("later", &[&target.url]));
    bench.wait_status(second, Status::Delivered).await;
    bench.finish().await;
}

#[tokio::test]
async fn a_scheduled_message_wakes_the_dispatcher_when_it_is_due() {
    let target = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    bench.send_and_wait_elsewhere().await;
    let message = bench.message("combat");
    let (id, due) = (message.id, bench.clock.now().plus(Duration::from_millis(300)));
    bench.queue.put(message, due);
    bench.queue.signal(QueueSignal::Later(due));
    let row = bench.wait_status(id, Status::Delivered).await;
    assert!(row.ends[0].attempt.as_ref().unwrap().started_at >= due);
    bench.finish().await;
}

#[tokio::test]
async fn a_failed_message_goes_to_another_instance_next() {
    let bad = Target::start(|_| Answer::Status(500)).await;
    let good = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&bad.url, &good.url]));
    let sent: Vec<_> = (0..30).map(|_| bench.send(bench.message("combat"))).collect();
    for id in sent {
        let row = bench.wait_status(id, Status::Delivered).await;
        assert!(row.retry_count <= 1, "the second attempt went to the good one");
    }
    assert!(!bad.got().is_empty());
    bench.finish().await;
}

#[tokio::test]
async fn an_expired_message_is_not_sent_and_a_timeout_is_cut_to_the_end() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let bench = Bench::start(Options::default()).await;
    let mut silent = service("silent", &[&target.url]);
    silent.delivery.timeout_ms = 60_000;
    silent.retry.max_retries = Some(0);
    bench.register(silent);
    let mut over = bench.message("silent");
    over.expires_at = Some(bench.clock.now());
    let over = bench.send(over);
    let row = bench.wait_status(over, Status::Expired).await;
    assert!(row.ends[0].attempt.is_none());
    let mut soon = bench.message("silent");
    soon.expires_at = Some(bench.clock.now().plus(Duration::from_millis(500)));
    let soon = bench.send(soon);
    let row = bench.wait_status(soon, Status::DeadLetter).await;
    assert!(row.ends[0].attempt.as_ref().unwrap().duration_ms <= 30_000, "not the service's 60 s");
    assert_eq!(target.got().len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_claim_whose_lease_is_too_short_is_given_back_and_claimed_anew() {
    let target = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let message = bench.message("combat");
    let id = message.id;
    bench.queue.hand_over(message, bench.clock.now().plus(Duration::from_secs(5)));
    let row = bench.wait_status(id, Status::Delivered).await;
    let ends: Vec<_> = row.ends.iter().map(|end| &end.outcome).collect();
    assert_eq!(ends, [&SettleOutcome::Released, &SettleOutcome::Delivered]);
    assert_eq!(target.got().len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn settles_are_repeated_until_they_are_known_and_claims_until_they_work() {
    let target = Target::start(|_| Answer::Status(200)).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    bench.queue.refuse_settles.store(3, Ordering::SeqCst);
    let first = bench.send(bench.message("combat"));
    bench.wait_status(first, Status::Delivered).await;
    bench.queue.lose_settle_answers.store(1, Ordering::SeqCst);
    let second = bench.send(bench.message("combat"));
    bench.wait_status(second, Status::Delivered).await;
    bench.queue.refuse_claims.store(2, Ordering::SeqCst);
    bench.queue.put(bench.message("combat"), bench.clock.now());
    bench.queue.signal(QueueSignal::Due("combat".parse().unwrap()));
    bench.queue.wait("three", all(Status::Delivered, 3)).await;
    assert_eq!(target.got().len(), 3, "none was sent twice");
    assert_eq!(bench.metric("hub_delivery_late_settles_total"), 0.0);
    bench.finish().await;
}

#[tokio::test]
async fn a_settle_after_the_claim_is_over_is_counted() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let id = bench.send(bench.message("combat"));
    target.wait_for(1).await;
    bench.queue.lose_claim(id);
    target.open();
    bench.queue.wait("settled", |_| bench.metric("hub_delivery_late_settles_total") > 0.0).await;
    bench.finish().await;
}

#[tokio::test]
async fn slots_are_granted_only_while_delivering_and_only_for_who_may_be_called() {
    let bench = Bench::start_following(Options::default());
    let name: ServiceName = "combat".parse().unwrap();
    bench.register(service("combat", &["http://127.0.0.1:1"]));
    assert_eq!(bench.handle.try_reserve(&name), None, "not leading");
    bench.queue.signal(QueueSignal::Started);
    while bench.handle.try_reserve(&name).is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.handle.try_reserve(&name), Some(Duration::from_secs(20)), "timeout and 10 s");
    assert_eq!(bench.handle.try_reserve(&"nobody".parse().unwrap()), None);
    bench.change("combat", |service| service.paused = true);
    assert_eq!(bench.handle.try_reserve(&name), None);
    bench.change("combat", |service| {
        service.paused = false;
        service.delivery.max_concurrency = 2;
    });
    assert_eq!(bench.handle.try_reserve(&name), None, "two of two are held");
    bench.handle.give_back(&name);
    assert!(bench.handle.try_reserve(&name).is_some());
    bench.handle.give_back(&name);
    bench.handle.give_back(&name);
    bench.finish().await;
}
