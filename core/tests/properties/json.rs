//! The scanner against `serde_json`.

use hub_core::json::{JsonError, Top, line_and_column, scan};
use proptest::prelude::*;
use serde_json::Value;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "\\PC{0,8}".prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,5}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn finds_what_is_there(value in value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let shape = scan(&text, 128).unwrap();
        prop_assert_eq!(shape.depth, depth(&value));
        let top = match &value { Value::Object(_) => Top::Object, Value::Array(_) => Top::Array, _ => Top::Scalar };
        prop_assert_eq!(shape.top, top);
        let found: Vec<(String, Value)> = shape.members.into_iter()
            .map(|(name, value)| (serde_json::from_str(&text[name]).unwrap(), serde_json::from_str(&text[value]).unwrap()))
            .collect();
        let there: Vec<(String, Value)> = value.as_object()
            .map(|map| map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()).unwrap_or_default();
        prop_assert_eq!(found, there);
    }

    #[test]
    fn agrees_on_what_is_json(text in r#"[\[\]{},:"\\ 0-9eE+.\-a-u]{0,12}"#) {
        let theirs = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok();
        prop_assert_eq!(scan(&text, 128).is_ok(), theirs, "{}", text);
    }

    #[test]
    fn agrees_on_damaged_json(value in value(), at: prop::sample::Index, with in "[\\[\\]{},:\"\\\\ 0-9a-f\n]") {
        let mut chars: Vec<char> = serde_json::to_string(&value).unwrap().chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..=at, with.chars());
        let text: String = chars.into_iter().collect();
        let theirs = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text).is_ok();
        prop_assert_eq!(scan(&text, 128).is_ok(), theirs, "{}", text);
    }
}

#[test]
fn hostile_depth_costs_nothing() {
    let text = "[".repeat(1 << 20);
    assert_eq!(scan(&text, 128), Err(JsonError::TooDeep { limit: 128 }));
    assert_eq!(scan(&text, usize::MAX), Err(JsonError::Malformed { at: 1 << 20 }));
    let text = format!("{}{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(scan(&text, 128).unwrap().depth, 128);
    assert!(scan(&text, 127).is_err());
}

#[test]
fn says_where() {
    let text = "{\n  \"a\": x\n}";
    let Err(JsonError::Malformed { at }) = scan(text, 9) else { panic!("not refused") };
    assert_eq!(line_and_column(text, at), (2, 8));
}
