//! Nodes that go for good, majorities that are lost, folders that are damaged.

use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Context, ensure};
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::Group;
use hub_node::clock::{Machine, SystemMachine};
use hub_node::recover::{Action, Found, recover};
use hyper::{Method, StatusCode};

use crate::support::{DEADLINE, Http, Receiver, TestNode, lone, refused, three, until, voters};

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_of_a_lost_majority_goes_on_alone_and_the_others_stay_out() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut nodes = three(folder.path(), &http).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    let id = http.send(&nodes[1].url, "target", 1).await?;
    for node in &nodes {
        http.delivered(&node.url, &id).await?;
    }
    let survivor = nodes[2].folder.clone();
    nodes[2].stop().await;
    // Two still are a majority: a third beside them would end them.
    let answered = recover(&survivor, SystemMachine.wall(), Action::Recover).await;
    assert_eq!(answered.err().context("recovered")?.code, code::OTHERS_ANSWER);
    for node in &mut nodes[..2] {
        node.stop().await;
    }
    // First it is only said what there is.
    let report = recover(&survivor, SystemMachine.wall(), Action::Look).await?;
    for (group, found) in &report.groups {
        let Found::Kept(remains) = found else { anyhow::bail!("{group:?}: {found:?}") };
        ensure!(remains.voters.len() == 3 && remains.last_index > 3 && remains.lost.is_none(), "{remains:?}");
    }
    assert_eq!((report.groups.len(), report.generation), (2, 2));
    recover(&survivor, SystemMachine.wall(), Action::Recover).await?;

    nodes[2].restart().await?;
    nodes[2].ready(&http).await?;
    voters(&http, &nodes[2].url, 1).await?;
    let (_, cluster) = http.get(&format!("{}/api/v1/cluster", nodes[2].url)).await?;
    assert_eq!(cluster["generation"], 2, "{cluster}");
    assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(1), "{cluster}");
    http.delivered(&nodes[2].url, &id).await?;
    let id = http.carry(&nodes[2].url, "target", 2).await?;
    // Who was left behind is told so, and a new one joins.
    let joins = nodes[2].raft.clone();
    let behind = nodes[1].folder.clone();
    assert_eq!(refused(&behind, &[("raft.join", &joins)]).await?.code, code::OTHER_CLUSTER);
    let mut fresh = TestNode::start(&folder.path().join("4"), &[("raft.join", &joins)]).await?;
    fresh.ready(&http).await?;
    http.delivered(&fresh.url, &id).await?;
    // A majority of those left behind that never heard of the recovery ends as soon as it does.
    nodes[0].restart().await?;
    let ended = tokio::time::timeout(DEADLINE, async {
        nodes[1].restart().await?;
        anyhow::Ok(())
    });
    let _either_way = ended.await?;
    let first = nodes[0].node.as_ref().context("not running")?;
    let failure = tokio::time::timeout(DEADLINE, first.failed()).await?;
    ensure!(failure.error.to_string().contains("recovered"), "{failure:?}");
    nodes[0].fail().await;
    for node in nodes.iter_mut().chain([&mut fresh]) {
        node.stop().await;
    }
    Ok(())
}

/// Cuts the newest file of a log to a part.
fn cut(log: &Path) -> anyhow::Result<()> {
    let files = std::fs::read_dir(log)?.collect::<Result<Vec<_>, _>>()?;
    let newest = files
        .iter()
        .map(std::fs::DirEntry::path)
        .filter(|path| path.extension().is_some_and(|it| it == "wal"));
    let newest = newest.max().context("no log")?;
    let file = OpenOptions::new().write(true).open(newest)?;
    file.set_len(file.metadata()?.len() * 2 / 3)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_with_damaged_data_starts_again_when_the_loss_is_accepted() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut node = lone(SystemMachine, folder.path(), &http, &receiver).await?;
    let id = http.carry(&node.url, "target", 1).await?;
    node.stop().await;

    // The log: its state has what was in it.
    cut(&node.folder.join("messages/log"))?;
    let report = recover(&node.folder, SystemMachine.wall(), Action::Look).await?;
    let lost = report.groups.iter().any(|(group, found)| {
        *group == Group::Messages && matches!(found, Found::Kept(remains) if remains.lost.is_some())
    });
    ensure!(lost, "{report:?}");
    let again = recover(&node.folder, SystemMachine.wall(), Action::Look).await?;
    assert_eq!(format!("{again:?}"), format!("{report:?}"), "nothing was changed");
    recover(&node.folder, SystemMachine.wall(), Action::Recover).await?;
    node.restart().await?;
    node.ready(&http).await?;
    http.delivered(&node.url, &id).await?;
    http.carry(&node.url, "target", 2).await?;
    node.stop().await;

    // The snapshot of control: services are lost, and can be registered again.
    let snapshot = node.folder.join("control/snapshot/state.snapshot");
    std::fs::write(&snapshot, b"rubbish")?;
    assert_eq!(refused(&node.folder, &[]).await?.code, code::DAMAGED);
    let report = recover(&node.folder, SystemMachine.wall(), Action::Recover).await?;
    assert_eq!((report.node, report.generation), (NodeId(1), 3));
    node.restart().await?;
    node.ready(&http).await?;
    http.register(&node.url, "target", &receiver).await?;
    http.carry(&node.url, "target", 3).await?;
    http.delivered(&node.url, &id).await?;
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_stops_and_does_not_come_back() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let mut nodes = three(folder.path(), &http).await?;
    // Whichever leads: it hands over first.
    let leads = crate::support::leader(&http, &nodes[0].url, "control").await?;
    let at = nodes.iter().position(|node| node.id() == leads).context("no such node")?;
    let mut gone = nodes.remove(at);
    let path = format!("{}/api/v1/cluster/members/{leads}", nodes[0].url);
    // Right after the start it is not known yet who is live.
    until("removed", || async {
        let (status, answer) = http.call(Method::DELETE, &path, None).await?;
        ensure!(status == StatusCode::NO_CONTENT, "{status}: {answer}");
        Ok(())
    })
    .await?;
    for node in &nodes {
        voters(&http, &node.url, 2).await?;
    }
    let failure = tokio::time::timeout(DEADLINE, gone.node.as_ref().context("not running")?.failed()).await?;
    ensure!(failure.error.to_string().contains("removed"), "{failure:?}");
    gone.fail().await;
    let joins = nodes[0].raft.clone();
    assert_eq!(refused(&gone.folder, &[("raft.join", &joins)]).await?.code, code::OTHER_CLUSTER);
    // One of the two that are left cannot go while the other is away.
    let other = nodes[1].id();
    nodes[1].stop().await;
    until("seen to be away", || async {
        let (_, cluster) = http.get(&format!("{}/api/v1/cluster", nodes[0].url)).await?;
        let known = cluster["nodes"].as_array().cloned().unwrap_or_default();
        ensure!(known.iter().any(|node| node["id"] == other && node["live"] == false), "{cluster}");
        Ok(())
    })
    .await?;
    let path = format!("{}/api/v1/cluster/members/{other}", nodes[0].url);
    let (status, answer) = http.call(Method::DELETE, &path, None).await?;
    ensure!(status == StatusCode::CONFLICT, "{status}: {answer}");
    nodes[0].stop().await;
    Ok(())
}
