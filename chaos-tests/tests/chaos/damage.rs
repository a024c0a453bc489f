//! Logs that come back from the disk other than they were written.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hub_chaos_tests::cluster::Cluster;
use hub_chaos_tests::ledger::Ledger;
use hub_chaos_tests::{scenario, wait};

use crate::support::{delivered, lost, receiver, send_some, statuses};

/// What is done to the log of `messages` on a node that is down.
fn is_refused_and_cured_by_rejoining(
    name: &str,
    damage: fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    scenario::run(name, async |folder| {
        let mut cluster = Cluster::start(folder, 3, &[]).await?;
        let receiver = receiver(&cluster, Duration::ZERO).await?;
        let ledger = Arc::new(Ledger::default());
        let refused = send_some(&cluster, 0, 200, &ledger).await?;
        anyhow::ensure!(refused.is_empty(), "{refused:?}");
        let victim = (cluster.messages_leader().await? + 1) % 3;
        let known = cluster.view(victim).await?.node_id;
        // A stop in good order: all that the log holds is then certainly synced.
        cluster.nodes.get_mut(victim).context("a follower")?.stop().await?;
        damage(&log_file(&cluster.nodes.get(victim).context("a follower")?.data())?)?;

        let node = cluster.nodes.get_mut(victim).context("a follower")?;
        node.launch(&[])?;
        let status = node.ended(Duration::from_secs(60)).await?;
        anyhow::ensure!(!status.success(), "started on a damaged log, and ended with {status}");
        anyhow::ensure!(node.log()?.contains("HUB-2006"), "the log does not say what is wrong");

        let other = cluster.nodes.get((victim + 1) % 3).context("another")?.raft_addr()?.to_owned();
        let node = cluster.nodes.get_mut(victim).context("a follower")?;
        node.start(&["--rejoin", "--join", &other]).await?;
        wait::until("the node has joined under a new id", Duration::from_secs(90), async || {
            let view = cluster.view(victim).await?;
            let voters = &view.groups.messages()?.voters;
            Ok((view.node_id != known && voters.contains(&view.node_id)).then_some(()))
        })
        .await?;
        let refused = send_some(&cluster, victim, 20, &ledger).await?;
        anyhow::ensure!(refused.is_empty(), "{refused:?}");
        let statuses = statuses(&cluster, &ledger).await?;
        anyhow::ensure!(lost(&statuses).is_empty(), "{:#?}", lost(&statuses));
        delivered(&ledger, &receiver).await.map(drop)
    })
}

/// The file that holds the entries of `messages`: the largest in its log's folder.
fn log_file(data: &Path) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(data.join("messages").join("log"))? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    let (length, path) = files.into_iter().max().context("the log has files")?;
    anyhow::ensure!(length > 10_000, "{} holds no entries", path.display());
    Ok(path)
}

#[test]
fn a_flipped_byte_is_found() -> anyhow::Result<()> {
    let flip = |path: &Path| {
        let file = File::options().read(true).write(true).open(path)?;
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        file.write_all_at(&[byte[0] ^ 0x10], middle)?;
        Ok(())
    };
    is_refused_and_cured_by_rejoining("damage-flip", flip)
}

#[test]
fn a_missing_tail_that_was_synced_is_found() -> anyhow::Result<()> {
    let cut = |path: &Path| {
        let file = File::options().write(true).open(path)?;
        let length = file.metadata()?.len();
        file.set_len(length * 3 / 4)?;
        Ok(())
    };
    is_refused_and_cured_by_rejoining("damage-tail", cut)
}

/// A tail that was being written when the power went is cut, not refused.
#[test]
fn a_torn_tail_is_cut() -> anyhow::Result<()> {
    scenario::run("damage-torn", async |folder| {
        let mut cluster = Cluster::start(folder, 1, &[]).await?;
        let receiver = receiver(&cluster, Duration::ZERO).await?;
        let ledger = Arc::new(Ledger::default());
        let refused = send_some(&cluster, 0, 50, &ledger).await?;
        anyhow::ensure!(refused.is_empty(), "{refused:?}");
        cluster.kill(0).await?;
        let path = log_file(&cluster.nodes.first().context("one node")?.data())?;
        let file = File::options().write(true).open(&path)?;
        let end = file.metadata()?.len();
        // The first bytes of a record, as far as they were written.
        let bytes = fs::read(&path)?;
        let half =
            bytes.get(bytes.len().saturating_sub(40)..bytes.len().saturating_sub(7)).context("a record")?;
        file.write_all_at(half, end)?;
        cluster.restart_all().await?;
        let statuses = statuses(&cluster, &ledger).await?;
        anyhow::ensure!(lost(&statuses).is_empty(), "{:#?}", lost(&statuses));
        delivered(&ledger, &receiver).await.map(drop)
    })
}
