//! One request to the hub, independent of the node that answers it.

use bytes::Bytes;
use hyper::Method;

/// One request to the hub.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// JSON body, if any.
    pub body: Option<Bytes>,
    /// Repeats of a write carry the same key; made by the client if `None`.
    pub idempotency_key: Option<String>,
    /// `If-Match`: the revision that the change is based on.
    pub if_match: Option<String>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, idempotency_key: None, if_match: None }
    }

    /// Reads.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Creates or acts.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// Sets.
    #[must_use]
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// Removes.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, text: impl Into<Bytes>) -> Self {
        self.body = Some(text.into());
        self
    }

    /// With the caller's own idempotency key.
    #[must_use]
    pub fn key(mut self, key: Option<String>) -> Self {
        self.idempotency_key = key;
        self
    }

    /// Only if the revision is still this one.
    #[must_use]
    pub fn if_match(mut self, revision: Option<u64>) -> Self {
        self.if_match = revision.map(|revision| revision.to_string());
        self
    }

    /// Changes something, so that a lost answer leaves the outcome unknown.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }
}

/// Appends `name=value` to a path, percent-encoded.
pub(crate) fn push_query(path: &mut String, name: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    let pair = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    path.push_str(&pair);
}

/// A path segment, percent-encoded, so that no argument can reach another path.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && text.len() > 2)
        {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place() {
        assert_eq!(segment("demo.a-b_c"), "demo.a-b_c");
        assert_eq!(segment("../x?y"), "..%2Fx%3Fy");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("ü"), "%C3%BC");
    }

    #[test]
    fn queries_are_joined_and_encoded() {
        let mut path = String::from("/api/v1/messages");
        push_query(&mut path, "status", "dead_letter");
        push_query(&mut path, "created_after", "2026-01-01T00:00:00+01:00");
        assert_eq!(
            path,
            "/api/v1/messages?status=dead_letter&created_after=2026-01-01T00%3A00%3A00%2B01%3A00"
        );
    }
}
