//! What holds for every request.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hub_core::error::code;
use serde_json::json;

use crate::rig::{Call, Rig};

#[tokio::test]
async fn unknown_paths_and_methods() {
    let rig = Rig::new();
    for path in ["/", "/api", "/api/v2/messages", "/api/v1/", "/messages"] {
        let answer = rig.raw(Call::get(path)).await.expect(404).refused(code::NO_ROUTE);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["instance"], path);
    }
    let answer = rig.raw(Call::put("/api/v1/messages")).await.expect(405).refused(code::METHOD);
    let allow = answer.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    rig.raw(Call::post("/livez")).await.expect(405).refused(code::METHOD);
}

#[tokio::test]
async fn marks_of_a_request() {
    let rig = Rig::new();
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = Call::get("/nowhere").header("traceparent", context).header("x-request-id", "mine-7");
    let answer = rig.raw(call).await;
    assert_eq!(answer.json()["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(answer.header("x-request-id"), Some("mine-7"));
    let call =
        Call::get("/nowhere").header("traceparent", "nonsense").header("x-request-id", &"x".repeat(200));
    let answer = rig.raw(call).await;
    assert_eq!(answer.header("x-request-id"), answer.json()["trace_id"].as_str());
    assert_eq!(answer.header("hub-node"), Some("1"));
}

#[tokio::test]
async fn a_full_node_sheds_but_still_answers_probes() {
    let rig = Rig::with(|options| options.max_in_flight = 0);
    let answer = rig.call(Call::get("/api/v1/messages").admin()).await.expect(503).refused(code::OVERLOADED);
    assert_eq!(answer.header("retry-after"), Some("1"));
    rig.call(Call::get("/livez")).await.expect(200);
    assert!(
        rig.call(Call::get("/metrics"))
            .await
            .text()
            .contains(r#"hub_http_rejected_total{reason="in_flight"} 1"#)
    );
}

#[tokio::test]
async fn bodies_have_bounded_memory() {
    let rig = Rig::with(|options| options.max_body_memory = 100);
    let send = || Call::post("/api/v1/messages").admin();
    rig.call(send().json(&json!({"a": "x".repeat(200)}))).await.expect(503).refused(code::OVERLOADED);
    let small = send().header("content-length", "2").text("{}");
    rig.call(small).await.expect(422).refused(code::INVALID_FIELDS);
}

#[tokio::test]
async fn a_body_that_never_ends() {
    let rig = Rig::with(|options| options.body_timeout = Duration::from_millis(50));
    let stream = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    let call = Call::post("/api/v1/messages").admin().header("content-type", "application/json");
    let answer = rig.call(call.body(Body::from_stream(stream))).await.expect(408);
    answer.refused(code::HEADER_TIMEOUT);
}

#[tokio::test]
async fn a_body_that_breaks_off() {
    let rig = Rig::new();
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let stream = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(broken)]);
    let call = Call::post("/api/v1/messages").admin().header("content-type", "application/json");
    rig.call(call.body(Body::from_stream(stream))).await.expect(400).refused(code::BAD_REQUEST);
}
