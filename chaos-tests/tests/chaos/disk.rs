//! Disks that fail and fill up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::load::Load;
use hub_chaos_tests::shim::Fault;
use hub_chaos_tests::{scenario, wait};

use crate::support::{TARGETS, accepted, delivered, lost, receiver, send_some, statuses};

const STOPS: Duration = Duration::from_secs(60);

/// A lone node whose disk gets a fault that no node may survive: it stops, says why, and acknowledges nothing more.
fn stops_and_acknowledges_nothing(name: &str, fault: Fault, codes: &[&str]) -> anyhow::Result<()> {
    scenario::run(name, async |folder| {
        let mut cluster = Cluster::start(folder, 1, &[]).await?;
        let receiver = receiver(&cluster, Duration::ZERO).await?;
        let ledger = Arc::new(Ledger::default());
        let refused = send_some(&cluster, 0, 50, &ledger).await?;
        anyhow::ensure!(refused.is_empty(), "{refused:?}");

        cluster.nodes.first().context("one node")?.disk().start(fault)?;
        let refused = send_some(&cluster, 0, 20, &ledger).await?;
        anyhow::ensure!(
            refused.len() == 20,
            "acknowledged after {fault:?}: only {} were refused",
            refused.len()
        );
        let node = cluster.nodes.first_mut().context("one node")?;
        let status = node.ended(STOPS).await?;
        anyhow::ensure!(status.code().is_some_and(|code| code != 0), "ended with {status}");
        let log = node.log()?;
        anyhow::ensure!(codes.iter().any(|code| log.contains(code)), "the log names none of {codes:?}");

        node.disk().end(fault)?;
        cluster.restart_all().await?;
        let statuses = statuses(&cluster, &ledger).await?;
        anyhow::ensure!(lost(&statuses).is_empty(), "{:#?}", lost(&statuses));
        delivered(&ledger, &receiver).await.map(drop)
    })
}

#[test]
fn a_failed_sync_stops_the_node_before_it_acknowledges() -> anyhow::Result<()> {
    stops_and_acknowledges_nothing("disk-eio", Fault::EioOnSync, &["HUB-2013"])
}

#[test]
fn a_full_disk_stops_the_node_before_it_acknowledges() -> anyhow::Result<()> {
    stops_and_acknowledges_nothing("disk-full", Fault::NoSpace, &["HUB-2007", "HUB-2013"])
}

/// Under load only the write-back beside the commits writes to the database file; the commits go on in the log. So the node
/// stops between two of them, and what it acknowledged until then is in the log.
#[test]
fn a_database_file_that_cannot_be_written_stops_the_node_and_loses_nothing() -> anyhow::Result<()> {
    scenario::run("disk-eio-database", async |folder| {
        let mut cluster = Cluster::start(folder, 1, &[]).await?;
        let receiver = receiver(&cluster, Duration::ZERO).await?;
        let ledger = Arc::new(Ledger::default());
        let node = cluster.nodes.first().context("one node")?;
        node.disk().start(Fault::EioOnDatabase)?;
        let load = Load::start(&cluster.client, cluster.urls()?, &TARGETS, 8, &ledger);
        let node = cluster.nodes.first_mut().context("one node")?;
        let status = node.ended(STOPS).await?;
        load.cut_off().await;
        anyhow::ensure!(status.code().is_some_and(|code| code != 0), "ended with {status}");
        let log = node.log()?;
        anyhow::ensure!(log.contains("HUB-2013"), "the log does not name the failing disk");
        anyhow::ensure!(log.contains("writing back to the database file"), "something else failed");
        anyhow::ensure!(ledger.accepted() > 100, "only {} were accepted before", ledger.accepted());

        node.disk().end(Fault::EioOnDatabase)?;
        cluster.restart_all().await?;
        let statuses = statuses(&cluster, &ledger).await?;
        anyhow::ensure!(lost(&statuses).is_empty(), "{:#?}", lost(&statuses));
        let balance = delivered(&ledger, &receiver).await?;
        anyhow::ensure!(balance.broken.is_empty(), "cancelled, and arrived: {:?}", balance.broken);
        Ok(())
    })
}

#[test]
fn a_cluster_outlives_the_failing_disk_of_its_leader() -> anyhow::Result<()> {
    scenario::run("disk-eio-leader", async |folder| {
        let mut cluster = Cluster::start(folder, 3, &[]).await?;
        let receiver = receiver(&cluster, Duration::from_millis(10)).await?;
        let ledger = Arc::new(Ledger::default());
        let load = Load::start(&cluster.client, cluster.urls()?, &TARGETS, 64, &ledger);
        accepted(&ledger, 500).await?;
        let leader = cluster.messages_leader().await?;
        let node = cluster.nodes.get_mut(leader).context("the leader")?;
        node.disk().start(Fault::EioOnSync)?;
        let status = node.ended(STOPS).await?;
        anyhow::ensure!(!status.success(), "ended with {status}");
        anyhow::ensure!(node.log()?.contains("HUB-2013"), "the log does not say why");
        let before = ledger.accepted();
        accepted(&ledger, before + 500).await?;
        cluster.nodes.get(leader).context("the leader")?.disk().end(Fault::EioOnSync)?;
        cluster.restart(leader).await?;
        cluster.ready().await?;
        load.finish().await;
        let balance = delivered(&ledger, &receiver).await?;
        anyhow::ensure!(balance.broken.is_empty(), "cancelled, and arrived: {:?}", balance.broken);
        Ok(())
    })
}

#[test]
fn low_disk_refuses_new_messages_and_nothing_else() -> anyhow::Result<()> {
    scenario::run("disk-low", async |folder| {
        let cluster = Cluster::start(folder, 1, &[]).await?;
        let receiver = receiver(&cluster, Duration::from_millis(500)).await?;
        let ledger = Arc::new(Ledger::default());
        let refused = send_some(&cluster, 0, 100, &ledger).await?;
        anyhow::ensure!(refused.is_empty(), "{refused:?}");

        let node = cluster.nodes.first().context("one node")?;
        node.disk().start(Fault::LowDisk)?;
        wait::until("a message is refused for low disk", STOPS, async || {
            let refused = send_some(&cluster, 0, 1, &ledger).await?;
            let Some((status, body)) = refused.first() else { return Ok(None) };
            anyhow::ensure!(*status == 503 && body["code"] == "HUB-1405", "{status} {body}");
            Ok(Some(()))
        })
        .await?;
        // What was accepted is still delivered and settled.
        delivered(&ledger, &receiver).await?;

        node.disk().end(Fault::LowDisk)?;
        wait::until("messages are taken again", STOPS, async || {
            Ok(send_some(&cluster, 0, 1, &ledger).await?.is_empty().then_some(()))
        })
        .await?;
        delivered(&ledger, &receiver).await.map(drop)
    })
}
