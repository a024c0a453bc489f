//! Three nodes: every node answers, one that stops is not missed, one that comes back catches up.

use std::time::Duration;

use anyhow::ensure;
use hyper::StatusCode;
use serde_json::json;

use crate::support::{Http, Receiver, TestNode, leader, three, until, voters};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_everything() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut nodes = three(folder.path(), &http).await?;
    for (number, node) in nodes.iter().enumerate() {
        let name = format!("target-{number}");
        http.register(&node.url, &name, &receiver).await?;
        // What one node acknowledged, every other sees at once.
        for other in &nodes {
            let (status, service) = http.get(&format!("{}/api/v1/services/{name}", other.url)).await?;
            assert_eq!(status, StatusCode::OK, "{service}");
            let id = http.send(&other.url, &name, number).await?;
            let (status, message) = http.get(&format!("{}/api/v1/messages/{id}", node.url)).await?;
            assert_eq!(status, StatusCode::OK, "{message}");
            http.delivered(&node.url, &id).await?;
        }
    }
    let (_, cluster) = http.get(&format!("{}/api/v1/cluster", nodes[2].url)).await?;
    assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(3), "{cluster}");
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_goes_on_without_any_one_node_and_takes_it_back() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut nodes = three(folder.path(), &http).await?;
    http.register(&nodes[0].url, "target", &receiver).await?;
    let mut ids = Vec::new();
    for round in 0..3 {
        // Each time the leader of messages goes, so that leadership wanders.
        let leads = leader(&http, &nodes[0].url, "messages").await?;
        let gone = nodes.iter().position(|node| node.id() == leads).unwrap_or(0);
        nodes[gone].stop().await;
        let others: Vec<String> =
            nodes.iter().filter(|node| node.node.is_some()).map(|node| node.url.clone()).collect();
        for (number, url) in others.iter().cycle().take(10).enumerate() {
            ids.push(http.send(url, "target", round * 10 + number).await?);
        }
        nodes[gone].restart().await?;
        nodes[gone].ready(&http).await?;
        for url in nodes.iter().map(|node| &node.url) {
            all_live(&http, url).await?;
        }
    }
    for id in &ids {
        for node in &nodes {
            http.delivered(&node.url, id).await?;
        }
    }
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

async fn all_live(http: &Http, url: &str) -> anyhow::Result<()> {
    until("all live", || async {
        let (_, cluster) = http.get(&format!("{url}/api/v1/cluster")).await?;
        let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
        ensure!(nodes.len() == 3 && nodes.iter().all(|node| node["live"] == true), "{cluster}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_drained_leads_nothing_until_the_drain_ends() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let mut nodes = three(folder.path(), &http).await?;
    let (first, second) = (nodes[0].url.clone(), nodes[1].url.clone());
    let id = nodes[0].id();
    // Another node drains it.
    let (status, answer) =
        http.post(&format!("{second}/api/v1/cluster/drain"), json!({"node_id": id})).await?;
    assert!(status.is_success(), "{status}: {answer}");
    for group in ["control", "messages"] {
        assert_ne!(leader(&http, &second, group).await?, id);
    }
    until("unready", || async {
        let (status, body) = http.get(&format!("{first}/readyz?verbose")).await?;
        ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{status}: {body}");
        Ok(())
    })
    .await?;
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_that_expect_each_other_form_one_cluster() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let reserved: Vec<_> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<String> = reserved
        .iter()
        .map(|taken| taken.local_addr().map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    drop(reserved);
    let peers = addresses.join(",");
    let starts = addresses.iter().enumerate().map(|(number, address)| {
        let (folder, peers) = (folder.path().join(number.to_string()), peers.clone());
        async move {
            let settings = [("raft.listen", address.as_str()), ("raft.expect", "3"), ("raft.peers", &peers)];
            TestNode::start(&folder, &settings).await
        }
    });
    let mut nodes =
        tokio::time::timeout(Duration::from_secs(120), futures::future::try_join_all(starts)).await??;
    let mut clusters = Vec::new();
    for node in &nodes {
        node.ready(&http).await?;
        voters(&http, &node.url, 3).await?;
        clusters.push(http.get(&format!("{}/api/v1/cluster", node.url)).await?.1["cluster_id"].clone());
    }
    assert!(clusters.iter().all(|cluster| *cluster == clusters[0]), "{clusters:?}");
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}
