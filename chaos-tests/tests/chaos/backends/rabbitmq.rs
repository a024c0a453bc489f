//! RabbitMQ goes away, and forgets.

use std::collections::HashSet;

use anyhow::Context;
use hub_chaos_tests::{sizes, wait};

use super::stage::{QUICK, RECOVERED, SLOW, Stage};
use crate::support::TARGETS;

/// So many more are accepted while it is away.
const MEANWHILE: usize = 100;

/// A virtual host that only tells whether the disk is the old one.
const MARK: &str = "mark";

/// It is stopped, and started. Messages are accepted meanwhile.
pub(crate) async fn restarted(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let before = stage.servers.rabbitmq_started().await?;
    stage.servers.rabbitmq()?.stop().await?;
    stage.accepts(MEANWHILE).await?;
    stage.servers.rabbitmq()?.start().await?;
    let after = stage.servers.rabbitmq_started().await?;
    anyhow::ensure!(before != after, "RabbitMQ runs since {before}: it was not restarted");
    stage.works().await?;
    stage.happened(format!("RabbitMQ of {before} was restarted; it runs since {after}"));
    Ok(())
}

async fn connections(stage: &Stage) -> anyhow::Result<HashSet<String>> {
    let rows = stage.servers.rabbitmqctl(&["list_connections", "pid"]).await?;
    Ok(rows.lines().map(|row| row.trim().to_owned()).collect())
}

/// Its operator closes all connections.
pub(crate) async fn connections_closed(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let hubs = stage.cluster.nodes.len();
    let before = connections(stage).await?;
    anyhow::ensure!(before.len() >= hubs, "only {} connections", before.len());
    stage.servers.rabbitmqctl(&["close_all_connections", "bye"]).await?;
    let after = wait::until("all connections are others", RECOVERED, async || {
        let now = connections(stage).await?;
        let all = now.len() >= hubs && now.is_disjoint(&before);
        anyhow::ensure!(all, "before: {before:?}, now: {now:?}");
        Ok(Some(now.len()))
    })
    .await?;
    stage.works().await?;
    stage.happened(format!("{} connections to RabbitMQ were closed, {after} opened", before.len()));
    Ok(())
}

/// Messages that lie in the queue of the first target, and how many of them no hub holds.
async fn pile(stage: &Stage) -> anyhow::Result<(Vec<String>, usize)> {
    let target = TARGETS.first().context("a target")?;
    stage.receiver.set_delay(SLOW);
    let ids = stage.burst(target).await?;
    let depth = wait::until("messages lie in the queue", RECOVERED, async || {
        let depths = stage.servers.depths().await?;
        let depth = depths.get(&format!("chaos.{target}")).copied().unwrap_or_default();
        anyhow::ensure!(depth > 0, "{depths:?}");
        Ok(Some(depth))
    })
    .await?;
    Ok((ids, depth))
}

/// Its operator purges all queues.
pub(crate) async fn purged(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let (ids, depth) = pile(stage).await?;
    // As `purge_queue` does, which does not tell how many it took.
    let purge = "lists:sum([N || Q <- rabbit_amqqueue:list(), {ok, N} <- [rabbit_amqqueue:purge(Q)]]).";
    let purged: usize = stage.servers.rabbitmqctl(&["eval", purge]).await?.parse()?;
    anyhow::ensure!(purged > 0, "nothing was purged");
    stage.receiver.set_delay(QUICK);
    stage.arrived(&ids).await?;
    stage.works().await?;
    stage.happened(format!("RabbitMQ's queue held {depth}; {purged} were purged from all queues"));
    Ok(())
}

/// Its disk is lost.
pub(crate) async fn wiped(stage: &mut Stage) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    stage.servers.rabbitmqctl(&["add_vhost", MARK]).await?;
    let (ids, depth) = pile(stage).await?;
    stage.servers.rabbitmq()?.wipe().await?;
    let places = stage.servers.rabbitmqctl(&["list_vhosts"]).await?;
    anyhow::ensure!(!places.lines().any(|place| place.trim() == MARK), "the disk is the old one: {places}");
    stage.receiver.set_delay(QUICK);
    stage.arrived(&ids).await?;
    stage.works().await?;
    stage.happened(format!("RabbitMQ lost its disk, and {depth} messages in a queue with it"));
    Ok(())
}
