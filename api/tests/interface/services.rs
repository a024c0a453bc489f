//! The registry.

use std::sync::atomic::Ordering;

use hub_core::access::Scope;
use hub_core::control::{Command, HealthChange};
use hub_core::delivery::AttemptOutcome;
use hub_core::error::code;
use hub_core::id::{NodeId, RequestId};
use hub_core::message::{Attempt, Status};
use hub_core::port::{CheckReport, CheckResult, ProposeError, ReadError};
use hub_core::registry::Health;
use hub_core::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fakes::NOW_MS;
use crate::rig::{Call, Rig, token};

const REGISTER: &str = "/api/v1/services/register";
const SERVICES: &str = "/api/v1/services";

async fn register(rig: &Rig, body: Value) -> crate::rig::Answer {
    rig.call(Call::post(REGISTER).admin().json(&body)).await
}

#[tokio::test]
async fn the_short_form_is_enough() {
    let rig = Rig::new();
    let body = json!({"name": "stock", "url": "http://Stock.test:9000/base/"});
    let answer = register(&rig, body.clone()).await.expect(201);
    assert_eq!(answer.header("location"), Some("/api/v1/services/stock"));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("hub-revision"), Some("1"));
    let first = answer.json();
    assert!(first["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(first["service"]["instances"][0]["url"], "http://stock.test:9000/base");
    assert_eq!(first["service"]["delivery"]["path"], "/messages");
    let again = register(&rig, body).await.expect(200).json();
    assert_eq!(again.get("secret"), None, "shown once only");
    assert_eq!(again["revision"], 1, "nothing changed");
    assert_eq!(again["service"]["instances"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_long_form_is_kept() {
    let rig = Rig::new();
    let body = json!({
        "name": "stock", "version": "2",
        "instances": [{"id": "a", "url": "http://a.test", "weight": 7}, {"url": "https://[2001:db8::1]:8443"}],
        "delivery": {"mode": "push", "path": "/in", "timeout_ms": 500, "max_concurrency": 3, "headers": {"X-Team": "a"}, "max_age_s": 60},
        "retry": {"base_ms": 10, "cap_ms": 20, "max_retries": 0, "retry_on": [404]},
        "health_check": {"path": "/up", "interval_s": 1, "healthy": 1, "unhealthy": 2},
        "message_types": ["a.b"], "metadata": {"z": 1, "a": 2}, "tags": ["blue"],
    });
    register(&rig, body).await.expect(201);
    let shown = rig.call(Call::get("/api/v1/services/stock").admin()).await.expect(200);
    assert_eq!(shown.header("etag"), Some("\"1\""));
    assert_eq!(shown.header("hub-known-leader"), Some("2"));
    let shown = shown.json();
    assert_eq!(shown["delivery"]["headers"], json!({"x-team": "a"}));
    assert_eq!(shown["retry"], json!({"base_ms": 10, "cap_ms": 20, "max_retries": 0, "retry_on": [404]}));
    assert_eq!(shown["health_check"]["kind"], "http");
    assert_eq!(shown["health_check"]["timeout_s"], 1, "never longer than the interval");
    assert_eq!(shown["instances"][0]["weight"].as_u64(), Some(100));
    assert_eq!(shown["instances"][1]["weight"], 7);
    assert_eq!(shown.get("secrets"), None);
}

#[tokio::test]
async fn every_mistake_is_named() {
    let rig = Rig::new();
    let body = json!({
        "name": "register",
        "url": "http://a.test",
        "instances": [{"id": "A!", "url": "http://b.test", "weight": 0}, {"url": "ftp://c"}, 7, {}],
        "delivery": {"mode": "carrier pigeon", "timeout_ms": 1, "colour": 1, "headers": {"host": "x", "n": 1}},
        "retry": {"retry_on": "all"},
        "health_check": {"kind": "astrology", "interval_s": 0},
        "tags": [1],
        "extra": true,
    });
    let answer = register(&rig, body).await.expect(422).refused(code::INVALID_FIELDS);
    let pointers = answer.pointers();
    for pointer in [
        "/name",
        "/url",
        "/instances/0/id",
        "/instances/0/weight",
        "/instances/1/url",
        "/instances/2",
        "/instances/3/url",
        "/delivery/mode",
        "/delivery/timeout_ms",
        "/delivery/colour",
        "/delivery/headers/n",
        "/retry/retry_on",
        "/health_check/kind",
        "/health_check/interval_s",
        "/tags/0",
        "/extra",
    ] {
        assert!(pointers.iter().any(|found| found == pointer), "{pointer} not in {pointers:?}");
    }
    let body = json!({"name": "a", "url": "http://a.test", "delivery": {"headers": {"Host": "x"}}, "tags": ["a", "a"]});
    let answer = register(&rig, body).await.expect(422);
    assert_eq!(answer.pointers(), ["/delivery/headers/host", "/tags/1"]);
    register(&rig, json!({})).await.expect(422);
    register(&rig, json!([])).await.expect(422);
    rig.call(Call::post(REGISTER).admin().text("{")).await.expect(400).refused(code::NOT_JSON);
}

#[tokio::test]
async fn what_is_not_built_is_refused() {
    let rig = Rig::new();
    for (field, value, pointer) in [
        ("breaker", json!({}), "/breaker"),
        ("transactions", json!({"path": "/tx"}), "/transactions"),
        ("delivery", json!({"mode": "pull"}), "/delivery/mode"),
        ("delivery", json!({"rate_per_second": 5}), "/delivery/rate_per_second"),
        ("health_check", json!({"kind": "tcp"}), "/health_check/kind"),
        ("health_check", json!({"kind": "ttl"}), "/health_check/kind"),
        ("health_check", json!({"deregister_after_s": 5}), "/health_check/deregister_after_s"),
    ] {
        let mut body = json!({"name": "a", "url": "http://a.test"});
        body[field] = value;
        let answer = register(&rig, body).await.expect(422).refused(code::NOT_BUILT);
        assert_eq!(answer.pointers(), [pointer]);
    }
    rig.call(Call::get("/api/v1/services/watch?index=1").admin()).await.expect(422).refused(code::NOT_BUILT);
    let heartbeat = Call::put("/api/v1/services/a/instances/b/heartbeat").admin();
    rig.call(heartbeat).await.expect(422).refused(code::NOT_BUILT);
    let force = Call::delete("/api/v1/services/a?force=true").admin();
    rig.call(force).await.expect(422).refused(code::NOT_BUILT);
}

#[tokio::test]
async fn addresses_that_are_never_called() {
    let rig = Rig::new();
    let answer = register(&rig, json!({"name": "a", "url": "http://169.254.169.254"})).await.expect(422);
    assert_eq!(answer.refused(code::URL_REFUSED).pointers(), ["/url"]);
    let body = json!({"name": "a", "instances": [{"url": "http://a.test"}, {"url": "http://169.254.0.1"}]});
    let answer = register(&rig, body).await.expect(422).refused(code::URL_REFUSED);
    assert_eq!(answer.pointers(), ["/instances/1/url"]);
    for url in ["http://user:pw@a.test", "http://a.test?x=1", "file:///etc/passwd", "a.test"] {
        let answer = register(&rig, json!({"name": "a", "url": url})).await.expect(422);
        assert_eq!(answer.pointers(), ["/url"], "{url}");
    }
}

#[tokio::test]
async fn revisions_guard_updates() {
    let rig = Rig::new();
    let update = |revision: &str, version: &str| {
        let body = json!({"name": "stock", "url": "http://stock.test", "version": version});
        Call::post(REGISTER).admin().header("if-match", revision).json(&body)
    };
    rig.call(update("\"1\"", "1")).await.expect(412).refused(code::REVISION);
    rig.register("stock").await;
    let revision = rig.fakes.control.view().services.values().next().unwrap().revision;
    rig.call(update(&format!("\"{revision}\""), "1")).await.expect(200);
    rig.call(update(&revision.to_string(), "2")).await.expect(412).refused(code::REVISION);
    rig.call(update("W/\"1\"", "2")).await.expect(400).refused(code::BAD_REQUEST);
}

#[tokio::test]
async fn repeats_of_a_request_are_one() {
    let rig = Rig::new();
    let call = |url: &str| {
        let body = json!({"name": "stock", "url": url});
        Call::post(REGISTER).admin().header("idempotency-key", "k").json(&body)
    };
    let first = rig.call(call("http://a.test")).await.expect(201).json();
    let again = rig.call(call("http://a.test")).await.expect(201).json();
    assert_eq!(first["secret"], again["secret"], "a repeat may show it again: it is the same request");
    rig.call(call("http://b.test")).await.expect(422).refused(code::KEY_REUSED);
}

#[tokio::test]
async fn lists_pages_and_filters() {
    let rig = Rig::new();
    for name in ["a", "b", "c"] {
        let tags = if name == "b" { json!(["blue"]) } else { json!([]) };
        let body = json!({"name": name, "instances": [{"id": "i", "url": format!("http://{name}.test")}], "tags": tags,
            "health_check": {"kind": "http"}});
        register(&rig, body).await.expect(201);
    }
    let names = |answer: &crate::rig::Answer| {
        let items = answer.json()["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let first = rig.call(Call::get(&format!("{SERVICES}?limit=2")).admin()).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    let rest = rig.call(Call::get(&format!("{SERVICES}?limit=2&cursor=b")).admin()).await.expect(200);
    assert_eq!(names(&rest), ["c"]);
    assert_eq!(rest.json()["next_cursor"], Value::Null);
    assert_eq!(names(&rig.call(Call::get(&format!("{SERVICES}?tag=blue")).admin()).await), ["b"]);
    let change = HealthChange {
        service: "c".parse().unwrap(),
        instance: "i".parse().unwrap(),
        url: "http://c.test".into(),
        health: Health::Critical,
    };
    rig.fakes.control.apply(RequestId(Uuid::nil()), Command::SetHealth(vec![change]));
    let critical =
        rig.call(Call::get(&format!("{SERVICES}?status=critical&consistency=stale")).admin()).await;
    assert_eq!(names(&critical), ["c"]);
    assert_eq!(critical.header("hub-consistency"), Some("stale"));
    rig.call(Call::get(&format!("{SERVICES}?status=ill")).admin()).await.expect(400);
    let health = rig.call(Call::get(&format!("{SERVICES}/health")).admin()).await.expect(200).json();
    assert_eq!(health["items"][2], json!({"service": "c", "status": "critical", "available": 0, "total": 1}));
    let health = rig.call(Call::get(&format!("{SERVICES}/c/health")).admin()).await.expect(200).json();
    assert_eq!(health["instances"][0]["health"], "critical");
    let routes = rig.call(Call::get(&format!("{SERVICES}/c/routes")).admin()).await.expect(200).json();
    assert_eq!(routes["instances"], json!([]), "left out of discovery");
    let routes = rig.call(Call::get(&format!("{SERVICES}/a/routes")).admin()).await.expect(200).json();
    assert_eq!(routes["instances"][0]["url"], "http://a.test");
}

#[tokio::test]
async fn reads_are_fresh_unless_they_may_be_stale() {
    let rig = Rig::new();
    rig.register("stock").await;
    rig.call(Call::get("/api/v1/services/stock?consistency=stale").admin()).await.expect(200);
    assert_eq!(rig.fakes.control.barriers.load(Ordering::SeqCst), 0);
    rig.call(Call::get("/api/v1/services/stock").admin()).await.expect(200);
    assert_eq!(rig.fakes.control.barriers.load(Ordering::SeqCst), 1);
    for (fault, code) in [
        (ReadError::NoLeader, code::NO_LEADER),
        (ReadError::Behind, code::NODE_BEHIND),
        (ReadError::Stopped, code::DRAINING),
    ] {
        *rig.fakes.control.read_fault.lock().unwrap() = Some(fault);
        rig.call(Call::get("/api/v1/services/stock").admin()).await.expect(503).refused(code);
    }
    rig.call(Call::get("/api/v1/services/stock?consistency=stale").admin()).await.expect(200);
    rig.call(Call::get("/api/v1/services/stock?consistency=eventual").admin()).await.expect(400);
}

#[tokio::test]
async fn failures_of_the_control_group() {
    let rig = Rig::new();
    for (fault, status, code) in [
        (ProposeError::NoLeader, 503, code::NO_LEADER),
        (ProposeError::Overloaded, 503, code::OVERLOADED),
        (ProposeError::Stopped, 503, code::DRAINING),
        (ProposeError::TooLarge { bytes: 1 }, 413, code::TOO_LARGE),
        (ProposeError::Unknown("cut".into()), 504, code::UNKNOWN_OUTCOME),
    ] {
        *rig.fakes.control.fault.lock().unwrap() = Some(fault);
        let answer =
            register(&rig, json!({"name": "a", "url": "http://a.test"})).await.expect(status).refused(code);
        assert_eq!(answer.json().get("outcome").is_some(), status == 504);
    }
}

#[tokio::test]
async fn operating() {
    let rig = Rig::new();
    let body = json!({"name": "stock", "instances": [{"id": "a", "url": "http://a.test"}]});
    register(&rig, body).await.expect(201);
    let path = "/api/v1/services/stock";
    let paused = rig.call(Call::put(&format!("{path}/pause")).admin()).await.expect(200);
    assert_eq!(paused.json()["paused"], true);
    assert_eq!(paused.header("etag"), Some("\"2\""));
    let resumed = rig.call(Call::put(&format!("{path}/resume")).admin().text("{}")).await.expect(200);
    assert_eq!(resumed.json()["paused"], false);
    let maintenance = format!("{path}/instances/a/maintenance");
    let out = rig.call(Call::put(&maintenance).admin().json(&json!({"maintenance": true}))).await.expect(200);
    assert_eq!(out.json()["status"], "maintenance");
    for body in [json!({}), json!({"maintenance": 1}), json!({"maintenance": true, "x": 1}), json!(7)] {
        rig.call(Call::put(&maintenance).admin().json(&body)).await.expect(422);
    }
    let nobody = format!("{path}/instances/b/maintenance");
    let call = Call::put(&nobody).admin().json(&json!({"maintenance": true}));
    rig.call(call).await.expect(404).refused(code::NO_INSTANCE);
    let secret = rig.call(Call::post(&format!("{path}/secret/rotate")).admin()).await.expect(200);
    assert_eq!(secret.header("cache-control"), Some("no-store"));
    assert!(secret.json()["secret"].as_str().unwrap().starts_with("whsec_"));
    for call in [
        Call::put("/api/v1/services/nobody/pause"),
        Call::put("/api/v1/services/NOBODY/pause"),
        Call::post("/api/v1/services/nobody/secret/rotate"),
        Call::post("/api/v1/services/nobody/test"),
        Call::get("/api/v1/services/nobody"),
        Call::get("/api/v1/services/nobody/backlog"),
        Call::delete("/api/v1/services/nobody"),
        Call::delete("/api/v1/services/nobody?drain=true"),
        Call::delete("/api/v1/services/nobody/instances/a"),
    ] {
        rig.call(call.admin()).await.expect(404).refused(code::NO_SERVICE);
    }
}

#[tokio::test]
async fn removing() {
    let rig = Rig::with(|options| options.long_deadline = std::time::Duration::from_millis(250));
    let body = json!({"name": "stock", "instances": [{"id": "a", "url": "http://a.test"}, {"id": "b", "url": "http://b.test"}]});
    register(&rig, body).await.expect(201);
    let path = "/api/v1/services/stock";
    rig.call(Call::delete(&format!("{path}/instances/a")).admin()).await.expect(204);
    rig.call(Call::delete(&format!("{path}/instances/a")).admin())
        .await
        .expect(404)
        .refused(code::NO_INSTANCE);
    rig.fakes.store.depth.store(3, Ordering::SeqCst);
    let backlog = rig.call(Call::get(&format!("{path}/backlog")).admin()).await.expect(200);
    assert_eq!(backlog.header("hub-consistency"), Some("stale"), "counters may lag, and say so");
    let backlog = backlog.json();
    assert_eq!((backlog["depth"].as_u64(), backlog["oldest_age_s"].as_f64()), (Some(3), Some(1.5)));
    let drain = format!("{path}?drain=true");
    rig.call(Call::delete(&drain).admin()).await.expect(409).refused(code::BACKLOG_LEFT);
    rig.call(Call::get(path).admin()).await.expect(200);
    rig.fakes.store.depth.store(0, Ordering::SeqCst);
    rig.call(Call::delete(&drain).admin()).await.expect(204);
    rig.call(Call::get(path).admin()).await.expect(404).refused(code::NO_SERVICE);
}

#[tokio::test]
async fn test_messages() {
    let rig = Rig::new();
    rig.register("stock").await;
    *rig.fakes.store.fate.lock().unwrap() = Some(|record| {
        record.status = Status::DeadLetter;
        record.error_message = Some("target answered 500".into());
        record.attempts.push(Attempt {
            number: 1,
            node: NodeId(1),
            instance: None,
            started_at: record.message.created_at,
            duration_ms: 3,
            outcome: AttemptOutcome::Failed,
            http_status: Some(500),
            error_class: None,
            response: None,
        });
    });
    let answer = rig.call(Call::post("/api/v1/services/stock/test").admin()).await.expect(200).json();
    assert_eq!(answer["status"], "dead_letter");
    assert_eq!(answer["attempt"]["http_status"], 500);
    assert_eq!(answer["error"], "target answered 500");
    let left = rig.fakes.store.records.lock().unwrap().values().next().unwrap().status;
    assert_eq!(left, Status::Discarded, "a test leaves no dead letter");
}

#[tokio::test]
async fn a_service_reads_itself() {
    let rig = Rig::new();
    rig.register("stock").await;
    let own = token("stock", &[Scope::ServicesRegister]);
    rig.call(Call::get("/api/v1/services/stock/routes").token(&own)).await.expect(200);
    let other = token("shop", &[Scope::ServicesRegister]);
    rig.call(Call::get("/api/v1/services/stock/routes").token(&other)).await.expect(403).refused(code::SCOPE);
    let reader = token("stock", &[Scope::MessagesRead]);
    rig.call(Call::get("/api/v1/services/stock/backlog").token(&reader)).await.expect(200);
}

#[tokio::test]
async fn the_last_check_is_shown_by_the_node_that_made_it() {
    let rig = Rig::new();
    let body = json!({"name": "stock", "instances": [
        {"id": "a", "url": "http://a.test"}, {"id": "b", "url": "http://b.test"}, {"id": "c", "url": "http://c.test"},
    ]});
    register(&rig, body).await.expect(201);
    let seen = |seen| CheckResult {
        at: Timestamp::from_millis(NOW_MS),
        took_ms: 7,
        seen,
        detail: "answered 429".into(),
    };
    let report = |node: u64, last| CheckReport { checked_by: Some(NodeId(node)), last };
    *rig.fakes.health.0.lock().unwrap() = [
        ("a".parse().unwrap(), report(1, Some(seen(Some(Health::Warning))))),
        ("b".parse().unwrap(), report(2, None)),
        ("c".parse().unwrap(), report(1, Some(seen(None)))),
    ]
    .into();
    let shown = rig.call(Call::get(&format!("{SERVICES}/stock/health")).admin()).await.expect(200).json();
    let check = |at: usize| {
        let instance = &shown["instances"][at];
        (instance["checked_by"].clone(), instance.get("last_check").cloned())
    };
    let mut last = json!({"at": "2026-11-23T08:55:00.123Z", "took_ms": 7, "result": "warning", "detail": "answered 429"});
    assert_eq!(check(0), (json!(1), Some(last.clone())));
    assert_eq!(check(1), (json!(2), None));
    last.as_object_mut().unwrap().remove("result");
    assert_eq!(check(2), (json!(1), Some(last)));
}
