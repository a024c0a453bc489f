//! The leader of `messages` is killed, or frozen, again and again, and every promise is kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::load::Load;
use hub_chaos_tests::receiver::Receiver;
use hub_chaos_tests::{scenario, wait};
use rustix::process::Signal;

use crate::support::{TARGETS, accepted, delivered, lost, receiver, statuses};

const FAULTS: usize = 5;
const UNANSWERED: usize = 100;
const IN_FLIGHT: usize = 10;

/// What happens to the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL, and it is started again.
    Killed,
    /// SIGSTOP until another leads, then SIGCONT.
    Frozen,
}

#[test]
fn every_promise_is_kept_while_leaders_are_killed() -> anyhow::Result<()> {
    scenario::run("ledger-killed", async |folder| promises_are_kept(folder, Fault::Killed, 20_000).await)
}

#[test]
fn every_promise_is_kept_while_leaders_are_frozen() -> anyhow::Result<()> {
    scenario::run("ledger-frozen", async |folder| promises_are_kept(folder, Fault::Frozen, 5_000).await)
}

async fn promises_are_kept(folder: &Folder, fault: Fault, messages: usize) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(folder, 3, &[]).await?;
    let receiver = receiver(&cluster, Duration::from_millis(40)).await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&cluster.client, cluster.urls()?, &TARGETS, 256, &ledger);
    for round in 0..FAULTS {
        accepted(&ledger, messages * (2 * round + 1) / (2 * FAULTS)).await?;
        let leader = cluster.messages_leader().await?;
        at_work(&ledger, &receiver).await?;
        match fault {
            Fault::Killed => kill(&mut cluster, leader).await?,
            Fault::Frozen => freeze(&cluster, leader).await?,
        }
    }
    accepted(&ledger, messages).await?;
    load.finish().await;
    check(&cluster, &ledger, &receiver, messages, fault).await
}

/// Returns at a moment when enough requests wait and enough deliveries are under way.
async fn at_work(ledger: &Ledger, receiver: &Receiver) -> anyhow::Result<()> {
    wait::until("requests wait and deliveries are under way", Duration::from_secs(60), async || {
        let (waiting, in_flight) = (ledger.waiting(), receiver.in_flight());
        anyhow::ensure!(
            waiting >= UNANSWERED && in_flight >= IN_FLIGHT,
            "{waiting} wait, {in_flight} under way"
        );
        Ok(Some(()))
    })
    .await
}

async fn kill(cluster: &mut Cluster, leader: usize) -> anyhow::Result<()> {
    cluster.kill(leader).await?;
    cluster.restart(leader).await?;
    cluster.ready().await
}

async fn freeze(cluster: &Cluster, leader: usize) -> anyhow::Result<()> {
    let node = cluster.nodes.get(leader).context("no such node")?;
    node.signal(Signal::STOP)?;
    let others = wait::until("another node leads", Duration::from_secs(60), async || {
        Ok((cluster.messages_leader().await? != leader).then_some(()))
    });
    others.await?;
    node.signal(Signal::CONT)?;
    cluster.ready().await
}

async fn check(
    cluster: &Cluster,
    ledger: &Ledger,
    receiver: &Receiver,
    messages: usize,
    fault: Fault,
) -> anyhow::Result<()> {
    let balance = delivered(ledger, receiver).await?;
    let complaints = ledger.complaints();
    anyhow::ensure!(complaints.is_empty(), "unexpected answers: {complaints:#?}");
    anyhow::ensure!(balance.accepted >= messages, "only {} messages", balance.accepted);
    // What waits in a frozen node is answered when it goes on, so there nothing has to be repeated.
    let repeated = fault == Fault::Frozen || ledger.repeats() > 0;
    anyhow::ensure!(repeated, "no request had to be repeated: the faults did not happen");
    anyhow::ensure!(balance.duplicated > 0, "nothing arrived twice: the faults did not happen");
    anyhow::ensure!(balance.cancelled > 0, "nothing was cancelled");
    anyhow::ensure!(balance.broken.is_empty(), "cancelled, and arrived: {:?}", balance.broken);
    let statuses = statuses(cluster, ledger).await?;
    let lost = lost(&statuses);
    anyhow::ensure!(
        lost.is_empty(),
        "{} of {} are lost: {:#?}",
        lost.len(),
        statuses.len(),
        lost.iter().take(5)
    );
    Ok(())
}
