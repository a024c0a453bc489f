//! Reading and checking messages.

use std::time::Duration;

use hub_core::error::{FieldError, code};
use hub_core::message::{Acceptance, Checked, Draft, Limits};
use hub_core::time::Timestamp;
use hub_core::{id::MessageId, message::Priority};

const NOW: Timestamp = Timestamp::EPOCH;

fn now() -> Timestamp {
    NOW.plus(Duration::from_secs(1_800_000_000))
}

fn check(text: &str) -> Result<Checked, Vec<FieldError>> {
    Draft::read(text).unwrap().check(&Limits::default(), now(), None)
}

fn complaints(text: &str) -> Vec<(String, u16)> {
    let mut bad: Vec<_> =
        check(text).unwrap_err().into_iter().map(|error| (error.pointer, error.code.0)).collect();
    bad.sort();
    bad
}

fn with(more: &str) -> String {
    format!(r#"{{"sender_service":"a","target_service":"b","message_type":"t","content":1{more}}}"#)
}

#[test]
fn a_whole_message() {
    let text = r#" {"sender_service":"a","target_service":"b","message_type":"x.y", "content" : {"z": 1.0,
        "a":[1e400] } ,"metadata":{"correlation_id":"c\u0031","reply_to":"b","n":{}},"priority":9,
        "delay_seconds":60,"ttl_seconds":120,"max_retries":0,"idempotency_key":"k"}"#;
    let checked = check(text).unwrap();
    assert_eq!(&*checked.content, "{\"z\": 1.0,\n        \"a\":[1e400] }");
    assert_eq!(checked.correlation_id.as_deref(), Some("c1"));
    assert_eq!(checked.priority, Priority::new(9).unwrap());
    assert_eq!(checked.deliver_at, Some(now().plus(Duration::from_secs(60))));
    assert_eq!(checked.expires_at, Some(now().plus(Duration::from_secs(120))));
    assert_eq!(checked.max_retries, Some(0));
    let message = checked.accept(Acceptance {
        id: MessageId(uuid::Uuid::from_u128(7)),
        created_at: now(),
        max_age: Duration::from_secs(10),
        traceparent: None,
        idempotency: None,
    });
    assert_eq!(message.due_at(), now().plus(Duration::from_secs(60)));
    assert_eq!(message.too_old_at, now().plus(Duration::from_secs(70)));
}

#[test]
fn the_sender_is_the_caller_if_it_is_not_said() {
    let text = r#"{"target_service":"b","message_type":"t","content":null}"#;
    let me = "me".parse().unwrap();
    let checked = Draft::read(text).unwrap().check(&Limits::default(), now(), Some(&me)).unwrap();
    assert_eq!(checked.sender, me);
    assert_eq!(&*checked.content, "null");
    assert_eq!(complaints(text), [("/sender_service".into(), 1003)]);
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = r#"{"sender_service":"A","target_service":"health","message_type":5,"metadata":[],"priority":10,
        "deliver_at":"soon","ttl_seconds":0,"max_retries":1.5,"ordering_key":"k","transaction_id":null,
        "topic":"x","co~n/tent":1,"priority":1}"#;
    let expected = [
        ("/content", 1003),
        ("/co~0n~1tent", 1003),
        ("/deliver_at", 1003),
        ("/max_retries", 1003),
        ("/message_type", 1003),
        ("/metadata", 1003),
        ("/ordering_key", code::NOT_BUILT.0),
        ("/priority", 1003),
        ("/priority", 1003),
        ("/sender_service", 1003),
        ("/target_service", 1003),
        ("/topic", code::NOT_BUILT.0),
        ("/ttl_seconds", 1003),
    ];
    assert_eq!(complaints(text), expected.map(|(pointer, code)| (pointer.to_owned(), code)));
}

#[test]
fn not_an_object_and_not_json() {
    assert_eq!(complaints("[1]")[0], (String::new(), 1003));
    assert!(Draft::read("{").is_err());
    assert!(Draft::read("{} x").is_err());
}

#[test]
fn limits_are_exact() {
    let year = 365 * 24 * 3600;
    let good = [
        r#","priority":0"#.to_owned(),
        r#","max_retries":100"#.to_owned(),
        format!(r#","delay_seconds":{year}"#),
        r#","deliver_at":"2000-01-01T00:00:00Z""#.to_owned(),
        r#","expires_at":"2027-01-15T08:00:00.001Z""#.to_owned(),
        r#","metadata":{}"#.to_owned(),
        r#","metadata":{"correlation_id":null}"#.to_owned(),
        format!(r#","metadata":{{"a":"{}"}}"#, "x".repeat((16 << 10) - 8)),
    ];
    for more in good {
        check(&with(&more)).unwrap_or_else(|bad| panic!("{more}: {bad:?}"));
    }
    let entries: Vec<String> = (0..65).map(|n| format!("\"k{n}\":0")).collect();
    let bad = [
        (r#","priority":-1"#.to_owned(), "/priority", 1003),
        (r#","max_retries":101"#.to_owned(), "/max_retries", 1003),
        (r#","max_retries":"1""#.to_owned(), "/max_retries", 1003),
        (r#","max_retries":99999999999999999999"#.to_owned(), "/max_retries", 1003),
        (format!(r#","delay_seconds":{}"#, year + 1), "/delay_seconds", 1003),
        (r#","delay_seconds":-1"#.to_owned(), "/delay_seconds", 1003),
        (r#","delay_seconds":1,"deliver_at":"2027-01-15T08:00:01Z""#.to_owned(), "/delay_seconds", 1003),
        (r#","deliver_at":"2029-01-01T00:00:00Z""#.to_owned(), "/deliver_at", 1003),
        (r#","expires_at":"2027-01-15T08:00:00Z""#.to_owned(), "/expires_at", 1003),
        (r#","ttl_seconds":5,"delay_seconds":5"#.to_owned(), "/ttl_seconds", 1003),
        (r#","ttl_seconds":5,"expires_at":"2028-01-15T08:00:00Z""#.to_owned(), "/ttl_seconds", 1003),
        (r#","metadata":{"reply_to":1}"#.to_owned(), "/metadata/reply_to", 1003),
        (r#","metadata":{"a":1,"a":2}"#.to_owned(), "/metadata/a", 1003),
        (format!(r#","metadata":{{{}}}"#, entries.join(",")), "/metadata", 1003),
        (format!(r#","metadata":{{"a":"{}"}}"#, "x".repeat((16 << 10) - 7)), "/metadata", 1004),
        (r#","idempotency_key":"""#.to_owned(), "/idempotency_key", 1003),
    ];
    for (more, pointer, code) in bad {
        assert_eq!(complaints(&with(&more)), [(pointer.to_owned(), code)], "{more}");
    }
}

#[test]
fn content_is_bounded_in_size_and_depth() {
    let message = |content: &str| {
        format!(r#"{{"sender_service":"a","target_service":"b","message_type":"t","content":{content}}}"#)
    };
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let string = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    check(&message(&nested(128))).unwrap();
    assert_eq!(complaints(&message(&nested(129))), [("/content".to_owned(), 1003)]);
    check(&message(&string(1 << 20))).unwrap();
    assert_eq!(complaints(&message(&string((1 << 20) + 1))), [("/content".to_owned(), 1004)]);
}
