//! The answer table, end to end, and what a target gets to see.

use hub_core::delivery::{AttemptOutcome, DeadReason, SettleOutcome};
use hub_core::registry::Secret;
use hub_core::time::Timestamp;

use super::target::{Answer, Target};
use super::*;

#[tokio::test]
async fn a_target_gets_the_message_with_all_its_headers() {
    let target = Target::start(|_| Answer::With(200, "x-any", "1".to_owned())).await;
    let bench = Bench::start(Options::default()).await;
    let mut registered = service("combat", &[&format!("{}/base", target.url)]);
    registered.delivery.headers =
        vec![("x-own".into(), "mine".into()), ("webhook-id".into(), "forged".into())];
    registered.secrets = vec![Secret {
        value: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
        created_at: Timestamp::EPOCH,
        valid_until: None,
    }];
    bench.register(registered.clone());
    let mut message = bench.message("combat");
    message.metadata = Some(r#"{"correlation_id":"c1"}"#.into());
    message.message_type = "say \"hi\"".into();
    message.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    let created_at = message.created_at.to_string();
    let id = bench.send(message);
    let row = bench.wait_status(id, Status::Delivered).await;

    let got = target.got().remove(0);
    assert_eq!(got.path, "/base/messages");
    assert_eq!(
        got.body,
        format!(
            r#"{{"id":"{id}","sender_service":"sender","target_service":"combat","message_type":"say \"hi\"","content":{{"b": 1.50, "a": [ ]}},"metadata":{{"correlation_id":"c1"}},"created_at":"{created_at}","attempt":1}}"#
        )
    );
    let header = |name: &str| got.headers[name].to_str().unwrap().to_owned();
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", &id.to_string()),
        ("webhook-id", &id.to_string()),
        ("hub-attempt", "1"),
        ("ce-id", &id.to_string()),
        ("ce-source", "sender"),
        ("ce-type", "say%20%22hi%22"),
        ("ce-time", &created_at),
        ("ce-specversion", "1.0"),
        ("x-own", "mine"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    let signature = outbound::signature::sign(
        &registered.secrets,
        &id.to_string(),
        timestamp,
        got.body.as_bytes(),
        bench.clock.now(),
    );
    assert_eq!(header("webhook-signature"), signature.unwrap());
    let trace = header("traceparent");
    assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert!(!trace.contains("00f067aa0ba902b7"), "the attempt is a span of its own");

    let attempt = row.ends[0].attempt.clone().unwrap();
    assert_eq!((attempt.number, attempt.node, attempt.http_status), (1, NODE, Some(200)));
    assert_eq!(attempt.instance.unwrap().as_str(), "i0");
    assert_eq!(attempt.response.as_deref(), Some("why"));
    bench.finish().await;
}

#[tokio::test]
async fn each_answer_has_its_end() {
    let cases: [(u16, Status, AttemptOutcome); 8] = [
        (200, Status::Delivered, AttemptOutcome::Delivered),
        (204, Status::Delivered, AttemptOutcome::Delivered),
        (302, Status::DeadLetter, AttemptOutcome::Rejected),
        (400, Status::DeadLetter, AttemptOutcome::Rejected),
        (410, Status::DeadLetter, AttemptOutcome::Rejected),
        (408, Status::DeadLetter, AttemptOutcome::Failed),
        (500, Status::DeadLetter, AttemptOutcome::Failed),
        (429, Status::DeadLetter, AttemptOutcome::Failed),
    ];
    let bench = Bench::start(Options::default()).await;
    for (code, status, outcome) in cases {
        let target = Target::start(move |_| Answer::Status(code)).await;
        let name = format!("answers-{code}");
        bench.register(service(&name, &[&target.url]));
        let id = bench.send(bench.message(&name));
        let row = bench.wait_status(id, status).await;
        let last = row.ends.last().unwrap();
        assert_eq!(last.attempt.as_ref().unwrap().outcome, outcome, "{code}");
        // The service has three retries.
        let attempts = if outcome == AttemptOutcome::Failed { 4 } else { 1 };
        assert_eq!((row.ends.len(), target.got().len()), (attempts, attempts), "{code}");
        let reason = match code {
            410 => Some(DeadReason::Gone),
            302 | 400 => Some(DeadReason::Rejected),
            408 | 500 | 429 => Some(DeadReason::Exhausted),
            _ => None,
        };
        assert_eq!(last.outcome, reason.map_or(SettleOutcome::Delivered, SettleOutcome::Dead), "{code}");
        assert_eq!(last.error.is_some(), reason.is_some());
    }
    assert_eq!(bench.metric("hub_deliveries_total"), 17.0);
    bench.finish().await;
}

#[tokio::test]
async fn attempts_are_numbered_and_retried_until_delivered() {
    let target = Target::start(|number| Answer::Status(if number < 2 { 500 } else { 200 })).await;
    let bench = Bench::start(Options::default()).await;
    bench.register(service("combat", &[&target.url]));
    let id = bench.send(bench.message("combat"));
    let row = bench.wait_status(id, Status::Delivered).await;
    assert_eq!(row.retry_count, 2);
    let seen: Vec<_> =
        target.got().iter().map(|got| got.headers["hub-attempt"].to_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["1", "2", "3"]);
    bench.finish().await;
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date_and_slows_the_target() {
    let in_an_hour = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    for (value, at_least) in
        [("30".to_owned(), 30), (httpdate::fmt_http_date(in_an_hour), 60 /* the policy's cap */)]
    {
        let target = Target::start(move |_| Answer::With(503, "retry-after", value.clone())).await;
        let bench = Bench::start(Options::default()).await;
        bench.register(service("busy", &[&target.url]));
        let first = bench.send(bench.message("busy"));
        let before = bench.clock.now();
        let row = bench.wait_status(first, Status::Retrying).await;
        assert!(row.due.since(before) >= Duration::from_secs(at_least - 1), "{:?}", row.due.since(before));
        assert!(row.due.since(before) <= Duration::from_secs(61));
        // Another message for the same target is not even claimed.
        let second = bench.send(bench.message("busy"));
        bench.send_and_wait_elsewhere().await;
        assert_eq!(bench.queue.row(second).status, Status::Pending);
        assert_eq!(target.got().len(), 1);
        bench.finish().await;
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_was_certainly_not_reached() {
    let bench = Bench::start(Options::default()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.register(service("absent", &[&format!("http://{free}")]));
    let id = bench.send(bench.message("absent"));
    let row = bench.wait_status(id, Status::DeadLetter).await;
    for end in &row.ends {
        let attempt = end.attempt.as_ref().unwrap();
        assert_eq!(attempt.outcome, AttemptOutcome::NotSent);
        assert_eq!(attempt.error_class.as_deref(), Some("connect"));
    }
    assert_eq!(row.ends.len(), 4);
    bench.finish().await;
}

#[tokio::test]
async fn a_target_that_is_silent_may_have_got_it() {
    let target = Target::start(|_| Answer::WhenOpened).await;
    let bench = Bench::start(Options::default()).await;
    let mut silent = service("silent", &[&target.url]);
    silent.delivery.timeout_ms = 200;
    silent.retry.max_retries = Some(0);
    bench.register(silent);
    let id = bench.send(bench.message("silent"));
    let row = bench.wait_status(id, Status::DeadLetter).await;
    assert_eq!(row.ends[0].attempt.as_ref().unwrap().outcome, AttemptOutcome::NoAnswer);
    bench.finish().await;
}

#[tokio::test]
async fn an_address_that_is_refused_costs_no_retry_and_rests_the_target() {
    let bench = Bench::start(Options::default()).await;
    bench.register(service("metadata", &["http://169.254.169.254"]));
    let id = bench.send(bench.message("metadata"));
    let row = bench.wait_status(id, Status::Retrying).await;
    assert_eq!(row.retry_count, 0);
    let attempt = row.ends[0].attempt.clone().unwrap();
    assert_eq!(attempt.outcome, AttemptOutcome::HubFault);
    assert_eq!(attempt.error_class.as_deref(), Some("guarded"));
    bench.send_and_wait_elsewhere().await;
    assert_eq!(bench.queue.row(id).ends.len(), 1);
    bench.finish().await;
}
