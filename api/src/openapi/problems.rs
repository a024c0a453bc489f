//! The problems that each call can answer with, and the scopes it needs: added to every operation of the document.

use std::collections::BTreeMap;

use hub_core::access::Scope;
use hub_core::error::{Code, code};
use serde_json::json;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};

use crate::problem::{PROBLEM_JSON, explain};

/// Any call can answer these.
const ANY: &[Code] = &[code::BAD_REQUEST, code::INTERNAL, code::OVERLOADED];
/// Calls that need a token.
const TOKEN: &[Code] =
    &[code::NO_TOKEN, code::BAD_TOKEN, code::EXPIRED_TOKEN, code::SCOPE, code::FOREIGN_SERVICE];
/// Calls that take a body.
const BODY: &[Code] = &[
    code::NOT_JSON,
    code::INVALID_FIELDS,
    code::NOT_BUILT,
    code::TOO_LARGE,
    code::MEDIA_TYPE,
    code::HEADER_TIMEOUT,
];
/// Changes that take no body: one that comes all the same is refused.
const NO_BODY: &[Code] = &[code::INVALID_FIELDS, code::NOT_BUILT, code::TOO_LARGE, code::HEADER_TIMEOUT];
/// Reads of the store.
const STORE: &[Code] = &[code::STORE_UNAVAILABLE];
/// Writes of the store.
const STORE_WRITE: &[Code] = &[code::STORE_UNAVAILABLE, code::DISK_LOW, code::UNKNOWN_OUTCOME];
/// New messages.
const SEND: &[Code] = &[
    code::UNKNOWN_TARGET,
    code::KEY_REUSED,
    code::BACKLOG_FULL,
    code::RATE_LIMITED,
    code::TYPE_REFUSED,
    code::NO_LEADER,
    code::NODE_BEHIND,
    code::DRAINING,
];
/// Fresh reads of the control state.
const CONTROL: &[Code] = &[code::NO_LEADER, code::NODE_BEHIND, code::DRAINING];
/// Writes of the control state.
const CONTROL_WRITE: &[Code] =
    &[code::NO_LEADER, code::DRAINING, code::UNKNOWN_OUTCOME, code::KEY_REUSED, code::TOO_LARGE];
/// Changes of one message.
const MESSAGE: &[Code] = &[code::NO_MESSAGE, code::MESSAGE_CONFLICT];
/// Operations on the nodes.
const CLUSTER: &[Code] =
    &[code::NO_NODE, code::UNSAFE, code::NO_LEADER, code::DRAINING, code::UNKNOWN_OUTCOME];
/// Calls that are known, but belong to a later version.
const LATER: &[Code] = &[code::NOT_BUILT];

const SENDERS: &[Scope] = &[Scope::MessagesSend, Scope::MessagesAdmin];
const READERS: &[Scope] = &[Scope::MessagesRead, Scope::MessagesAdmin];
const OWNERS: &[Scope] = &[Scope::ServicesRegister, Scope::ClusterAdmin];
const VIEWERS: &[Scope] = &[Scope::ServicesRead, Scope::ClusterAdmin];
const OPERATORS: &[Scope] = &[Scope::ClusterAdmin];

/// What a call needs, and how it can fail.
struct Terms {
    /// One of these; `None` for calls without a token.
    scopes: Option<&'static [Scope]>,
    codes: &'static [&'static [Code]],
}

/// The terms of an operation; `None` for one that has none here, which a test refuses.
fn terms(operation: &str) -> Option<Terms> {
    let (scopes, codes): (Option<&'static [Scope]>, &'static [&'static [Code]]) = match operation {
        "livez" | "health" => (None, &[]),
        "readyz" => (None, &[&[code::NOT_READY]]),
        "metrics" => (None, &[&[code::NO_TOKEN, code::BAD_TOKEN, code::EXPIRED_TOKEN]]),
        "sendMessage" => (Some(SENDERS), &[BODY, STORE_WRITE, SEND]),
        "sendMessages" => (Some(SENDERS), &[BODY, STORE_WRITE, SEND, &[code::BATCH_REFUSED]]),
        "getMessage" | "getDeadLetter" => (Some(READERS), &[STORE, &[code::NO_MESSAGE]]),
        "listMessages" | "listDeadLetters" => (Some(READERS), &[STORE]),
        "cancelMessage" | "discardDeadLetter" => (Some(SENDERS), &[NO_BODY, STORE_WRITE, MESSAGE]),
        "replayDeadLetter" => (Some(SENDERS), &[NO_BODY, STORE_WRITE, MESSAGE, &[code::EXPIRED]]),
        "registerService" => {
            (Some(OWNERS), &[BODY, CONTROL_WRITE, &[code::REVISION, code::URL_REFUSED, code::REGISTRY_FULL]])
        }
        "deregisterService" => (
            Some(OWNERS),
            &[NO_BODY, CONTROL_WRITE, STORE, &[code::NO_SERVICE, code::BACKLOG_LEFT, code::NODE_BEHIND]],
        ),
        "pauseService" | "resumeService" | "rotateServiceSecret" => {
            (Some(OWNERS), &[NO_BODY, CONTROL_WRITE, &[code::NO_SERVICE]])
        }
        "deregisterInstance" => {
            (Some(OWNERS), &[NO_BODY, CONTROL_WRITE, &[code::NO_SERVICE, code::NO_INSTANCE]])
        }
        "setInstanceMaintenance" => {
            (Some(OWNERS), &[BODY, CONTROL_WRITE, &[code::NO_SERVICE, code::NO_INSTANCE]])
        }
        "testService" => (
            Some(OWNERS),
            &[NO_BODY, STORE_WRITE, CONTROL, &[code::NO_SERVICE, code::NO_MESSAGE, code::BACKLOG_FULL]],
        ),
        "getService" | "getServiceRoutes" | "getServiceHealth" => {
            (Some(VIEWERS), &[CONTROL, &[code::NO_SERVICE]])
        }
        "getServiceBacklog" => (Some(VIEWERS), &[CONTROL, STORE, &[code::NO_SERVICE]]),
        "listServices" | "listServiceHealth" => (Some(VIEWERS), &[CONTROL]),
        "watchServices" | "heartbeatInstance" => (Some(VIEWERS), &[LATER]),
        "getCluster" => (Some(VIEWERS), &[]),
        "checkQuorum" => (Some(VIEWERS), &[&[code::NO_NODE]]),
        "removeNode" => (Some(OPERATORS), &[CLUSTER]),
        "drainNode" | "undrainNode" | "transferLeader" => (Some(OPERATORS), &[BODY, CLUSTER]),
        _ => return None,
    };
    Some(Terms { scopes, codes })
}

/// Completes every operation; the ids of those without terms.
pub(super) fn complete(document: &mut OpenApi) -> Vec<String> {
    let mut without = Vec::new();
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let id = operation.operation_id.clone().unwrap_or_default();
            match terms(&id) {
                Some(terms) => add(operation, &terms),
                None => without.push(id),
            }
        }
    }
    without
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn add(operation: &mut Operation, terms: &Terms) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    let token = if terms.scopes.is_some() { TOKEN } else { &[] };
    for code in [ANY, token].into_iter().chain(terms.codes.iter().copied()).flatten() {
        let status = explain(*code).map_or(500, |entry| entry.status);
        let codes = by_status.entry(status).or_default();
        if !codes.contains(code) {
            codes.push(*code);
        }
    }
    for (status, mut codes) in by_status {
        codes.sort_unstable();
        operation.responses.responses.insert(status.to_string(), RefOr::T(response(&codes)));
    }
    if let Some(scopes) = terms.scopes {
        // One of the scopes is enough, so each is an alternative.
        let each = scopes.iter().map(|scope| SecurityRequirement::new("token", [scope.as_str()]));
        operation.security = Some(each.collect());
    }
}

fn response(codes: &[Code]) -> utoipa::openapi::Response {
    let lines: Vec<String> = codes
        .iter()
        .filter_map(|code| explain(*code))
        .map(|entry| format!("{}: {}", entry.code, entry.title))
        .collect();
    let first = codes.first().and_then(|code| explain(*code));
    let example = first.map(|entry| {
        json!({
            "type": format!("urn:message-hub:problem:{}", entry.code),
            "title": entry.title,
            "status": entry.status,
            "detail": entry.cause,
            "code": entry.code.to_string(),
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        })
    });
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    content.example = example;
    ResponseBuilder::new().description(lines.join("\n\n")).content(PROBLEM_JSON, content).build()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_operation_has_its_terms() {
        let mut document = crate::openapi::routes().into_openapi();
        assert_eq!(super::complete(&mut document), Vec::<String>::new());
    }
}
