//! Redis forgets, and dies.

use hub_chaos_tests::sizes;

use super::stage::Stage;

/// So many more are accepted while it is away.
const MEANWHILE: usize = 100;

/// All its keys go.
pub(crate) async fn flushed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let redis = stage.servers.redis()?;
    redis.redis(&["SET", "mark", "1"]).await?;
    let before = redis.redis(&["DBSIZE"]).await?;
    redis.redis(&["FLUSHALL"]).await?;
    let mark = redis.redis(&["EXISTS", "mark"]).await?;
    anyhow::ensure!(mark == "0", "Redis was not flushed");
    stage.accepts(MEANWHILE).await?;
    stage.works().await?;
    stage.happened(format!("Redis was flushed of {before} keys"));
    Ok(())
}

/// SIGKILL; messages are accepted and delivered without it; it is started again.
pub(crate) async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let before = stage.servers.redis_run().await?;
    stage.servers.redis()?.kill().await?;
    stage.accepts(MEANWHILE).await?;
    for hub in 0..stage.cluster.nodes.len() {
        stage.works_at(hub).await?;
    }
    stage.servers.redis()?.start().await?;
    let after = stage.servers.redis_run().await?;
    anyhow::ensure!(before != after, "Redis is in its run {before}: it was not killed");
    stage.works().await?;
    stage.happened(format!("Redis was killed in its run {before}; it is in {after}"));
    Ok(())
}
