//! All three nodes lose power at once, under load.

use std::sync::Arc;
use std::time::Duration;

use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::load::Load;
use hub_chaos_tests::power::{self, Loss, Unsynced};
use hub_chaos_tests::receiver::Receiver;
use hub_chaos_tests::shim::Fault;
use hub_chaos_tests::{scenario, wait};

use crate::support::{TARGETS, accepted, delivered, lost, receiver, statuses};

/// So many messages are answered before the power goes.
const BEFORE: usize = 2_000;

/// So many requests wait for an answer when it goes.
const UNANSWERED: usize = 100;

struct Cut {
    cluster: Cluster,
    ledger: Arc<Ledger>,
    receiver: Receiver,
    losses: Vec<Loss>,
}

/// A cluster under load whose power goes and comes back. With `fault`, its disks have it from the start of the load.
async fn cut_under_load(folder: &Folder, unsynced: Unsynced, fault: Option<Fault>) -> anyhow::Result<Cut> {
    let mut cluster = Cluster::start(folder, 3, &[]).await?;
    let receiver = receiver(&cluster, Duration::from_millis(20)).await?;
    for (node, fault) in cluster.nodes.iter().filter_map(|node| Some((node, fault?))) {
        node.disk().start(fault)?;
    }
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&cluster.client, cluster.urls()?, &TARGETS, 2 * UNANSWERED, &ledger);
    accepted(&ledger, BEFORE).await?;
    let waiting = wait::until("requests wait", Duration::from_secs(30), async || {
        let waiting = ledger.waiting();
        Ok((waiting >= UNANSWERED).then_some(waiting))
    })
    .await?;
    cluster.kill_all().await?;
    load.cut_off().await;
    anyhow::ensure!(waiting >= UNANSWERED, "the power went in the middle of work");
    let mut losses = Vec::new();
    for node in &cluster.nodes {
        losses.push(power::cut(node.disk(), unsynced)?);
        if let Some(fault) = fault {
            node.disk().end(fault)?;
        }
    }
    cluster.restart_all().await?;
    Ok(Cut { cluster, ledger, receiver, losses })
}

async fn nothing_is_lost(folder: &Folder, unsynced: Unsynced) -> anyhow::Result<()> {
    let cut = cut_under_load(folder, unsynced, None).await?;
    anyhow::ensure!(
        cut.losses.iter().all(|loss| loss.files > 0),
        "the power cut took nothing: {:?}",
        cut.losses
    );
    let statuses = statuses(&cut.cluster, &cut.ledger).await?;
    let lost = lost(&statuses);
    anyhow::ensure!(
        lost.is_empty(),
        "{} of {} are lost: {:#?}",
        lost.len(),
        statuses.len(),
        lost.iter().take(5)
    );
    let balance = delivered(&cut.ledger, &cut.receiver).await?;
    anyhow::ensure!(balance.broken.is_empty(), "cancelled, and arrived: {:?}", balance.broken);
    Ok(())
}

#[test]
fn every_accepted_message_survives() -> anyhow::Result<()> {
    scenario::run("power-cut", async |folder| nothing_is_lost(folder, Unsynced::Lost).await)
}

#[test]
fn every_accepted_message_survives_torn_writes() -> anyhow::Result<()> {
    scenario::run("power-cut-torn", async |folder| {
        nothing_is_lost(folder, Unsynced::Torn { seed: 20_261_123 }).await
    })
}

/// The test above can fail: with the syncs taken out, it finds the loss.
#[test]
fn without_syncs_the_loss_is_found() -> anyhow::Result<()> {
    scenario::run("power-cut-no-sync", async |folder| {
        let cut = cut_under_load(folder, Unsynced::Lost, Some(Fault::IgnoreSync)).await?;
        let statuses = statuses(&cut.cluster, &cut.ledger).await?;
        let lost = lost(&statuses).len();
        anyhow::ensure!(lost >= BEFORE, "only {lost} of {} are lost without any sync", statuses.len());
        Ok(())
    })
}
