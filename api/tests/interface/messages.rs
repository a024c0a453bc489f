//! Sending, showing, listing and calling back single messages.

use std::time::Duration;

use hub_core::access::Scope;
use hub_core::delivery::AttemptOutcome;
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::message::{Attempt, Status};
use hub_core::port::{ReadError, StoreError};
use serde_json::{Value, json};

use crate::fakes::{NOW_MS, StoreFault};
use crate::rig::{Call, Rig, token};

const SEND: &str = "/api/v1/messages";

fn message() -> Value {
    json!({"sender_service": "shop", "target_service": "stock", "message_type": "order.placed", "content": {"n": 1}})
}

fn with(field: &str, value: Value) -> Value {
    let mut message = message();
    message[field] = value;
    message
}

async fn rig() -> Rig {
    let rig = Rig::new();
    rig.register("stock").await;
    rig
}

#[tokio::test]
async fn accepted_and_shown_with_its_text_kept() {
    let rig = rig().await;
    let content = r#"{"z":1.0, "a":[1e400,-0],"é":"\u00e9","n":12345678901234567890}"#;
    let body = format!(
        r#" {{"target_service":"stock","message_type":"t","priority":9,"content" : {content} ,"metadata":{{"b":1, "a":2}}}} "#
    );
    let answer =
        rig.call(Call::post(SEND).token(&token("shop", &[Scope::MessagesSend])).text(body)).await.expect(202);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.json()["status"], "pending");
    assert_eq!(answer.json()["created_at"], "2026-11-23T08:55:00.123Z");
    assert_eq!(answer.header("location").unwrap(), format!("{SEND}/{id}"));
    let taken = rig.fakes.store.taken.lock().unwrap()[0].clone();
    assert_eq!(&*taken.content, content);
    assert_eq!(taken.sender.as_str(), "shop");
    assert_eq!(taken.priority.get(), 9);
    assert_eq!(taken.too_old_at.since(taken.created_at), Duration::from_secs(7 * 24 * 3600));
    // Its number is JSON, but more than the checker of schemas can hold.
    let shown = rig.raw(Call::get(&format!("{SEND}/{id}")).admin()).await.expect(200);
    assert!(shown.text().contains(&format!("\"content\":{content}")), "{}", shown.text());
    assert!(shown.text().contains(r#""metadata":{"b":1, "a":2}"#), "{}", shown.text());
    assert_eq!(shown.header("hub-consistency"), Some("linearizable"));
}

#[tokio::test]
async fn attempts_are_shown() {
    let rig = rig().await;
    *rig.fakes.store.fate.lock().unwrap() = Some(|record| {
        record.status = Status::Delivered;
        record.processed_at = Some(record.message.created_at);
        record.attempts.push(Attempt {
            number: 1,
            node: NodeId(2),
            instance: Some("a".parse().unwrap()),
            started_at: record.message.created_at,
            duration_ms: 12,
            outcome: AttemptOutcome::Delivered,
            http_status: Some(200),
            error_class: None,
            response: Some("fine".into()),
        });
    });
    let sent = rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
    let path = format!("{SEND}/{}", sent.json()["id"].as_str().unwrap());
    let shown = rig.call(Call::get(&format!("{path}?consistency=stale")).admin()).await.expect(200);
    assert_eq!(shown.header("hub-consistency"), Some("stale"));
    assert_eq!(shown.json()["attempts"][0]["outcome"], "delivered");
    let list = rig.call(Call::get(SEND).admin()).await.expect(200);
    assert_eq!(list.json()["items"][0].get("attempts"), None);
}

#[tokio::test]
async fn all_bad_fields_are_named() {
    let rig = rig().await;
    let body = r#"{"sender_service":"Shop","message_type":7,"priority":10,"content":1,"content":2,"x/y":1,
        "metadata":[],"ttl_seconds":0,"max_retries":101}"#;
    let answer =
        rig.call(Call::post(SEND).admin().text(body)).await.expect(422).refused(code::INVALID_FIELDS);
    let mut pointers = answer.pointers();
    pointers.sort();
    let expected = [
        "/content",
        "/max_retries",
        "/message_type",
        "/metadata",
        "/priority",
        "/sender_service",
        "/target_service",
        "/ttl_seconds",
        "/x~1y",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test]
async fn what_is_not_built_is_refused() {
    let rig = rig().await;
    for field in ["ordering_key", "transaction_id"] {
        let call = Call::post(SEND).admin().json(&with(field, json!("x")));
        let answer = rig.call(call).await.expect(422).refused(code::NOT_BUILT);
        assert_eq!(answer.pointers(), [format!("/{field}")]);
    }
    let call = Call::post(SEND).admin().header("prefer", "wait=5").json(&message());
    rig.call(call).await.expect(422).refused(code::NOT_BUILT);
    assert!(rig.fakes.store.taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn malformed_bodies() {
    let rig = rig().await;
    for (body, detail) in
        [("{\n \"content\": tru}", "line 2 column"), ("", "empty"), ("{} x", "line 1 column")]
    {
        let answer = rig.call(Call::post(SEND).admin().text(body)).await.expect(400).refused(code::NOT_JSON);
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{}", answer.text());
    }
    let call =
        Call::post(SEND).admin().header("content-type", "application/json").body(vec![b'"', 0xFF, b'"']);
    rig.call(call).await.expect(400).refused(code::NOT_JSON);
    for body in ["[]", "7", "null", "\"x\""] {
        rig.call(Call::post(SEND).admin().text(body)).await.expect(422).refused(code::INVALID_FIELDS);
    }
}

#[tokio::test]
async fn depth_is_refused_not_followed() {
    let rig = Rig::with(|options| options.limits.max_content_bytes = 3 << 20);
    rig.register("stock").await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = |content: &str| {
        format!(r#"{{"sender_service":"a","target_service":"stock","message_type":"t","content":{content}}}"#)
    };
    rig.call(Call::post(SEND).admin().text(body(&nested(128)))).await.expect(202);
    let answer = rig.call(Call::post(SEND).admin().text(body(&nested(129)))).await.expect(422);
    assert_eq!(answer.pointers(), ["/content"]);
    rig.call(Call::post(SEND).admin().text(body(&nested(1_000_000)))).await.expect(422);
    rig.call(Call::post(SEND).admin().text("[".repeat(1_000_000))).await.expect(400);
    rig.call(Call::post(SEND).admin().text("{\"a\":".repeat(500_000))).await.expect(400);
    rig.call(Call::post(SEND).admin().text(nested(1_000_000))).await.expect(422);
}

#[tokio::test]
async fn sizes_and_types() {
    let rig = Rig::with(|options| options.limits.max_content_bytes = 100);
    rig.register("stock").await;
    let long = with("content", json!("x".repeat(100)));
    let answer = rig.call(Call::post(SEND).admin().json(&long)).await.expect(413).refused(code::TOO_LARGE);
    assert_eq!(answer.pointers(), ["/content"]);
    let huge = with("content", json!("x".repeat(200_000)));
    rig.call(Call::post(SEND).admin().json(&huge)).await.expect(413).refused(code::TOO_LARGE);
    let metadata = with("metadata", json!({"a": "x".repeat(17_000)}));
    rig.call(Call::post(SEND).admin().json(&metadata)).await.expect(413).refused(code::TOO_LARGE);
    for kind in ["text/plain", "application/json; charset=latin1", "application/x-ndjson"] {
        let call = Call::post(SEND).admin().header("content-type", kind).body(message().to_string());
        rig.call(call).await.expect(415).refused(code::MEDIA_TYPE);
    }
    rig.call(Call::post(SEND).admin().body(message().to_string())).await.expect(415);
    let call = Call::post(SEND).admin().header("content-encoding", "gzip").json(&message());
    rig.call(call).await.expect(415).refused(code::MEDIA_TYPE);
    let call = Call::post(SEND).admin().header("content-type", "Application/JSON; charset=\"UTF-8\"");
    rig.call(call.body(message().to_string())).await.expect(202);
}

#[tokio::test]
async fn targets() {
    let rig = rig().await;
    let unknown = with("target_service", json!("nobody"));
    let answer =
        rig.call(Call::post(SEND).admin().json(&unknown)).await.expect(404).refused(code::UNKNOWN_TARGET);
    assert!(answer.json()["detail"].as_str().unwrap().contains("nobody"));
    let open = format!("{SEND}?allow_unregistered=true");
    rig.call(Call::post(&open).admin().json(&unknown)).await.expect(202);
    *rig.fakes.control.read_fault.lock().unwrap() = Some(ReadError::NoLeader);
    let answer = rig.call(Call::post(SEND).admin().json(&unknown)).await.expect(503).refused(code::NO_LEADER);
    assert_eq!(answer.header("retry-after"), Some("1"));
    rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
    *rig.fakes.control.read_fault.lock().unwrap() = None;
    let body = json!({"name": "picky", "url": "http://picky.test", "message_types": ["a"], "delivery": {"max_age_s": 60}});
    rig.call(Call::post("/api/v1/services/register").admin().json(&body)).await.expect(201);
    let mut picky = with("target_service", json!("picky"));
    let answer =
        rig.call(Call::post(SEND).admin().json(&picky)).await.expect(422).refused(code::TYPE_REFUSED);
    assert_eq!(answer.pointers(), ["/message_type"]);
    picky["message_type"] = json!("a");
    rig.call(Call::post(SEND).admin().json(&picky)).await.expect(202);
    let taken = rig.fakes.store.taken.lock().unwrap().last().unwrap().clone();
    assert_eq!(taken.too_old_at.since(taken.created_at), Duration::from_secs(60));
}

#[tokio::test]
async fn idempotency() {
    let rig = rig().await;
    let send = |key: &str, body: &Value| rig_call(key, body);
    let first = rig.call(send("k", &message())).await.expect(202);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = rig.call(send("\"k\"", &message())).await.expect(202);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.bytes, first.bytes);
    let other = with("content", json!(2));
    rig.call(send("k", &other)).await.expect(422).refused(code::KEY_REUSED);
    let call = Call::post(SEND).token(&token("shop", &[Scope::MessagesSend])).header("idempotency-key", "k");
    rig.call(call.json(&message())).await.expect(202);
    assert_eq!(rig.fakes.store.taken.lock().unwrap().len(), 2, "keys belong to their caller");
    rig.call(send(&"x".repeat(256), &message())).await.expect(400).refused(code::BAD_REQUEST);
    let doubled = rig_call("a", &message()).header("idempotency-key", "b");
    rig.call(doubled).await.expect(400).refused(code::BAD_REQUEST);
}

fn rig_call(key: &str, body: &Value) -> Call {
    Call::post(SEND).admin().header("idempotency-key", key).json(body)
}

#[tokio::test]
async fn failures_of_the_store() {
    let rig = rig().await;
    let faults: [(StoreFault, u16, _); 6] = [
        (
            || StoreError::Unavailable { reason: "no leader".into(), retryable: true },
            503,
            code::STORE_UNAVAILABLE,
        ),
        (|| StoreError::DiskLow, 503, code::DISK_LOW),
        (|| StoreError::Overloaded, 503, code::OVERLOADED),
        (|| StoreError::TooLarge { bytes: 9 }, 413, code::TOO_LARGE),
        (|| StoreError::Unknown("cut".into()), 504, code::UNKNOWN_OUTCOME),
        (|| StoreError::Corrupt("x".into()), 500, code::INTERNAL),
    ];
    for (fault, status, code) in faults {
        *rig.fakes.store.fault.lock().unwrap() = Some(fault);
        let answer = rig.call(Call::post(SEND).admin().json(&message())).await.expect(status).refused(code);
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{code}");
        assert_eq!(answer.json()["retry_after_ms"].is_u64(), status == 503, "{code}");
        assert_eq!(answer.json().get("message_id").is_some(), status == 504);
        assert_eq!(answer.json().get("outcome").is_some(), status == 504);
    }
    *rig.fakes.store.fault.lock().unwrap() = Some(|| StoreError::Unknown("late".into()));
    rig.call(Call::get(SEND).admin()).await.expect(503).refused(code::STORE_UNAVAILABLE);
}

#[tokio::test]
async fn a_stuck_or_panicking_store_still_gets_an_answer() {
    let rig = rig().await;
    *rig.fakes.store.stuck.lock().unwrap() = true;
    let answer =
        rig.call(Call::post(SEND).admin().json(&message())).await.expect(504).refused(code::UNKNOWN_OUTCOME);
    assert!(answer.json()["message_id"].is_string());
    *rig.fakes.store.stuck.lock().unwrap() = false;
    *rig.fakes.store.panics.lock().unwrap() = true;
    rig.call(Call::post(SEND).admin().json(&message())).await.expect(500).refused(code::INTERNAL);
    *rig.fakes.store.panics.lock().unwrap() = false;
    rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
}

#[tokio::test]
async fn a_full_backlog() {
    let rig = rig().await;
    rig.register("full").await;
    let call = Call::post(SEND).admin().json(&with("target_service", json!("full")));
    let answer = rig.call(call).await.expect(429).refused(code::BACKLOG_FULL);
    assert_eq!(answer.header("retry-after"), Some("3"));
    assert_eq!(answer.json()["retry_after_ms"], 2_500);
}

#[tokio::test]
async fn lists_and_pages() {
    let rig = rig().await;
    for _ in 0..5 {
        rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
    }
    let mut seen = Vec::new();
    let mut path =
        format!("{SEND}?limit=2&target_service=stock&status=pending&created_after=2026-01-01T00:00:00Z");
    loop {
        let page = rig.call(Call::get(&path).admin()).await.expect(200);
        assert_eq!(page.header("hub-consistency"), Some("stale"));
        let page = page.json();
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{SEND}?limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b));
    for query in [
        "limit=0",
        "limit=501",
        "limit=x",
        "status=lost",
        "cursor=1",
        "target_service=A!",
        "created_after=yesterday",
        "color=red",
        "limit=1&limit=2",
    ] {
        rig.call(Call::get(&format!("{SEND}?{query}")).admin()).await.expect(400).refused(code::BAD_REQUEST);
    }
}

#[tokio::test]
async fn who_sees_what() {
    let rig = rig().await;
    let sent = rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
    let path = format!("{SEND}/{}", sent.json()["id"].as_str().unwrap());
    for (service, status, count) in [("shop", 200, 1), ("stock", 200, 1), ("spy", 404, 0)] {
        let reader = token(service, &[Scope::MessagesRead]);
        rig.call(Call::get(&path).token(&reader)).await.expect(status);
        let list = rig.call(Call::get(SEND).token(&reader)).await.expect(200);
        assert_eq!(list.json()["items"].as_array().unwrap().len(), count, "{service}");
    }
    let nameless = token("Not A Service", &[Scope::MessagesRead]);
    rig.call(Call::get(SEND).token(&nameless)).await.expect(403).refused(code::FOREIGN_SERVICE);
    let sender = token("shop", &[Scope::MessagesSend]);
    rig.call(Call::get(&path).token(&sender)).await.expect(403).refused(code::SCOPE);
}

#[tokio::test]
async fn calling_back() {
    let rig = rig().await;
    let sent = rig.call(Call::post(SEND).admin().json(&message())).await.expect(202);
    let path = format!("{SEND}/{}", sent.json()["id"].as_str().unwrap());
    let target = token("stock", &[Scope::MessagesSend]);
    rig.call(Call::delete(&path).token(&target)).await.expect(403).refused(code::FOREIGN_SERVICE);
    let spy = token("spy", &[Scope::MessagesSend]);
    rig.call(Call::delete(&path).token(&spy)).await.expect(404).refused(code::NO_MESSAGE);
    rig.call(Call::delete(&path).admin().text("{\"x\":1}")).await.expect(422);
    rig.call(Call::delete(&path).admin().header("if-match", "1")).await.expect(422).refused(code::NOT_BUILT);
    let sender = token("shop", &[Scope::MessagesSend]);
    let answer = rig.call(Call::delete(&path).token(&sender)).await.expect(200);
    assert_eq!(answer.json()["may_have_arrived"], false);
    let answer =
        rig.call(Call::delete(&path).token(&sender)).await.expect(409).refused(code::MESSAGE_CONFLICT);
    assert_eq!(answer.json()["message_status"], "cancelled");
    let nobody = "00000000-0000-7000-8000-000000000000";
    rig.call(Call::delete(&format!("{SEND}/{nobody}")).admin()).await.expect(404).refused(code::NO_MESSAGE);
    rig.call(Call::get(&format!("{SEND}/{nobody}")).admin()).await.expect(404).refused(code::NO_MESSAGE);
    rig.call(Call::get(&format!("{SEND}/x")).admin()).await.expect(400).refused(code::BAD_REQUEST);
}

#[tokio::test]
async fn schedules_expiry_and_traces_reach_the_store() {
    let rig = rig().await;
    let mut body = with("delay_seconds", json!(60));
    body["ttl_seconds"] = json!(120);
    body["metadata"] = json!({"correlation_id": "c1"});
    let context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = Call::post(SEND).admin().header("traceparent", context).json(&body);
    rig.call(call).await.expect(202);
    let taken = rig.fakes.store.taken.lock().unwrap()[0].clone();
    assert_eq!(taken.deliver_at.unwrap().as_millis(), NOW_MS + 60_000);
    assert_eq!(taken.expires_at.unwrap().as_millis(), NOW_MS + 120_000);
    assert_eq!(taken.correlation_id.as_deref(), Some("c1"));
    assert_eq!(taken.traceparent.as_deref(), Some(context));
}
