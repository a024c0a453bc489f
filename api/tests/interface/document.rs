//! The document itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rig::{Call, Rig};

#[tokio::test]
async fn served_and_shown() {
    let rig = Rig::new();
    let answer = rig.raw(Call::get("/openapi.json")).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    rig.raw(Call::get("/docs")).await.expect(303);
    let page = rig.raw(Call::get("/docs/")).await.expect(200);
    assert!(page.text().contains("swagger-ui"));
}

#[test]
fn operations_are_named_once_and_references_lead_somewhere() {
    let document: Value = serde_json::from_str(&hub_api::document("0.0.0")).unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id"));
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{id}");
        }
    }
    references(&document, &document);
}

fn references(document: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| references(document, value)),
        _ => {}
    }
}
