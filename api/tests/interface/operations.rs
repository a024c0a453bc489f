//! The cluster's calls, and the node's own condition.

use hub_core::error::code;
use hub_core::port::{CheckStatus, ClusterError};
use serde_json::json;

use crate::rig::{Call, Rig};

#[tokio::test]
async fn the_cluster_is_shown() {
    let rig = Rig::new();
    let cluster = rig.call(Call::get("/api/v1/cluster").admin()).await.expect(200).json();
    assert_eq!(cluster["cluster_id"], "00000000-0000-0000-0000-00000000002a");
    assert_eq!(cluster["groups"]["control"]["leader"], 2);
    assert_eq!(cluster["nodes"][2]["role"], "voter");
    let quorum = rig.call(Call::get("/api/v1/cluster/quorum?without=2").admin()).await.expect(200).json();
    assert_eq!(quorum["safe"], true);
    rig.call(Call::get("/api/v1/cluster/quorum?without=9").admin()).await.expect(404).refused(code::NO_NODE);
    for query in ["", "?without=x", "?without=1&x=1"] {
        rig.call(Call::get(&format!("/api/v1/cluster/quorum{query}")).admin()).await.expect(400);
    }
}

#[tokio::test]
async fn steering() {
    let rig = Rig::new();
    let (drain, undrain, transfer) =
        ("/api/v1/cluster/drain", "/api/v1/cluster/undrain", "/api/v1/cluster/transfer-leader");
    let drained = rig.call(Call::post(drain).admin()).await.expect(200).json();
    assert_eq!(drained, json!({"node_id": 1, "draining": true}));
    rig.call(Call::post(drain).admin().json(&json!({"node_id": 3}))).await.expect(200);
    rig.call(Call::post(undrain).admin().json(&json!({}))).await.expect(200);
    rig.call(Call::post(transfer).admin().json(&json!({"group": "control", "to": 2}))).await.expect(200);
    let moved =
        rig.call(Call::post(transfer).admin().json(&json!({"group": "messages"}))).await.expect(200).json();
    assert_eq!(moved, json!({"group": "messages", "leader": 3}));
    rig.call(Call::delete("/api/v1/cluster/members/3").admin()).await.expect(204);
    rig.call(Call::delete("/api/v1/cluster/members/x").admin()).await.expect(404).refused(code::NO_NODE);
    let asked = rig.fakes.cluster.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "drain 1",
            "drain 3",
            "undrain 1",
            "transfer control Some(NodeId(2))",
            "transfer messages None",
            "remove 3"
        ]
    );
    for body in
        [json!({}), json!({"group": "all"}), json!({"group": "control", "to": "x", "y": 1}), json!([])]
    {
        rig.call(Call::post(transfer).admin().json(&body)).await.expect(422).refused(code::INVALID_FIELDS);
    }
    rig.call(Call::post(drain).admin().json(&json!({"node": 1}))).await.expect(422);
    for (fault, status, code) in [
        (ClusterError::NoNode, 404, code::NO_NODE),
        (ClusterError::Unsafe("the last voter".into()), 409, code::UNSAFE),
        (ClusterError::Unfinished("still leads".into()), 504, code::UNKNOWN_OUTCOME),
    ] {
        *rig.fakes.cluster.fault.lock().unwrap() = Some(fault);
        rig.call(Call::post(drain).admin()).await.expect(status).refused(code);
        rig.call(Call::post(transfer).admin().json(&json!({"group": "control"})))
            .await
            .expect(status)
            .refused(code);
    }
}

#[tokio::test]
async fn probes() {
    let rig = Rig::new();
    assert_eq!(rig.call(Call::get("/livez")).await.expect(200).text(), "ok");
    assert_eq!(rig.call(Call::get("/readyz")).await.expect(200).text(), "ok");
    rig.fakes.cluster.set_check(CheckStatus::Degraded);
    assert_eq!(rig.call(Call::get("/readyz")).await.expect(200).text(), "degraded");
    let verbose = rig.call(Call::get("/readyz?verbose")).await.expect(200).text();
    assert!(verbose.contains("[~] store degraded: as the test wants it"), "{verbose}");
    rig.fakes.cluster.set_check(CheckStatus::Failing);
    let failing = rig.call(Call::get("/readyz")).await.expect(503).refused(code::NOT_READY);
    assert_eq!(failing.json()["detail"], "store: as the test wants it");
    let health = rig.call(Call::get("/health")).await.expect(200).json();
    assert_eq!(health["status"], "failing");
    assert_eq!(health["leaders"], json!({"control": 2, "messages": null}));
    assert_eq!(health["checks"]["store"]["status"], "failing");
    rig.call(Call::get("/livez")).await.expect(200);
    rig.call(Call::get("/readyz?loud")).await.expect(400).refused(code::BAD_REQUEST);
}

#[tokio::test]
async fn metrics() {
    let rig = Rig::new();
    rig.call(Call::get("/api/v1/messages/00000000-0000-7000-8000-000000000000").admin()).await.expect(404);
    rig.raw(Call::get("/secret/path/42")).await.expect(404);
    let text = rig.call(Call::get("/metrics")).await.expect(200).text();
    let counted = r#"hub_http_requests_total{method="GET",route="/api/v1/messages/{id}",status="404"} 1"#;
    assert!(text.contains(counted), "{text}");
    assert!(text.contains(r#"route="unmatched""#) && !text.contains("/secret"), "{text}");
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    insta::assert_snapshot!("metrics", names.join("\n"));
}

#[tokio::test]
async fn closed_metrics_and_docs() {
    let rig = Rig::with(|options| {
        options.open_metrics = false;
        options.open_docs = false;
    });
    rig.call(Call::get("/metrics")).await.expect(401).refused(code::NO_TOKEN);
    rig.call(Call::get("/metrics").admin()).await.expect(200);
    rig.raw(Call::get("/openapi.json")).await.expect(401).refused(code::NO_TOKEN);
    rig.raw(Call::get("/openapi.json").admin()).await.expect(200);
    rig.raw(Call::get("/docs/")).await.expect(404).refused(code::NO_ROUTE);
}
