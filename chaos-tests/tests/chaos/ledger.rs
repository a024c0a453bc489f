//! The leader of `messages` is killed, or frozen, again and again, and every promise is kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::load::Load;
use hub_chaos_tests::node::Node;
use hub_chaos_tests::receiver::{Receiver, UnderWay};
use hub_chaos_tests::{scenario, wait};

use crate::support::{TARGETS, accepted, delivered, lost, receiver, statuses};

const MESSAGES: usize = 20_000;
const FAULTS: usize = 5;
/// At the moment of each fault.
const UNANSWERED: usize = 100;
const IN_FLIGHT: usize = 10;
const AT_WORK: Duration = Duration::from_secs(60);

/// What happens to the leader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL, and it is started again.
    Killed,
    /// SIGSTOP, later SIGCONT: by turns as soon as another leads, and only after that one has repeated what was under way.
    Frozen,
}

#[test]
fn every_promise_is_kept_while_leaders_are_killed() -> anyhow::Result<()> {
    scenario::run("ledger-killed", async |folder| promises_are_kept(folder, Fault::Killed).await)
}

#[test]
fn every_promise_is_kept_while_leaders_are_frozen() -> anyhow::Result<()> {
    scenario::run("ledger-frozen", async |folder| promises_are_kept(folder, Fault::Frozen).await)
}

async fn promises_are_kept(folder: &Folder, fault: Fault) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(folder, 3, &[]).await?;
    // Slow enough that deliveries are under way at any moment.
    let receiver = receiver(&cluster, Duration::from_millis(100)).await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&cluster.client, cluster.urls()?, &TARGETS, 256, &ledger);
    let mut cut_off = Vec::new();
    for round in 0..FAULTS {
        accepted(&ledger, MESSAGES * (2 * round + 1) / (2 * FAULTS)).await?;
        let leader = cluster.messages_leader().await?;
        let node = cluster.nodes.get(leader).context("no such node")?;
        let under_way = freeze_at_work(node, &ledger, &receiver).await?;
        match fault {
            Fault::Killed => {
                cluster.kill(leader).await?;
                cluster.restart(leader).await?;
                cut_off.push(under_way);
            }
            Fault::Frozen => {
                another_leads(&cluster, leader).await?;
                if round % 2 == 1 {
                    repeated(&receiver, &under_way).await?;
                }
                node.thaw()?;
            }
        }
        cluster.ready().await?;
    }
    accepted(&ledger, MESSAGES).await?;
    for under_way in &cut_off {
        repeated(&receiver, under_way).await?;
    }
    load.finish().await;
    check(&cluster, &ledger, &receiver).await
}

/// Stops a leader while enough requests wait and enough deliveries are under way: they do so still when it stands still.
/// Answers those deliveries.
async fn freeze_at_work(node: &Node, ledger: &Ledger, receiver: &Receiver) -> anyhow::Result<Vec<UnderWay>> {
    let at_work = || {
        let (waiting, under_way) = (ledger.waiting(), receiver.under_way());
        let enough = waiting >= UNANSWERED && under_way.len() >= IN_FLIGHT;
        anyhow::ensure!(enough, "{waiting} requests wait, {} deliveries are under way", under_way.len());
        Ok(under_way)
    };
    wait::until("the leader is at work", AT_WORK, async || {
        at_work()?;
        node.freeze().await?;
        let under_way = at_work();
        if under_way.is_err() {
            node.thaw()?;
        }
        under_way.map(Some)
    })
    .await
}

async fn another_leads(cluster: &Cluster, frozen: usize) -> anyhow::Result<()> {
    wait::until("another node leads", Duration::from_secs(60), async || {
        Ok((cluster.messages_leader().await? != frozen).then_some(()))
    })
    .await
}

/// Waits until deliveries of a dead or frozen leader are made again: their claims have run out.
async fn repeated(receiver: &Receiver, under_way: &[UnderWay]) -> anyhow::Result<()> {
    wait::until("what was under way is repeated", Duration::from_secs(90), async || {
        Ok((receiver.repeated(under_way) > 0).then_some(()))
    })
    .await
}

async fn check(cluster: &Cluster, ledger: &Ledger, receiver: &Receiver) -> anyhow::Result<()> {
    let balance = delivered(ledger, receiver).await?;
    ledger.as_expected()?;
    anyhow::ensure!(balance.accepted >= MESSAGES, "only {} messages", balance.accepted);
    anyhow::ensure!(ledger.repeats() > 0, "no request had to be repeated: the faults did not happen");
    anyhow::ensure!(balance.duplicated > 0, "nothing arrived twice: the faults did not happen");
    anyhow::ensure!(balance.cancelled > 0, "nothing was cancelled");
    let (broken, few) = (balance.broken.len(), balance.broken.iter().take(5).collect::<Vec<_>>());
    anyhow::ensure!(broken == 0, "{broken} were cancelled, and arrived, for example {few:?}");
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
