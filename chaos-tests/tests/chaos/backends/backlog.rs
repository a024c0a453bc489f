//! A long queue for a service that is not there.

use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use hub_chaos_tests::ledger::Promise;
use hub_chaos_tests::servers::Mix;
use hub_chaos_tests::{scenario, sizes};
use serde_json::Value;

use super::stage::{ENDED, Stage};
use crate::support::delivered;

/// It registers when its messages have piled up.
const ABSENT: &str = "absent";

/// Most messages of one request.
const BATCH: usize = 1_000;

/// Requests at a time.
const AT_A_TIME: usize = 4;

#[test]
fn a_backlog_holds_up_nobody_else_and_is_delivered() -> anyhow::Result<()> {
    scenario::run("backlog", async |folder| {
        let mut stage = Stage::start_with(folder, Mix::Postgres, &["messages.backlog_limit=2000000"]).await?;
        let ids = piled_up(&stage).await?;
        // Those of others are accepted and delivered beside it.
        stage.send()?;
        stage.accepts(sizes::of_this_run().between).await?;
        stage.rest().await;
        delivered(&stage.ledger, &stage.receiver).await?;
        let open = is_told(&stage).await?;
        anyhow::ensure!(open == ids.len(), "{open} of {} wait", ids.len());

        ids.iter().for_each(|id| stage.ledger.promise(id, Promise::Arrives));
        stage.receiver.set_delay(Duration::ZERO);
        stage.cluster.register(ABSENT, &stage.receiver.url()).await?;
        stage.happened(format!("{open} messages had piled up"));
        stage.close_books(ENDED.max(sizes::of_this_run().limit / 2)).await
    })
}

/// Accepts the backlog, in batches.
async fn piled_up(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let batches = sizes::of_this_run().backlog.div_ceil(BATCH);
    let batch = |_| stage.batch(ABSENT, BATCH, "?allow_unregistered=true");
    stream::iter(0..batches).map(batch).buffer_unordered(AT_A_TIME).try_concat().await
}

/// How many messages wait, as every hub says; each lists them by pages, too.
async fn is_told(stage: &Stage) -> anyhow::Result<usize> {
    let mut depths = Vec::new();
    for hub in 0..stage.cluster.nodes.len() {
        let url = stage.url(hub)?;
        let page = format!("{url}/api/v1/messages?target_service={ABSENT}&status=pending&limit=50");
        let page = stage.cluster.client.get(&page).await?.success()?;
        let items = page.body.get("items").and_then(Value::as_array).map_or(0, Vec::len);
        anyhow::ensure!(items == 50, "a page of {items}");
        let backlog = format!("{url}/api/v1/services/{ABSENT}/backlog");
        let backlog = stage.cluster.client.get(&backlog).await?.success()?;
        depths.push(backlog.body.get("depth").and_then(Value::as_u64).context("a depth")?);
    }
    depths.dedup();
    let [depth] = depths.as_slice() else { anyhow::bail!("the hubs count differently: {depths:?}") };
    Ok(usize::try_from(*depth)?)
}
