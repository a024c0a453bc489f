//! Restart, stop, panic, and the order of stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hub_core::port::Clock as _;
use prometheus::Registry;
use tokio::sync::Notify;

use super::*;
use crate::clock::HubClock;

const WAIT: Duration = Duration::from_secs(30);

fn kind(stage: Stage, on_error: OnError, on_cancel: OnCancel) -> TaskKind {
    TaskKind { name: "test", stage, on_error, on_cancel }
}

fn tasks() -> (Tasks, Registry) {
    let registry = Registry::new();
    (Tasks::new(Arc::new(HubClock::default()), &registry).unwrap(), registry)
}

fn soon() -> std::time::Instant {
    HubClock::default().instant() + WAIT
}

#[tokio::test]
async fn a_failed_task_starts_again() {
    let (tasks, _registry) = tasks();
    let runs = Arc::new(AtomicU32::new(0));
    let done = Arc::new(Notify::new());
    let (counted, third) = (runs.clone(), done.clone());
    tasks.restarting(kind(Stage::Work, OnError::Restart, OnCancel::Finish), move |_| {
        let (runs, done) = (counted.clone(), third.clone());
        async move {
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 => Err("first".into()),
                1 => panic!("second"),
                _ => {
                    done.notify_one();
                    Ok(())
                }
            }
        }
    });
    tokio::time::timeout(WAIT, done.notified()).await.unwrap();
    tasks.stop(Stage::Work, soon()).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_panic_is_counted_and_stops_the_node_if_its_kind_says_so() {
    let (tasks, registry) = tasks();
    tasks.once(kind(Stage::Base, OnError::StopNode, OnCancel::Finish), |_| async { panic!("on purpose") });
    let failure = tokio::time::timeout(WAIT, tasks.failed()).await.unwrap();
    assert!(failure.error.to_string().contains("on purpose"));
    let counted =
        registry.gather().into_iter().find(|family| family.name() == "hub_task_panics_total").unwrap();
    assert_eq!(counted.get_metric()[0].get_counter().get_value(), 1.0);
}

#[tokio::test]
async fn finishing_tasks_are_waited_for_and_others_dropped() {
    let (tasks, _registry) = tasks();
    let ended = Arc::new(AtomicU32::new(0));
    let counted = ended.clone();
    tasks.once(kind(Stage::Work, OnError::Restart, OnCancel::Finish), move |tokens| async move {
        tokens.soft.cancelled().await;
        tokio::task::yield_now().await;
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    tasks.once(kind(Stage::Work, OnError::Restart, OnCancel::Drop), |_| std::future::pending());
    tasks.once(kind(Stage::Base, OnError::Restart, OnCancel::Finish), |tokens| async move {
        tokens.hard.cancelled().await;
        Ok(())
    });
    tasks.stop(Stage::Work, soon()).await.unwrap();
    assert_eq!(ended.load(Ordering::SeqCst), 1);

    let past = HubClock::default().instant();
    assert_eq!(tasks.stop(Stage::Base, past).await, Err(vec!["test"]));
    tasks.abort();
    tasks.stop(Stage::Base, soon()).await.unwrap();
}
