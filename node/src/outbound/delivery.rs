//! A delivery as an HTTP request: its body and its headers.

use std::fmt::Write as _;

use bytes::Bytes;
use hub_core::message::Message;
use hub_core::registry::{Instance, Service};
use hub_core::time::Timestamp;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Uri};

use super::signature::sign;
use super::{Call, Departure, KEPT};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const HUB_ATTEMPT: HeaderName = HeaderName::from_static("hub-attempt");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const CE_TIME: HeaderName = HeaderName::from_static("ce-time");
const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("message-hub/", env!("CARGO_PKG_VERSION")));

/// One attempt to deliver one message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What is delivered.
    pub message: &'a Message,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// To whom.
    pub service: &'a Service,
    /// To which of its copies.
    pub instance: &'a Instance,
    /// When it leaves.
    pub now: Timestamp,
    /// A random number, not zero, that names this attempt in the sender's trace.
    pub span: u64,
}

impl Delivery<'_> {
    /// The request; `None` if the instance's URL and the path make no address.
    #[must_use]
    pub fn call(&self, timeout: std::time::Duration) -> Option<Call> {
        let id = self.message.id.to_string();
        let created_at = self.message.created_at.to_string();
        let body = self.body(&id, &created_at);
        let headers = self.headers(&id, &created_at, &body);
        let uri = self.uri()?;
        Some(Call {
            method: Method::POST,
            uri,
            headers,
            body: body.into(),
            timeout,
            keep: KEPT,
            departure: Departure::default(),
        })
    }

    fn uri(&self) -> Option<Uri> {
        let (base, path) = (&self.instance.url, &self.service.delivery.path);
        let mut text = String::with_capacity(base.len() + path.len());
        text.push_str(base);
        text.push_str(path);
        Uri::from_maybe_shared(Bytes::from(text)).ok()
    }

    /// `content` and `metadata` are JSON text that was checked when the message was accepted; they go out as they came.
    fn body(&self, id: &str, created_at: &str) -> String {
        let message = self.message;
        let metadata = message.metadata.as_deref().unwrap_or("{}");
        let mut body = String::with_capacity(
            224 + 2 * message.message_type.len() + message.content.len() + metadata.len(),
        );
        // Ids, names and times hold nothing that JSON escapes; writing to a string cannot fail.
        let _ = write!(
            body,
            r#"{{"id":"{id}","sender_service":"{}","target_service":"{}","message_type":"#,
            message.sender, message.target
        );
        push_json(&mut body, &message.message_type);
        body.push_str(r#","content":"#);
        body.push_str(&message.content);
        body.push_str(r#","metadata":"#);
        body.push_str(metadata);
        let _ = write!(body, r#","created_at":"{created_at}","attempt":{}}}"#, self.attempt);
        body
    }

    fn headers(&self, id: &str, created_at: &str, body: &str) -> HeaderMap {
        let message = self.message;
        let mut headers = HeaderMap::with_capacity(16 + self.service.delivery.headers.len());
        for (name, value) in &self.service.delivery.headers {
            // Checked when the service registered; the hub's own names below win over them.
            if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), header(value)) {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, AGENT);
        headers.insert(HUB_ATTEMPT, HeaderValue::from(self.attempt));
        headers.insert(CE_SPECVERSION, HeaderValue::from_static("1.0"));
        let timestamp = self.now.as_millis().div_euclid(1000);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
        if let Some(id) = header(id) {
            headers.insert(CE_ID, id.clone());
            headers.insert(WEBHOOK_ID, id.clone());
            headers.insert(IDEMPOTENCY_KEY, id);
        }
        let signature = sign(&self.service.secrets, id, timestamp, body.as_bytes(), self.now);
        let traceparent = message.traceparent.as_deref().and_then(|parent| child_of(parent, self.span));
        for (name, value) in [
            (WEBHOOK_SIGNATURE, signature.as_deref().and_then(header)),
            (TRACEPARENT, traceparent.as_deref().and_then(header)),
            (CE_SOURCE, header(message.sender.as_str())),
            (CE_TYPE, header(&cloud_event_value(&message.message_type))),
            (CE_TIME, header(created_at)),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }
}

fn header(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

fn push_json(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        // A string always has a JSON form.
        Err(_) => out.push_str("\"\""),
    }
}

/// Percent-encodes what the CloudEvents HTTP binding (3.1.3.2) does not let into a header.
fn cloud_event_value(text: &str) -> std::borrow::Cow<'_, str> {
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%';
    if text.bytes().all(plain) {
        return text.into();
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

/// The trace context of a child of `parent`; `None` if `parent` is not one of W3C's version 00 or a later one.
fn child_of(parent: &str, span: u64) -> Option<String> {
    let mut parts = parent.split('-');
    let (version, trace, _, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let legal = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(flags, 2);
    (legal && trace.bytes().any(|byte| byte != b'0')).then(|| format!("00-{trace}-{span:016x}-{flags}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_a_trace_on_as_a_child() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            child_of(parent, 0x1234).unwrap(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000001234-01"
        );
        for bad in ["", "00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-zz-00-01"] {
            assert_eq!(child_of(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn cloud_event_headers_are_percent_encoded() {
        assert_eq!(cloud_event_value("character.created"), "character.created");
        assert_eq!(cloud_event_value("Euro € \"%\""), "Euro%20%E2%82%AC%20%22%25%22");
    }
}
