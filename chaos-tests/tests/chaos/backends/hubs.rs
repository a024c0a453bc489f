//! Hubs that die.

use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::{sizes, wait};

use super::stage::{RECOVERED, Stage};

/// So many more are accepted while a hub is dead.
const MEANWHILE: usize = 100;

/// SIGKILL in the middle of deliveries, and it is started again. The other hubs take messages meanwhile, and deliver again
/// what the dead one had under way.
pub(crate) async fn killed(stage: &mut Stage, round: usize) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let victim = round % stage.cluster.nodes.len();
    let under_way = freeze_at_work(stage, victim).await?;
    stage.cluster.kill(victim).await?;
    stage.accepts(MEANWHILE).await?;
    wait::until("what was under way is delivered again", RECOVERED, async || {
        Ok(under_way.iter().any(|(id, times)| stage.receiver.arrived(id) > *times).then_some(()))
    })
    .await?;
    stage.cluster.restart(victim).await?;
    stage.works().await?;
    stage.happened(format!("hub {victim} was killed with {} deliveries under way", under_way.len()));
    Ok(())
}

/// Stops a hub while deliveries of its own are under way; their messages, and how often each has arrived.
async fn freeze_at_work(stage: &Stage, hub: usize) -> anyhow::Result<Vec<(String, usize)>> {
    let owner = stage.cluster.view(hub).await?.node_id.cast_signed();
    let node = stage.cluster.nodes.get(hub).context("no such hub")?;
    let claims = format!("SELECT id FROM deliveries WHERE owner = {owner}");
    wait::until("the hub is at work", RECOVERED, async || {
        node.freeze().await?;
        let claimed = stage.servers.postgres.sql(&claims).await;
        let claimed = claimed.inspect_err(|_| drop(node.thaw()))?;
        let arrived = claimed.lines().map(|id| (id.to_owned(), stage.receiver.arrived(id)));
        let under_way: Vec<_> = arrived.filter(|(_, times)| *times > 0).collect();
        if under_way.is_empty() {
            node.thaw()?;
            return Ok(None);
        }
        Ok(Some(under_way))
    })
    .await
}

/// Two of three are killed: the third has no quorum, and goes on; also when it is killed and started without one.
pub(crate) async fn left_alone(stage: &mut Stage, round: usize) -> anyhow::Result<()> {
    stage.accepts(sizes::of_this_run().between).await?;
    let hubs = stage.cluster.nodes.len();
    let alone = round % hubs;
    for hub in (0..hubs).filter(|hub| *hub != alone) {
        stage.cluster.kill(hub).await?;
    }
    goes_on_alone(stage, alone).await?;
    stage.cluster.kill(alone).await?;
    stage.cluster.restart(alone).await?;
    goes_on_alone(stage, alone).await?;
    for hub in (0..hubs).filter(|hub| *hub != alone) {
        stage.cluster.nodes.get_mut(hub).context("no such hub")?.launch(&[])?;
    }
    for hub in (0..hubs).filter(|hub| *hub != alone) {
        stage.cluster.nodes.get_mut(hub).context("no such hub")?.listening().await?;
    }
    stage.works().await?;
    stage.happened(format!("hub {alone} had no quorum, and none after a restart"));
    Ok(())
}

async fn goes_on_alone(stage: &Stage, hub: usize) -> anyhow::Result<()> {
    wait::until("no leader is known", Duration::from_secs(60), async || {
        let leader = stage.cluster.view(hub).await?.groups.control.leader;
        anyhow::ensure!(leader.is_none(), "{leader:?} leads");
        Ok(Some(()))
    })
    .await?;
    stage.works_at(hub).await?;
    stage.accepts(MEANWHILE).await?;
    let leader = stage.cluster.view(hub).await?.groups.control.leader;
    anyhow::ensure!(leader.is_none(), "there was a quorum: {leader:?} leads");
    Ok(())
}
