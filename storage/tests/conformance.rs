//! The conformance suite over SQLite with a direct replicator.

#![cfg(test)]

use std::sync::Arc;

use hub_core::id::NodeId;
use hub_storage::sqlite::{DiskLimit, Feed, Options, StoreOptions, StorePorts};
use hub_storage::suite::{self, BACKLOG_BOUND, Ids, LocalReplicator, ManualClock, Stage, TestSlots};
use tokio_util::sync::CancellationToken;

async fn on_fresh_stage(case: &suite::Case) {
    let folder = tempfile::tempdir().unwrap();
    let (clock, slots) = (Arc::new(ManualClock::default()), Arc::new(TestSlots::default()));
    let feed = Feed::new(NodeId(1), slots.clone());
    let options = Options { folder: folder.path().join("db"), readers: 2 };
    let machine = options.open(feed.clone()).await.unwrap();
    let reader = machine.reader();
    let replicator = LocalReplicator::new(machine, NodeId(1), feed.clone(), clock.clone());
    let mut options = StoreOptions::new(folder.path().to_owned());
    options.max_backlog = BACKLOG_BOUND;
    options.disk_limit = DiskLimit { bytes: 0, percent: 0 };
    let ports = StorePorts {
        replicator: Arc::new(replicator),
        reader,
        feed,
        clock: clock.clone(),
        ids: Arc::new(Ids::default()),
    };
    let (service, store) = options.build(ports);
    let stop = CancellationToken::new();
    let stage = Stage {
        store: Arc::new(store.clone()),
        queue: Arc::new(store),
        clock,
        slots,
        moved: None,
        has_broker: false,
    };
    let run = async {
        let verdict = (case.run)(&stage).await;
        stop.cancel();
        verdict
    };
    let ((), verdict) = tokio::join!(service.run(stop.clone()), run);
    if let Err(failure) = verdict {
        panic!("{}: {failure}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_passes_every_case() {
    for case in suite::cases() {
        on_fresh_stage(&case).await;
    }
}
