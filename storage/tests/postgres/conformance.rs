//! The conformance suite, every case.

use std::sync::Arc;

use hub_core::port::Clock;
use hub_storage::suite::{self, BACKLOG_BOUND, ManualClock, Stage};
use tokio::sync::Mutex;

use crate::base::{Base, Node};

async fn on_fresh_stage(case: &suite::Case) {
    let base = Base::with_hands().await;
    let clock = Arc::new(ManualClock::default());
    let node = Node::start_with(&base.url, 1, clock.clone(), |options| options.max_backlog = BACKLOG_BOUND);
    // One connection moves the database's clock.
    let hands = Arc::new(Mutex::new(base.connect().await));
    let moved: suite::Moved = Arc::new(move |now| {
        let hands = Arc::clone(&hands);
        Box::pin(async move {
            let query = sqlx::query("UPDATE hands SET at = hub_time($1)").bind(now.as_millis());
            let done = query.execute(&mut *hands.lock().await).await;
            done.map(drop).map_err(|error| error.to_string())
        })
    });
    let store = Arc::new(node.store.clone());
    let stage = Stage {
        store: store.clone(),
        queue: store,
        clock: clock.clone(),
        slots: node.slots.clone(),
        moved: Some(moved),
        has_broker: false,
    };
    assert_eq!(clock.now().as_millis(), 1_800_000_000_000, "where the database's clock stands");
    let verdict = (case.run)(&stage).await;
    drop(stage);
    node.end().await;
    if let Err(failure) = verdict {
        panic!("{}: {failure}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_passes_every_case() {
    let cases = suite::cases();
    for case in &cases {
        on_fresh_stage(case).await;
    }
    println!("{} cases of the message store on Postgres", cases.len());
}
