//! Three hubs, their servers, a receiver, a load and its ledger; and what must hold after each fault and at the end.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::ledger::{Ledger, Promise};
use hub_chaos_tests::load::Load;
use hub_chaos_tests::receiver::Receiver;
use hub_chaos_tests::servers::{Mix, Servers};
use hub_chaos_tests::{sizes, wait};
use serde_json::{Value, json};

use crate::support::{TARGETS, accepted, delivered, receiver};

/// How long the receiver takes to answer: so deliveries are under way at any moment.
pub(crate) const QUICK: Duration = Duration::from_millis(50);

/// The same, so that messages pile up; less than a delivery may take.
pub(crate) const SLOW: Duration = Duration::from_millis(1_500);

/// Until a hub works again after a fault has ended, whatever is in front of a message.
pub(crate) const RECOVERED: Duration = Duration::from_secs(150);

/// Until all that was accepted has ended, for each round of faults.
pub(crate) const ENDED: Duration = Duration::from_secs(240);

/// The counters are what counting gives.
const MISCOUNTED: &str = "SELECT count(*) FROM (SELECT target, sum(depth) AS depth, sum(in_flight) AS held, \
     sum(accepted_total) AS taken FROM backlog GROUP BY target) b FULL JOIN \
    (SELECT target, count(*) AS depth, count(owner) AS held FROM deliveries GROUP BY target) d USING (target) FULL JOIN \
    (SELECT target_service AS target, count(*) AS taken FROM messages GROUP BY target_service) m USING (target) \
    WHERE coalesce(b.depth, 0) <> coalesce(d.depth, 0) OR coalesce(b.held, 0) <> coalesce(d.held, 0) \
     OR coalesce(b.taken, 0) <> coalesce(m.taken, 0)";

/// How attempts ended, and how often.
const ENDS: &str = "SELECT concat_ws(' ', outcome, http_status, error_class, count(*)) FROM attempts \
     GROUP BY outcome, http_status, error_class ORDER BY count(*) DESC";

/// A running scenario.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) servers: Servers,
    pub(crate) receiver: Receiver,
    pub(crate) ledger: Arc<Ledger>,
    load: Option<Load>,
    /// What happened, with what was seen of it.
    faults: Vec<String>,
}

impl Stage {
    /// Three hubs on these servers, which nobody sends to yet.
    pub(crate) async fn start(folder: &Folder, mix: Mix) -> anyhow::Result<Self> {
        Self::start_with(folder, mix, &[]).await
    }

    /// The same, with settings (`section.key=value`).
    pub(crate) async fn start_with(folder: &Folder, mix: Mix, settings: &[&str]) -> anyhow::Result<Self> {
        Self::on(folder, Servers::launch(mix).await?, settings).await
    }

    /// The same, on servers that run.
    pub(crate) async fn on(folder: &Folder, servers: Servers, settings: &[&str]) -> anyhow::Result<Self> {
        let cluster = Cluster::start_with(folder, 3, settings, &servers.environment()).await?;
        let receiver = receiver(&cluster, QUICK).await?;
        let ledger = Arc::new(Ledger::default());
        Ok(Self { cluster, servers, receiver, ledger, load: None, faults: Vec::new() })
    }

    /// Starts the load.
    pub(crate) fn send(&mut self) -> anyhow::Result<()> {
        let sizes = sizes::of_this_run();
        let pace = (sizes.senders, sizes.pace);
        self.load =
            Some(Load::paced(&self.cluster.client, self.cluster.urls()?, &TARGETS, pace, &self.ledger));
        Ok(())
    }

    /// Ends the load; every sender gets its last answer.
    pub(crate) async fn rest(&mut self) {
        if let Some(load) = self.load.take() {
            load.finish().await;
        }
    }

    /// Writes down a fault, with the proof of it.
    pub(crate) fn happened(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Waits until so many more messages are accepted.
    pub(crate) async fn accepts(&self, more: usize) -> anyhow::Result<()> {
        accepted(&self.ledger, self.ledger.accepted() + more).await
    }

    /// Sends one message to a hub, once.
    pub(crate) async fn post(&self, hub: usize, limit: Duration) -> anyhow::Result<(u16, Value)> {
        let url = self.url(hub)?;
        let target = TARGETS.first().context("a target")?;
        let body =
            json!({ "target_service": target, "message_type": "chaos.probe", "content": { "hub": hub } });
        let client = self.cluster.client.with_limit(limit);
        let answer = client.post(&format!("{url}/api/v1/messages"), &body).await?;
        if answer.is_success() {
            self.ledger.promise(answer.text("id")?, Promise::Arrives);
        }
        Ok((answer.status, answer.body))
    }

    /// Waits until this hub takes a message, and that message arrives; its id.
    pub(crate) async fn works_at(&self, hub: usize) -> anyhow::Result<String> {
        let id = wait::until(&format!("hub {hub} accepts"), RECOVERED, async || {
            let (status, body) = self.post(hub, Duration::from_secs(15)).await?;
            anyhow::ensure!(status == 202, "{status} {body}");
            Ok(Some(body.get("id").and_then(Value::as_str).context("an id")?.to_owned()))
        })
        .await?;
        wait::until(&format!("what hub {hub} accepted arrives"), RECOVERED, async || {
            Ok((self.receiver.arrived(&id) > 0).then_some(()))
        })
        .await?;
        Ok(id)
    }

    /// Waits until every hub is ready and works, by itself.
    pub(crate) async fn works(&self) -> anyhow::Result<()> {
        self.cluster.ready().await?;
        for hub in 0..self.cluster.nodes.len() {
            self.works_at(hub).await?;
        }
        self.ledger.as_expected()
    }

    /// Many messages for one target at once.
    pub(crate) async fn burst(&self, target: &str) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        while ids.len() < sizes::of_this_run().burst {
            let more = self.batch(target, 1_000, "").await?;
            more.iter().for_each(|id| self.ledger.promise(id, Promise::Arrives));
            ids.extend(more);
        }
        Ok(ids)
    }

    /// Accepts a batch at the first hub that takes it; their ids.
    pub(crate) async fn batch(&self, target: &str, count: usize, query: &str) -> anyhow::Result<Vec<String>> {
        let message =
            |number| json!({ "target_service": target, "message_type": "chaos.batch", "content": number });
        let body = json!({ "messages": (0..count).map(message).collect::<Vec<_>>() });
        let url = format!("{}/api/v1/messages/batch{query}", self.url(0)?);
        let client = self.cluster.client.with_limit(Duration::from_secs(60));
        let answer = client.post(&url, &body).await?.success()?;
        let results = answer.body.get("results").and_then(Value::as_array).context("results")?;
        let id = |result: &Value| result.get("id").and_then(Value::as_str).map(str::to_owned);
        let ids: Vec<_> = results.iter().filter_map(id).collect();
        anyhow::ensure!(ids.len() == count, "{} of {count} were accepted: {:?}", ids.len(), results.first());
        Ok(ids)
    }

    /// Waits until all of these have arrived.
    pub(crate) async fn arrived(&self, ids: &[String]) -> anyhow::Result<()> {
        wait::until("all of them have arrived", RECOVERED, async || {
            let missing = ids.iter().filter(|id| self.receiver.arrived(id) == 0).count();
            anyhow::ensure!(missing == 0, "{missing} of {} are missing", ids.len());
            Ok(Some(()))
        })
        .await
    }

    /// Base URL of a hub.
    pub(crate) fn url(&self, hub: usize) -> anyhow::Result<String> {
        self.cluster.urls()?.get(hub).cloned().context("no such hub")
    }

    /// Waits until no message is open.
    pub(crate) async fn ended(&self, limit: Duration) -> anyhow::Result<()> {
        wait::until("no message is open", limit, async || {
            let open = self.servers.postgres.sql("SELECT count(*) FROM deliveries").await?;
            anyhow::ensure!(open == "0", "{open} are open");
            Ok(Some(()))
        })
        .await
    }

    /// Every message in the store and its status.
    async fn stored(&self) -> anyhow::Result<HashMap<String, String>> {
        let rows = self.servers.postgres.sql("SELECT id || ' ' || status FROM messages").await?;
        let row = |row: &str| row.split_once(' ').map(|(id, status)| (id.to_owned(), status.to_owned()));
        Ok(rows.lines().filter_map(row).collect())
    }

    /// The end of a scenario in which requests failed: everything ends, and the books are compared.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.rest().await;
        anyhow::ensure!(
            self.ledger.repeats() > 0,
            "no request had to be repeated: the faults did not happen"
        );
        let rounds = u32::try_from(sizes::of_this_run().rounds)?;
        self.close_books(ENDED * rounds).await
    }

    /// Waits until everything has ended, and compares the books.
    pub(crate) async fn close_books(mut self, limit: Duration) -> anyhow::Result<()> {
        self.ledger.as_expected()?;
        self.ended(limit).await?;
        let balance = delivered(&self.ledger, &self.receiver).await?;
        let (broken, few) = (balance.broken.len(), balance.broken.iter().take(5).collect::<Vec<_>>());
        anyhow::ensure!(broken == 0, "{broken} were cancelled, and arrived, for example {few:?}");
        anyhow::ensure!(balance.cancelled > 0, "nothing was cancelled");
        let lost = lost(&self.ledger, &self.stored().await?);
        let few = lost.iter().take(5).collect::<Vec<_>>();
        anyhow::ensure!(lost.is_empty(), "{} of {} are lost: {few:#?}", lost.len(), balance.accepted);
        let miscounted = self.servers.postgres.sql(MISCOUNTED).await?;
        anyhow::ensure!(miscounted == "0", "the counters of {miscounted} targets are not what they count");
        self.are_well()?;
        let mut out = io::stdout().lock();
        for fault in &self.faults {
            writeln!(out, "{fault}")?;
        }
        let ends = self.servers.postgres.sql(ENDS).await?;
        writeln!(out, "how attempts ended: {}", ends.replace('\n', ", "))?;
        let (accepted, cancelled) = (balance.accepted, balance.cancelled);
        let (duplicated, repeats) = (balance.duplicated, self.ledger.repeats());
        writeln!(out, "{accepted} accepted, {cancelled} of them cancelled, none lost")?;
        writeln!(out, "{duplicated} arrived more than once, {repeats} requests were repeated")?;
        Ok(())
    }

    /// Every hub still runs, and none of its threads has panicked.
    pub(crate) fn are_well(&mut self) -> anyhow::Result<()> {
        for node in &mut self.cluster.nodes {
            anyhow::ensure!(node.runs()?, "hub {} has ended", node.number());
            anyhow::ensure!(!node.log()?.contains("panicked"), "hub {} has panicked", node.number());
        }
        Ok(())
    }
}

/// Promises that the store does not keep.
fn lost(ledger: &Ledger, stored: &HashMap<String, String>) -> Vec<String> {
    let is_kept = |id: &String, promise: Promise| match (promise, stored.get(id).map(String::as_str)) {
        (_, None) => false,
        (Promise::Arrives, Some(status)) => status == "delivered",
        (Promise::Never, Some(status)) => status == "cancelled",
        (Promise::Either, Some(_)) => true,
    };
    let broken = ledger.promises().into_iter().filter(|(id, promise)| !is_kept(id, *promise));
    broken.map(|(id, promise)| format!("{id}: {promise:?}, {:?}", stored.get(&id))).collect()
}
