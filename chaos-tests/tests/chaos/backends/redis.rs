//! Redis forgets, and dies.

use anyhow::Context;
use hub_chaos_tests::{sizes, wait};

use super::stage::{RECOVERED, Stage};

/// A limit that nobody reaches: so every message is counted.
pub(crate) const LIMIT: &str = "limits.caller_per_second=100000";

/// So many more are accepted while it is away.
const MEANWHILE: usize = 100;

/// All its keys go.
pub(crate) async fn flushed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    all_share(stage, true).await?;
    let ended = keeps_one(stage).await?;
    let redis = stage.servers.redis()?;
    let before = redis.redis(&["KEYS", "*:ended:*"]).await?;
    anyhow::ensure!(before.contains(&ended), "the hubs keep nothing in Redis: {before:?}");
    redis.redis(&["FLUSHALL"]).await?;
    let after = redis.redis(&["KEYS", "*:ended:*"]).await?;
    anyhow::ensure!(!after.contains(&ended), "Redis was not flushed: {after:?}");
    anyhow::ensure!(is_delivered(stage, &ended).await?, "{ended} is no longer shown as it is");
    stage.accepts(MEANWHILE).await?;
    stage.works().await?;
    all_share(stage, true).await?;
    stage.happened(format!("Redis was flushed of {} messages of the hubs", before.lines().count()));
    Ok(())
}

/// SIGKILL; messages are accepted and delivered without it; it is started again.
pub(crate) async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    all_share(stage, true).await?;
    let before = stage.servers.redis_run().await?;
    stage.servers.redis()?.kill().await?;
    all_share(stage, false).await?;
    stage.accepts(MEANWHILE).await?;
    for hub in 0..stage.cluster.nodes.len() {
        stage.works_at(hub).await?;
    }
    stage.servers.redis()?.start().await?;
    let after = stage.servers.redis_run().await?;
    anyhow::ensure!(before != after, "Redis is in its run {before}: it was not killed");
    all_share(stage, true).await?;
    stage.works().await?;
    stage.happened(format!("Redis was killed in its run {before}, each hub missed it; it is in {after}"));
    Ok(())
}

/// Waits until every hub counts with the others in Redis, or every hub by itself.
async fn all_share(stage: &Stage, wanted: bool) -> anyhow::Result<()> {
    let says = format!("hub_cache_up {}", u8::from(wanted));
    for hub in 0..stage.cluster.nodes.len() {
        let url = format!("{}/metrics", stage.url(hub)?);
        wait::until(&format!("hub {hub} says {says}"), RECOVERED, async || {
            let metrics = stage.cluster.client.get(&url).await?.success()?;
            let metrics = metrics.body.as_str().context("text")?;
            Ok(metrics.lines().any(|line| line == says).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn is_delivered(stage: &Stage, id: &str) -> anyhow::Result<bool> {
    let url = format!("{}/api/v1/messages/{id}", stage.url(0)?);
    Ok(stage.cluster.client.get(&url).await?.success()?.text("status")? == "delivered")
}

/// Asks for a message that has come to its end, which is kept by that; its id.
async fn keeps_one(stage: &Stage) -> anyhow::Result<String> {
    let id = stage.works_at(0).await?;
    wait::until("the message has ended", RECOVERED, async || {
        Ok(is_delivered(stage, &id).await?.then_some(()))
    })
    .await?;
    // Once more, when it was known to have ended; it is kept behind the answer.
    let redis = stage.servers.redis()?;
    wait::until("the message is kept in Redis", RECOVERED, async || {
        is_delivered(stage, &id).await?;
        Ok(redis.redis(&["KEYS", "*:ended:*"]).await?.contains(&id).then_some(()))
    })
    .await?;
    Ok(id)
}
