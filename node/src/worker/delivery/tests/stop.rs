//! Draining, giving up, and losing the lead.

use hub_core::delivery::{AttemptOutcome, SettleOutcome};
use hub_core::port::Slots;

use super::target::{Answer, Target};
use super::*;

#[tokio::test]
async fn a_drain_waits_for_attempts_under_way_and_starts_none() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let mut bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let first = bench.send(bench.message("combat"));
    target.wait_for(1).await;
    bench.tokens.soft.cancel();
    while bench.handle.is_delivering() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.handle.try_reserve(&"combat".parse().unwrap()), None);
    let second = bench.send(bench.message("combat"));
    // One that was claimed for this node before the drain began comes too late: it is given back.
    let third = bench.message("combat");
    bench.queue.hand_over(third.clone(), bench.clock.now().plus(Duration::from_secs(20)));
    bench.wait_status(third.id, Status::Pending).await;
    assert_eq!(bench.queue.row(third.id).ends[0].outcome, SettleOutcome::Released);
    assert_eq!(bench.dispatcher.len(), 1);
    assert!(bench.dispatcher.try_join_next().is_none(), "an attempt is under way");
    target.open();
    tokio::time::timeout(Duration::from_secs(60), bench.dispatcher.join_next()).await.unwrap();
    assert_eq!(bench.queue.row(first).status, Status::Delivered);
    assert_eq!(bench.queue.row(second).status, Status::Pending);
    assert_eq!((target.got().len(), bench.handle.slots_used()), (1, 0));
}

#[tokio::test]
async fn giving_up_leaves_attempts_due_again_and_says_that_they_may_have_arrived() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let mut bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let id = bench.send(bench.message("combat"));
    target.wait_for(1).await;
    bench.tokens.hard.cancel();
    tokio::time::timeout(Duration::from_secs(60), bench.dispatcher.join_next()).await.unwrap();
    let row = bench.queue.row(id);
    assert_eq!((row.status, row.retry_count), (Status::Retrying, 0));
    assert_eq!(row.ends[0].attempt.as_ref().unwrap().outcome, AttemptOutcome::NoAnswer);
    assert_eq!(bench.handle.slots_used(), 0);
}

#[tokio::test]
async fn a_node_that_lost_the_lead_settles_what_runs_and_starts_nothing() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let first = bench.send(bench.message("combat"));
    target.wait_for(1).await;
    bench.queue.signal(QueueSignal::Stopped);
    while bench.handle.is_delivering() {
        tokio::task::yield_now().await;
    }
    let second = bench.send(bench.message("combat"));
    target.open();
    bench.wait_status(first, Status::Delivered).await;
    assert_eq!(bench.queue.row(second).status, Status::Pending);
    bench.queue.signal(QueueSignal::Started);
    bench.wait_status(second, Status::Delivered).await;
    bench.finish().await;
}
