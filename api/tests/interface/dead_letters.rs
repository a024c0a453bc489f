//! Dead letters.

use hub_core::access::Scope;
use hub_core::error::code;
use hub_core::message::Status;
use serde_json::{Value, json};

use crate::rig::{Call, Rig, token};

const LETTERS: &str = "/api/v1/dead-letters";

async fn buried(rig: &Rig, extra: Option<(&str, Value)>) -> String {
    *rig.fakes.store.fate.lock().unwrap() = Some(|record| {
        record.status = Status::DeadLetter;
        record.dead_reason = Some("exhausted".into());
        record.error_message = Some("target answered 500".into());
        record.processed_at = Some(record.message.created_at);
    });
    let mut body =
        json!({"sender_service": "shop", "target_service": "stock", "message_type": "t", "content": 1});
    if let Some((field, value)) = extra {
        body[field] = value;
    }
    let sent =
        rig.call(Call::post("/api/v1/messages?allow_unregistered").admin().json(&body)).await.expect(202);
    sent.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn shown_replayed_and_discarded() {
    let rig = Rig::new();
    let id = buried(&rig, None).await;
    let list = rig.call(Call::get(&format!("{LETTERS}?service=stock")).admin()).await.expect(200).json();
    assert_eq!(list["items"][0]["reason"], "exhausted");
    assert_eq!(list["items"][0]["dead_at"], "2026-11-23T08:55:00.123Z");
    let path = format!("{LETTERS}/{id}");
    rig.call(Call::get(&path).admin()).await.expect(200);
    let answer = rig.call(Call::post(&format!("{path}/replay")).admin()).await.expect(200);
    assert_eq!(answer.json(), json!({"id": id, "status": "pending"}));
    rig.call(Call::get(&path).admin()).await.expect(404).refused(code::NO_MESSAGE);
    let answer = rig.call(Call::post(&format!("{path}/replay")).admin()).await.expect(409);
    assert_eq!(answer.refused(code::MESSAGE_CONFLICT).json()["message_status"], "pending");
    let id = buried(&rig, None).await;
    let answer = rig.call(Call::delete(&format!("{LETTERS}/{id}")).admin()).await.expect(200);
    assert_eq!(answer.json()["status"], "discarded");
}

#[tokio::test]
async fn refusals() {
    let rig = Rig::new();
    let id = buried(&rig, Some(("ttl_seconds", json!(60)))).await;
    let replay = format!("{LETTERS}/{id}/replay");
    rig.call(Call::post(&replay).admin()).await.expect(409).refused(code::EXPIRED);
    let target = token("stock", &[Scope::MessagesSend, Scope::MessagesRead]);
    rig.call(Call::get(&format!("{LETTERS}/{id}")).token(&target)).await.expect(200);
    rig.call(Call::post(&replay).token(&target)).await.expect(403).refused(code::FOREIGN_SERVICE);
    let reader = token("shop", &[Scope::MessagesRead]);
    rig.call(Call::delete(&format!("{LETTERS}/{id}")).token(&reader)).await.expect(403).refused(code::SCOPE);
    let nobody = "00000000-0000-7000-8000-000000000000";
    rig.call(Call::delete(&format!("{LETTERS}/{nobody}")).admin()).await.expect(404);
    rig.call(Call::get(&format!("{LETTERS}?status=pending")).admin())
        .await
        .expect(400)
        .refused(code::BAD_REQUEST);
}
