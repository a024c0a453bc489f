//! Batches: JSON and NDJSON, each for itself or all together.

use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::port::{AcceptMode, StoreError};
use serde_json::{Value, json};

use crate::rig::{Call, Rig, token};

const BATCH: &str = "/api/v1/messages/batch";

fn item(target: &str) -> Value {
    json!({"sender_service": "shop", "target_service": target, "message_type": "t", "content": 1})
}

async fn rig() -> Rig {
    let rig = Rig::new();
    rig.register("stock").await;
    rig.register("full").await;
    rig
}

fn codes(results: &Value) -> Vec<String> {
    let results = results["results"].as_array().unwrap();
    results.iter().map(|result| result["code"].as_str().unwrap_or("ok").to_owned()).collect()
}

#[tokio::test]
async fn one_bad_message_does_not_spoil_the_rest() {
    let rig = rig().await;
    let messages =
        [item("stock"), item("nobody"), json!(7), item("full"), json!({"content": 1}), item("stock")];
    let answer = rig.call(Call::post(BATCH).admin().json(&json!({"messages": messages}))).await.expect(200);
    let results = answer.json();
    assert_eq!(codes(&results), ["ok", "HUB-1202", "HUB-1003", "HUB-1206", "HUB-1003", "ok"]);
    assert_eq!(results["results"][4]["errors"].as_array().unwrap().len(), 2);
    assert_eq!(results["results"][5]["status"], "pending");
    assert_eq!(*rig.fakes.store.calls.lock().unwrap(), [(3, AcceptMode::Each)], "one call for all");
}

#[tokio::test]
async fn lines() {
    let rig = rig().await;
    let body = format!("{}\n\n{{broken\n{}\r\n", item("stock"), item("stock"));
    let call = Call::post(BATCH).admin().header("content-type", "application/x-ndjson").body(body);
    let answer = rig.call(call).await.expect(200);
    assert_eq!(codes(&answer.json()), ["ok", "HUB-1001", "ok"]);
    let call = Call::post(BATCH).admin().header("content-type", "application/x-ndjson").body("x\n");
    let answer = rig.call(call).await.expect(200);
    assert_eq!(codes(&answer.json()), ["HUB-1001"]);
}

#[tokio::test]
async fn all_or_none() {
    let rig = rig().await;
    let path = format!("{BATCH}?atomic=true");
    let good = json!({"messages": [item("stock"), item("stock")]});
    rig.call(Call::post(&path).admin().json(&good)).await.expect(200);
    assert_eq!(rig.fakes.store.taken.lock().unwrap().len(), 2);
    for (bad, codes_of_both) in [("nobody", ["HUB-1209", "HUB-1202"]), ("full", ["HUB-1209", "HUB-1209"])] {
        let body = json!({"messages": [item("stock"), item(bad)]});
        let answer =
            rig.call(Call::post(&path).admin().json(&body)).await.expect(422).refused(code::BATCH_REFUSED);
        assert_eq!(codes(&answer.json()), codes_of_both);
    }
    assert_eq!(rig.fakes.store.taken.lock().unwrap().len(), 2);
    rig.call(Call::post(&path).admin().json(&json!({"messages": []}))).await.expect(200);
}

#[tokio::test]
async fn keys_of_items() {
    let rig = rig().await;
    let mut own = item("stock");
    own["idempotency_key"] = json!("mine");
    let body = json!({"messages": [item("stock"), own]});
    let call = || Call::post(BATCH).admin().header("idempotency-key", "k").json(&body);
    rig.call(call()).await.expect(200);
    let taken = rig.fakes.store.taken.lock().unwrap().clone();
    let keys: Vec<String> = taken.iter().map(|new| new.idempotency.as_ref().unwrap().key.clone()).collect();
    assert_eq!(keys, ["k#0", "mine"]);
    let again = rig.call(call()).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["results"][1]["replayed"], true);
    let changed = json!({"messages": [item("full")]});
    let call = Call::post(BATCH).admin().header("idempotency-key", "k").json(&changed);
    assert_eq!(codes(&rig.call(call).await.expect(200).json()), ["HUB-1204"]);
}

#[tokio::test]
async fn bodies_that_are_no_batch() {
    let rig = Rig::with(|options| {
        options.max_batch_messages = 2;
        options.max_batch_bytes = 2_000;
        options.max_atomic_bytes = 100;
    });
    for body in ["{}", "[]", r#"{"messages":1}"#, r#"{"messages":[],"x":1}"#, r#"{"messages":[1,2,3]}"#] {
        rig.call(Call::post(BATCH).admin().text(body)).await.expect(422).refused(code::INVALID_FIELDS);
    }
    rig.call(Call::post(BATCH).admin().text("{\"messages\":[1,}")).await.expect(400).refused(code::NOT_JSON);
    rig.call(Call::post(BATCH).admin().text("x".repeat(2_001))).await.expect(413).refused(code::TOO_LARGE);
    let atomic = format!("{BATCH}?atomic");
    rig.call(Call::post(&atomic).admin().text("x".repeat(101))).await.expect(413).refused(code::TOO_LARGE);
    let call = Call::post(BATCH).admin().header("content-type", "text/csv").body("a,b");
    rig.call(call).await.expect(415).refused(code::MEDIA_TYPE);
    rig.call(Call::post(&format!("{BATCH}?atomic=maybe")).admin().text("{}")).await.expect(400);
}

#[tokio::test]
async fn an_unknown_outcome_names_the_messages() {
    let rig = rig().await;
    *rig.fakes.store.fault.lock().unwrap() = Some(|| StoreError::Unknown("cut".into()));
    let body = json!({"messages": [item("nobody"), item("stock")]});
    let answer =
        rig.call(Call::post(BATCH).admin().json(&body)).await.expect(504).refused(code::UNKNOWN_OUTCOME);
    let ids = answer.json()["message_ids"].clone();
    assert!(ids[0].is_null() && ids[1].is_string(), "{ids}");
}

#[tokio::test]
async fn foreign_senders_are_refused_one_by_one() {
    let rig = rig().await;
    let mut own = item("stock");
    own.as_object_mut().unwrap().remove("sender_service");
    let body = json!({"messages": [item("stock"), own]});
    let call = Call::post(BATCH).token(&token("clerk", &[Scope::MessagesSend])).json(&body);
    assert_eq!(codes(&rig.call(call).await.expect(200).json()), ["HUB-1105", "ok"]);
}
