//! Health checks over a real cluster: each instance is checked by one node, every node says which, and what fails gets
//! no deliveries.

use anyhow::{Context, ensure};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::support::{Http, Receiver, TestNode, three, until};

/// What the node says of the instance `id`.
async fn instance(http: &Http, node: &TestNode, id: &str) -> anyhow::Result<Value> {
    let (status, health) = http.get(&format!("{}/api/v1/services/target/health", node.url)).await?;
    ensure!(status == StatusCode::OK, "{status}: {health}");
    let found = health["instances"].as_array().into_iter().flatten().find(|one| one["id"] == id);
    found.cloned().with_context(|| format!("no instance {id}: {health}"))
}

/// Waits until all nodes agree on who checks the instance and how it is, and that one shows the check.
async fn checked(
    http: &Http,
    nodes: &[TestNode],
    id: &str,
    health: &str,
    detail: &str,
) -> anyhow::Result<()> {
    until("checked", || async {
        let mut shown_by = Vec::new();
        let checker = instance(http, &nodes[0], id).await?["checked_by"].as_u64();
        for node in nodes {
            let seen = instance(http, node, id).await?;
            ensure!(seen["health"] == health, "{seen}");
            ensure!(checker.is_some() && seen["checked_by"].as_u64() == checker, "{checker:?}: {seen}");
            if seen.get("last_check").is_some() {
                ensure!(seen["last_check"]["result"] == health, "{seen}");
                ensure!(seen["last_check"]["detail"] == detail, "{seen}");
                shown_by.push(node.id());
            }
        }
        ensure!(shown_by == checker.as_slice(), "{shown_by:?} show it, not {checker:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_names_the_checker_and_what_fails_gets_nothing() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut nodes = three(folder.path(), &http).await?;
    // Nothing answers under the second URL but 404: a delivery to it would end as a dead letter.
    let body = json!({
        "name": "target",
        "instances": [
            {"id": "good", "url": receiver.url}, {"id": "bad", "url": format!("{}/nowhere", receiver.url)},
        ],
        "health_check": {"kind": "http", "interval_s": 1, "timeout_s": 1, "healthy": 1, "unhealthy": 1},
    });
    let (status, answer) = http.post(&format!("{}/api/v1/services/register", nodes[0].url), body).await?;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    checked(&http, &nodes, "good", "passing", "answered 200").await?;
    checked(&http, &nodes, "bad", "critical", "answered 404").await?;
    for node in &nodes {
        let (_, routes) = http.get(&format!("{}/api/v1/services/target/routes", node.url)).await?;
        let found: Vec<&Value> = routes["instances"].as_array().into_iter().flatten().collect();
        assert!(found.len() == 1 && found[0]["id"] == "good", "{routes}");
        for number in 0..5 {
            let id = http.send(&node.url, "target", number).await?;
            http.delivered(&node.url, &id).await?;
        }
    }
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}
