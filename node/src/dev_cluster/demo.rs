//! Live traffic: a service that takes messages, and a sender that asks one node after another.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hub_core::id::ServiceName;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{DevCluster, Error};
use crate::bench::{Receiver, SharedLedger, Totals};
use crate::client::{self, Call, Client, source};

/// The service that takes the messages.
pub(crate) const SERVICE: &str = "demo";
/// Who sends them.
const SENDER: &str = "demo-sender";
/// A message that no node takes for so long has failed.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Before a message is offered again.
const AGAIN: Duration = Duration::from_millis(100);
/// Messages under way at a time; further ones are not made.
const UNDER_WAY: usize = 500;
/// Ids that are remembered, so that a long trial needs no more and more memory.
const REMEMBERED: usize = 100_000;

/// What the traffic amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages made.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
    /// Offered again, with the same key, after a node did not answer or refused for a while.
    pub repeated: u64,
    /// The ledger.
    pub ledger: Totals,
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    failed: AtomicU64,
    repeated: AtomicU64,
}

/// Live traffic; ends when it is dropped.
#[derive(Debug)]
pub struct Demo {
    ledger: Arc<SharedLedger>,
    counters: Arc<Counters>,
    _receiver: Receiver,
    _sender: JoinSet<()>,
}

impl Demo {
    /// Registers the service and begins to send, `rate` messages a second.
    ///
    /// # Errors
    /// When the service cannot listen or be registered.
    pub async fn start(cluster: &DevCluster, rate: f64) -> Result<Self, Error> {
        let fail = |error: crate::bench::Error| Error::Demo(error.to_string());
        let ledger = Arc::new(SharedLedger::new().map_err(fail)?);
        let receiver =
            Receiver::start(IpAddr::V4(Ipv4Addr::LOCALHOST), Arc::clone(&ledger)).await.map_err(fail)?;
        let url = receiver.url().map_err(fail)?;
        let body = json!({
            "name": SERVICE,
            "instances": [{ "id": "demo-1", "url": url.as_str().trim_end_matches('/') }],
            "health_check": { "kind": "http", "path": "/health" },
            "tags": ["demo"],
        });
        cluster.client()?.send(Call::post("/api/v1/services/register").json(body.to_string())).await?;
        let counters = Arc::new(Counters::default());
        let mut sender = JoinSet::new();
        sender.spawn(send(clients(cluster)?, rate, Arc::clone(&ledger), Arc::clone(&counters)));
        Ok(Self { ledger, counters, _receiver: receiver, _sender: sender })
    }

    /// What the traffic amounts to so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut ledger = self.ledger.lock();
        ledger.forget(REMEMBERED);
        Counts {
            sent: self.counters.sent.load(Ordering::Relaxed),
            failed: self.counters.failed.load(Ordering::Relaxed),
            repeated: self.counters.repeated.load(Ordering::Relaxed),
            ledger: ledger.totals(),
        }
    }
}

/// A client for each node, which asks that node first and then the others.
fn clients(cluster: &DevCluster) -> Result<Vec<Client>, Error> {
    let name: ServiceName = SENDER.parse().map_err(|error| Error::Key(format!("{error}")))?;
    let token = cluster.token(&name)?;
    let urls = cluster.urls();
    (0..urls.len())
        .map(|first| {
            let mut urls = urls.clone();
            urls.rotate_left(first);
            let options = client::Options { urls, token: token.clone(), timeout: Duration::from_secs(6) };
            Ok(options.build()?)
        })
        .collect()
}

async fn send(clients: Vec<Client>, rate: f64, ledger: Arc<SharedLedger>, counters: Arc<Counters>) {
    let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    let mut clients = clients.iter().cycle();
    loop {
        tokio::select! {
            _ = tick.tick(), if under_way.len() < UNDER_WAY => {
                let Some(client) = clients.next() else { return };
                let number = counters.sent.fetch_add(1, Ordering::Relaxed) + 1;
                under_way.spawn(one(client.clone(), number, Arc::clone(&ledger), Arc::clone(&counters)));
            }
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// Offers one message until a node has taken it: always with the same key, so that it is taken once.
async fn one(client: Client, number: u64, ledger: Arc<SharedLedger>, counters: Arc<Counters>) {
    #[derive(serde::Deserialize)]
    struct Accepted {
        id: uuid::Uuid,
    }
    let body = json!({
        "sender_service": SENDER,
        "target_service": SERVICE,
        "message_type": "demo.tick",
        "content": { "number": number },
    })
    .to_string();
    let Ok(key) = source::request_key() else { return };
    let began = source::instant();
    loop {
        let call = Call::post("/api/v1/messages").json(body.clone()).key(Some(key.clone()));
        let answer = client.send(call).await.and_then(|answer| answer.json::<Accepted>());
        match answer {
            Ok(accepted) => return ledger.lock().accept(accepted.id.as_u128(), source::instant()),
            Err(error) if began.elapsed() < GIVE_UP && may_pass(&error) => {
                counters.repeated.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Trying again may help.
fn may_pass(error: &client::Error) -> bool {
    match error {
        client::Error::Refused(problem) => problem.is_passing() || problem.status == 429,
        client::Error::Unknown { .. } | client::Error::Unreachable { .. } => true,
        _ => false,
    }
}
