//! Which request this is: for the log, for problems, and for who traces across services.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hub_core::port::IdSource;

/// `X-Request-Id`.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id that is echoed.
const MAX_REQUEST_ID: usize = 128;

/// The marks of one request.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    /// 32 hexadecimal digits: the sender's trace, or one of our own.
    pub(crate) id: Arc<str>,
    /// The sender's trace context (W3C), if it is well-formed.
    pub(crate) parent: Option<Arc<str>>,
    /// What goes back as `X-Request-Id`: the sender's, or the trace id.
    pub(crate) echo: HeaderValue,
}

impl Trace {
    /// Reads the headers.
    pub(crate) fn of(headers: &HeaderMap, ids: &dyn IdSource) -> Self {
        let parent =
            headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).filter(|text| is_context(text));
        let id: Arc<str> = match parent.and_then(|text| text.get(3..35)) {
            Some(id) => id.into(),
            None => {
                let mut text = [0; uuid::fmt::Simple::LENGTH];
                (&*ids.request_id().0.simple().encode_lower(&mut text)).into()
            }
        };
        let given = headers.get(REQUEST_ID).filter(|value| is_echoable(value)).cloned();
        let echo = given.or_else(|| HeaderValue::from_str(&id).ok());
        Self {
            id,
            parent: parent.map(Into::into),
            echo: echo.unwrap_or_else(|| HeaderValue::from_static("")),
        }
    }
}

fn is_echoable(value: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Version 00 of W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_context(text: &str) -> bool {
    let mut parts = text.split('-');
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: Option<&str>, len: usize| {
        part.is_some_and(|part| part.len() == len && hex(part) && part.bytes().any(|byte| byte != b'0'))
    };
    parts.next() == Some("00")
        && id(parts.next(), 32)
        && id(parts.next(), 16)
        && parts.next().is_some_and(|flags| flags.len() == 2 && hex(flags))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        assert!(is_context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_context(bad), "{bad}");
        }
    }
}
