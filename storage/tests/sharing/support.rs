//! Nodes that share a Redis.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hub_core::limit::{Ask, Demand, Fate, Key, Rate, Ruling};
use hub_core::port::SharedCache;
use hub_storage::memory::LocalCache;
use hub_storage::redis::{Endpoint, Handle, Options, Ports, Standing};
use hub_storage::suite::{Ids, ManualClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be busy with other tests.
const DEADLINE: Duration = Duration::from_secs(120);

/// Nodes in this process; they end with it.
pub(crate) struct Cluster {
    options: Options,
    running: JoinSet<()>,
}

/// A name that nobody else uses.
pub(crate) fn namespace() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test:{{{}-{}}}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits long for Redis: what is tested is what it says, on however busy a machine.
pub(crate) fn patient(url: &str) -> Options {
    let mut options = Options::new(Endpoint::parse(url).unwrap(), namespace());
    options.timeout = Duration::from_secs(20);
    options
}

impl Cluster {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, running: JoinSet::new() }
    }

    /// A node of a cluster that has `live` of them.
    pub(crate) fn node(&mut self, live: usize) -> Handle {
        let clock = Arc::new(ManualClock::default());
        let local = LocalCache::new(clock.clone(), Arc::new(move || live));
        let ports = Ports { clock, ids: Arc::new(Ids::default()), local };
        let (service, handle) = self.options.clone().build(ports).unwrap();
        self.running.spawn(service.run(CancellationToken::new()));
        handle
    }

    /// A node that Redis has answered.
    pub(crate) async fn sharing(&mut self, live: usize) -> Handle {
        let node = self.node(live);
        shares(&node).await;
        node
    }
}

/// Waits until `probe` gives a value.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let waited = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

/// Waits until Redis decides for the node.
pub(crate) async fn shares(node: &Handle) {
    until("shared", async || (node.standing() == Standing::Shared).then_some(())).await;
}

/// Waits until the node decides by itself; why it does.
pub(crate) async fn stands_alone(node: &Handle) -> String {
    until("alone", async || match node.standing() {
        Standing::Local(reason) => Some(reason),
        _ => None,
    })
    .await
}

/// So slow that no permit comes back while a test runs.
pub(crate) fn frozen(burst: u32) -> Rate {
    Rate::every(Duration::from_secs(24 * 3600), burst)
}

/// What becomes of a demand of the caller `name`.
pub(crate) async fn take(node: &Handle, name: &str, rate: Rate, permits: u32) -> Ruling {
    let demand = Demand { key: Key::Caller(name.into()), rate, permits };
    let verdict = node.take(&Ask { caller: Some(demand), ..Ask::default() }).await;
    verdict.unwrap().caller.unwrap()
}

/// How many of `tries` single permits the node gives.
pub(crate) async fn taken(node: &Handle, name: &str, rate: Rate, tries: u32) -> u32 {
    let mut taken = 0;
    for _ in 0..tries {
        taken += u32::from(take(node, name, rate, 1).await.fate == Fate::Taken);
    }
    taken
}
