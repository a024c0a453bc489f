//! What several of the tests do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use hub_chaos_tests::client::Client;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::ledger::{Balance, Ledger, Promise};
use hub_chaos_tests::receiver::Receiver;
use hub_chaos_tests::wait;
use serde_json::{Value, json};

/// Until everything that is due has arrived: leases of killed nodes run out meanwhile.
pub(crate) const DELIVERED: Duration = Duration::from_secs(150);

/// Until a load has reached a count.
pub(crate) const LOADED: Duration = Duration::from_secs(150);

/// Two services at one receiver.
pub(crate) const TARGETS: [&str; 2] = ["target-a", "target-b"];

/// Registers [`TARGETS`] at a new receiver.
pub(crate) async fn receiver(cluster: &Cluster, delay: Duration) -> anyhow::Result<Receiver> {
    let receiver = Receiver::start(delay).await?;
    for target in TARGETS {
        cluster.register(target, &receiver.url()).await?;
    }
    Ok(receiver)
}

/// Waits until so many messages are accepted.
pub(crate) async fn accepted(ledger: &Ledger, count: usize) -> anyhow::Result<()> {
    wait::until(&format!("{count} messages are accepted"), LOADED, async || {
        if let Err(unexpected) = ledger.as_expected() {
            return Ok(Some(Err(unexpected)));
        }
        anyhow::ensure!(ledger.accepted() >= count, "{} are", ledger.accepted());
        Ok(Some(Ok(())))
    })
    .await?
}

/// Waits until everything that is due has arrived, and gives the balance then.
pub(crate) async fn delivered(ledger: &Ledger, receiver: &Receiver) -> anyhow::Result<Balance> {
    wait::until("everything due has arrived", DELIVERED, async || {
        let balance = ledger.balance(receiver);
        let (missing, example) = (balance.missing.len(), balance.missing.first().cloned());
        anyhow::ensure!(missing == 0, "{missing} of {} are missing, for example {example:?}", balance.due);
        Ok(Some(balance))
    })
    .await
}

/// The status of every promised message: `None` for one that no longer exists.
pub(crate) async fn statuses(
    cluster: &Cluster,
    ledger: &Ledger,
) -> anyhow::Result<BTreeMap<String, (Promise, Option<String>)>> {
    let urls = cluster.urls()?;
    let looks = ledger.promises().into_iter().enumerate().map(|(index, (id, promise))| {
        let url = urls.get(index % urls.len()).cloned().unwrap_or_default();
        let client = cluster.client.clone();
        async move {
            let status = status(&client, &url, &id).await?;
            anyhow::Ok((id, (promise, status)))
        }
    });
    stream::iter(looks).buffer_unordered(64).try_collect().await
}

async fn status(client: &Client, url: &str, id: &str) -> anyhow::Result<Option<String>> {
    wait::until("a fresh read", Duration::from_secs(30), async || {
        let answer = client.get(&format!("{url}/api/v1/messages/{id}")).await?;
        if answer.status == 404 {
            return Ok(Some(None));
        }
        Ok(Some(Some(answer.success()?.text("status")?.to_owned())))
    })
    .await
}

/// Promised messages that are not there, and promised cancellations that are not kept.
pub(crate) fn lost(statuses: &BTreeMap<String, (Promise, Option<String>)>) -> Vec<String> {
    let lost = statuses.iter().filter(|(_, (promise, status))| match status.as_deref() {
        None => true,
        Some(status) => *promise == Promise::Never && status != "cancelled",
    });
    lost.map(|(id, (promise, status))| format!("{id}: {promise:?}, {status:?}")).collect()
}

/// Sends messages one after the other through one node; answers the ids of those that were accepted.
pub(crate) async fn send_some(
    cluster: &Cluster,
    node: usize,
    count: usize,
    ledger: &Arc<Ledger>,
) -> anyhow::Result<Vec<(u16, Value)>> {
    let url = cluster.urls()?.get(node).cloned().context("no such node")?;
    let mut refused = Vec::new();
    for number in 0..count {
        let body = json!({
            "target_service": TARGETS.first().copied().unwrap_or_default(),
            "message_type": "chaos.some",
            "content": { "number": number },
        });
        let Ok(answer) = cluster.client.post(&format!("{url}/api/v1/messages"), &body).await else {
            refused.push((0, Value::Null));
            continue;
        };
        if answer.is_success() {
            ledger.promise(answer.text("id")?, Promise::Arrives);
        } else {
            refused.push((answer.status, answer.body));
        }
    }
    Ok(refused)
}
