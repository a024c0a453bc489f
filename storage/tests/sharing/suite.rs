//! The conformance suite of the shared cache: a node's own, and Redis.

use std::sync::Arc;

use hub_storage::memory::LocalCache;
use hub_storage::suite::ManualClock;
use hub_storage::suite::sharing::{Case, Nodes, cases};
use hub_test_servers::{Kind, Place};

use crate::support::{Cluster, patient};

async fn run(case: &Case, nodes: Nodes) {
    if let Err(failure) = (case.run)(&nodes).await {
        panic!("{}: {failure}", case.name);
    }
}

#[tokio::test]
async fn a_node_by_itself_passes_every_case() {
    for case in cases() {
        let cache = Arc::new(LocalCache::new(Arc::new(ManualClock::default()), Arc::new(|| 1)));
        run(&case, Nodes { first: cache.clone(), second: cache, keeps: false }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_passes_every_case() {
    let place = Place::on_shared(Kind::Redis).await.unwrap();
    for case in cases() {
        let mut cluster = Cluster::new(patient(place.url()));
        let (first, second) = (cluster.sharing(2).await, cluster.sharing(2).await);
        let nodes = Nodes { first: Arc::new(first.clone()), second: Arc::new(second.clone()), keeps: true };
        run(&case, nodes).await;
        for node in [first, second] {
            assert_eq!(node.counts().local, 0, "{}: decided by a node itself", case.name);
        }
    }
}
