//! A follower that was down catches up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::{Cluster, Group};
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::load::Load;
use hub_chaos_tests::{scenario, wait};

use crate::support::{TARGETS, accepted, delivered, lost, receiver, statuses};

const CAUGHT_UP: Duration = Duration::from_secs(120);

async fn messages_group(cluster: &Cluster, node: usize) -> anyhow::Result<Group> {
    Ok(cluster.view(node).await?.groups.messages()?.clone())
}

/// A follower is down while messages are accepted, `until` the leader's group is as wanted; then it comes back.
fn comes_back(
    name: &str,
    settings: &[&str],
    until: fn(&Group, u64) -> bool,
    installs: bool,
) -> anyhow::Result<()> {
    scenario::run(name, async |folder| {
        let mut cluster = Cluster::start(folder, 3, settings).await?;
        let receiver = receiver(&cluster, Duration::ZERO).await?;
        let ledger = Arc::new(Ledger::default());
        let leader = cluster.messages_leader().await?;
        let follower = (leader + 1) % 3;
        let urls: Vec<_> = cluster
            .urls()?
            .into_iter()
            .enumerate()
            .filter(|(at, _)| *at != follower)
            .map(|(_, url)| url)
            .collect();
        let before = messages_group(&cluster, follower).await?.applied_index;
        cluster.kill(follower).await?;
        let load = Load::start(&cluster.client, urls, &TARGETS, 32, &ledger);
        accepted(&ledger, 1_000).await?;
        let end = wait::until("the log is as wanted", CAUGHT_UP, async || {
            let group = messages_group(&cluster, leader).await?;
            anyhow::ensure!(until(&group, before), "the follower had {before}, the leader has {group:?}");
            Ok(Some(group.last_log_index))
        })
        .await?;
        load.finish().await;
        cluster.restart(follower).await?;
        wait::until("the follower has caught up", CAUGHT_UP, async || {
            Ok((messages_group(&cluster, follower).await?.applied_index >= end).then_some(()))
        })
        .await?;
        cluster.ready().await?;
        let installed = installed(&cluster, follower).await?;
        anyhow::ensure!((installed > 0) == installs, "{installed} snapshots were installed");
        let statuses = statuses(&cluster, &ledger).await?;
        anyhow::ensure!(lost(&statuses).is_empty(), "{:#?}", lost(&statuses));
        delivered(&ledger, &receiver).await.map(drop)
    })
}

/// How many snapshots of `messages` a node has installed since it started.
async fn installed(cluster: &Cluster, node: usize) -> anyhow::Result<u64> {
    let url = cluster.urls()?.get(node).cloned().context("no such node")?;
    let metrics = cluster.client.get(&format!("{url}/metrics")).await?.success()?;
    let text = metrics.body.as_str().context("metrics are text")?.to_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("hub_raft_snapshots_installed_total") && line.contains("\"messages\""))
        .context("no metric of installed snapshots")?;
    let value = line.rsplit(' ').next().context("a metric has a value")?;
    Ok(value.parse::<f64>()? as u64)
}

#[test]
fn by_the_log() -> anyhow::Result<()> {
    let not_purged = |group: &Group, had: u64| group.last_log_index > had + 10 && group.purged_index <= had;
    comes_back("catch-up-log", &[], not_purged, false)
}

#[test]
fn by_a_snapshot() -> anyhow::Result<()> {
    let purged_past = |group: &Group, had: u64| group.purged_index > had;
    comes_back("catch-up-snapshot", &[], purged_past, true)
}
