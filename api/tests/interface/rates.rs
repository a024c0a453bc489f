//! Rate limits, and messages shown out of the shared cache.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hub_api::Rates;
use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::limit::Rate;
use hub_core::message::{Record, Status};
use hub_core::port::StoreError;
use hub_core::time::Timestamp;
use serde_json::{Value, json};

use crate::fakes::NOW_MS;
use crate::rig::{Answer, Call, Rig, token};

const SEND: &str = "/api/v1/messages";
const BATCH: &str = "/api/v1/messages/batch";

fn message(target: &str) -> Value {
    json!({"target_service": target, "message_type": "t", "content": 1})
}

/// `caller` messages in a second from each caller, and `target` for each target; 0 for no limit.
async fn rig(caller: u32, target: u32) -> Rig {
    let rates = Rates { caller: Rate::per_second(caller, 0), target: Rate::per_second(target, 0) };
    let rig = Rig::with(|options| options.rates = rates);
    rig.register("stock").await;
    rig.register("story").await;
    rig
}

impl Rig {
    async fn send(&self, caller: &str, target: &str) -> Answer {
        let token = token(caller, &[Scope::MessagesSend]);
        self.call(Call::post(SEND).token(&token).json(&message(target))).await
    }

    async fn batch(&self, query: &str, targets: &[(&str, usize)]) -> Answer {
        let many = targets.iter().flat_map(|(target, count)| std::iter::repeat_n(message(target), *count));
        let body = json!({"messages": many.collect::<Vec<_>>()});
        let token = token("shop", &[Scope::MessagesSend]);
        self.call(Call::post(&format!("{BATCH}{query}")).token(&token).json(&body)).await
    }

    fn pass_time(&self, millis: u64) {
        self.fakes.cache.now.fetch_add(millis, Ordering::SeqCst);
    }

    fn taken(&self) -> usize {
        self.fakes.store.taken.lock().unwrap().len()
    }
}

fn codes(answer: &Answer) -> Vec<String> {
    let results = answer.json()["results"].as_array().unwrap().clone();
    results.iter().map(|result| result["code"].as_str().unwrap_or("ok").to_owned()).collect()
}

#[tokio::test]
async fn without_limits_nobody_is_asked() {
    let rig = rig(0, 0).await;
    let answer = rig.send("shop", "stock").await.expect(202);
    assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), (None, None));
    rig.batch("", &[("stock", 3)]).await.expect(200);
    assert!(rig.fakes.cache.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_caller_that_sends_too_fast_is_told_when_to_come_back() {
    let rig = rig(2, 0).await;
    let first = rig.send("shop", "stock").await.expect(202);
    assert_eq!(first.header("ratelimit-policy"), Some(r#""caller";q=2;qu="messages";w=1"#));
    assert_eq!(first.header("ratelimit"), Some(r#""caller";r=1;t=1"#));
    assert_eq!(first.header("retry-after"), None);
    rig.send("shop", "story").await.expect(202);
    let refused = rig.send("shop", "stock").await.expect(429).refused(code::RATE_LIMITED);
    assert_eq!(refused.header("ratelimit"), Some(r#""caller";r=0;t=1"#));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["retry_after_ms"], 500);
    assert_eq!(refused.json()["violated-policies"], json!(["caller"]));
    rig.send("other", "stock").await.expect(202);
    assert_eq!(rig.taken(), 3, "what was refused did not reach the store");
    rig.pass_time(500);
    rig.send("shop", "stock").await.expect(202);
    let metrics = rig.raw(Call::get("/metrics")).await.text();
    assert!(metrics.contains(r#"hub_messages_rate_limited_total{limit="caller"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_target_is_spared_whoever_sends() {
    let rig = rig(10, 2).await;
    rig.send("shop", "stock").await.expect(202);
    let second = rig.send("other", "stock").await.expect(202);
    let policy = r#""caller";q=10;qu="messages";w=1, "target";q=2;qu="messages";w=1"#;
    assert_eq!(second.header("ratelimit-policy"), Some(policy));
    assert_eq!(second.header("ratelimit"), Some(r#""caller";r=9;t=1, "target";r=0;t=1"#));
    let refused = rig.send("shop", "stock").await.expect(429).refused(code::RATE_LIMITED);
    assert_eq!(refused.json()["violated-policies"], json!(["target"]));
    assert_eq!(refused.header("ratelimit"), Some(r#""caller";r=9;t=1, "target";r=0;t=1"#), "costs nothing");
    rig.send("shop", "story").await.expect(202);
}

#[tokio::test]
async fn what_is_refused_for_itself_costs_nothing_and_a_repeat_costs_one() {
    let rig = rig(2, 0).await;
    for _ in 0..5 {
        rig.send("shop", "nobody").await.expect(404);
    }
    let token = token("shop", &[Scope::MessagesSend]);
    let call = || {
        let call = Call::post(SEND).token(&token).header("idempotency-key", "k");
        call.json(&message("stock"))
    };
    rig.call(call()).await.expect(202);
    let repeat = rig.call(call()).await.expect(202);
    assert_eq!(repeat.header("idempotent-replayed"), Some("true"));
    rig.call(call()).await.expect(429);
}

#[tokio::test]
async fn a_batch_of_n_costs_n() {
    let rig = rig(5, 0).await;
    let taken = rig.batch("", &[("stock", 2), ("nobody", 7), ("story", 1)]).await.expect(200);
    assert_eq!(taken.header("ratelimit"), Some(r#""caller";r=2;t=1"#), "bad messages cost nothing");
    let refused = rig.batch("", &[("stock", 3)]).await.expect(429).refused(code::RATE_LIMITED);
    assert_eq!(refused.json()["retry_after_ms"], 200);
    assert_eq!(rig.taken(), 3);
    rig.batch("", &[("stock", 2)]).await.expect(200);
}

#[tokio::test]
async fn in_a_batch_a_target_refuses_its_own_messages() {
    let rig = rig(9, 3).await;
    rig.send("shop", "story").await.expect(202);
    let answer = rig.batch("", &[("stock", 2), ("story", 3), ("stock", 1)]).await.expect(200);
    assert_eq!(codes(&answer), ["ok", "ok", "HUB-1210", "HUB-1210", "HUB-1210", "ok"]);
    assert_eq!(answer.json()["results"][2]["retry_after_ms"], 334);
    assert_eq!(answer.header("ratelimit"), Some(r#""caller";r=5;t=1, "target";r=0;t=1"#), "the scarcest");
    assert_eq!(rig.taken(), 4);
}

#[tokio::test]
async fn an_atomic_batch_is_refused_whole_and_costs_nothing() {
    let rig = rig(9, 3).await;
    rig.send("shop", "story").await.expect(202);
    let refused = rig.batch("?atomic=true", &[("stock", 3), ("story", 3)]).await.expect(429);
    assert_eq!(refused.header("ratelimit"), Some(r#""caller";r=8;t=1, "target";r=2;t=1"#));
    rig.batch("?atomic=true", &[("stock", 1), ("nobody", 1)]).await.expect(422);
    rig.batch("?atomic=true", &[("stock", 3), ("story", 2)]).await.expect(200);
    assert_eq!(rig.taken(), 6);
}

#[tokio::test]
async fn a_batch_larger_than_all_permits_passes_when_none_is_used() {
    let rig = rig(5, 0).await;
    rig.batch("", &[("stock", 20)]).await.expect(200);
    let refused = rig.batch("", &[("stock", 1)]).await.expect(429);
    assert_eq!(refused.json()["retry_after_ms"], 3_200);
    rig.pass_time(3_200);
    rig.batch("", &[("stock", 1)]).await.expect(200);
}

#[tokio::test]
async fn who_cannot_count_refuses_nobody() {
    let rig = rig(1, 1).await;
    rig.fakes.cache.down.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        rig.send("shop", "stock").await.expect(202);
    }
}

#[tokio::test]
async fn a_failing_store_is_told_with_what_is_left() {
    let rig = rig(2, 0).await;
    *rig.fakes.store.fault.lock().unwrap() =
        Some(|| StoreError::Unavailable { reason: "gone".to_owned(), retryable: true });
    let answer = rig.send("shop", "stock").await.expect(503);
    assert_eq!(answer.header("ratelimit"), Some(r#""caller";r=1;t=1"#));
}

fn end(record: &mut Record) {
    record.status = Status::Delivered;
    record.processed_at = Some(Timestamp::from_millis(NOW_MS));
}

#[tokio::test]
async fn a_message_that_has_come_to_its_end_is_shown_without_the_store() {
    let rig = rig(0, 0).await;
    *rig.fakes.store.fate.lock().unwrap() = Some(end);
    let sent = rig.send("shop", "stock").await.expect(202);
    let path = sent.header("location").unwrap().to_owned();
    let show = async |service: &str| {
        let token = token(service, &[Scope::MessagesRead]);
        rig.call(Call::get(&path).token(&token)).await
    };
    let first = show("shop").await.expect(200);
    let kept: Vec<Duration> = rig.fakes.cache.kept.lock().unwrap().values().map(|(_, time)| *time).collect();
    assert_eq!(kept, [Duration::from_secs(60)]);
    *rig.fakes.store.fault.lock().unwrap() = Some(|| StoreError::Unknown("gone".to_owned()));
    for reader in ["shop", "stock"] {
        let again = show(reader).await.expect(200);
        assert_eq!((again.text(), again.header("hub-consistency")), (first.text(), Some("linearizable")));
    }
    show("nosy").await.expect(404).refused(code::NO_MESSAGE);
    rig.fakes.cache.down.store(true, Ordering::SeqCst);
    show("shop").await.expect(503);
    *rig.fakes.store.fault.lock().unwrap() = None;
    show("shop").await.expect(200);
}

#[tokio::test]
async fn what_may_change_or_is_about_to_go_is_not_kept() {
    let rig = Rig::with(|options| options.retention = Duration::from_secs(30));
    rig.register("stock").await;
    let kept = || rig.fakes.cache.kept.lock().unwrap().values().map(|(_, time)| *time).collect::<Vec<_>>();
    let pending = rig.send("shop", "stock").await.expect(202);
    rig.call(Call::get(pending.header("location").unwrap()).admin()).await.expect(200);
    assert!(kept().is_empty());
    *rig.fakes.store.fate.lock().unwrap() = Some(|record| {
        end(record);
        record.processed_at = Some(Timestamp::from_millis(NOW_MS - 20_000));
    });
    let old = rig.send("shop", "stock").await.expect(202);
    rig.call(Call::get(old.header("location").unwrap()).admin()).await.expect(200);
    assert_eq!(kept(), [Duration::from_secs(10)], "not longer than the store keeps it");
}
