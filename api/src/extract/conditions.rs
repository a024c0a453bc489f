//! Headers that tie a request to others: its idempotency key, and the revision it is meant for.

use aws_lc_rs::digest;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, HeaderName, Method};
use hub_core::error::code;
use hub_core::id::{RequestId, ServiceName};
use hub_core::message::Fingerprint;
use hub_core::port::IdSource;
use uuid::Uuid;

use super::Caller;
use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The longest key, in characters.
pub(crate) const MAX_KEY: usize = 255;

/// `Idempotency-Key`: a structured-field string in quotes, or the bare text.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |detail: &'static str| Problem::new(code::BAD_REQUEST, detail);
    if values.next().is_some() {
        return Err(bad("`Idempotency-Key` is given more than once"));
    }
    let text = value.to_str().map_err(|_| bad("`Idempotency-Key` must be visible ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(|| bad("`Idempotency-Key` has a quote that does not fit"))?,
        None => text.to_owned(),
    };
    if !(1..=MAX_KEY).contains(&key.chars().count()) {
        return Err(bad("`Idempotency-Key` must have 1 to 255 characters"));
    }
    Ok(Some(key))
}

fn unquote(rest: &str) -> Option<String> {
    let inner = rest.strip_suffix('"')?;
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => key.push(chars.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            plain => key.push(plain),
        }
    }
    Some(key)
}

/// Refuses `Prefer: wait`, which belongs to a later version.
pub(crate) fn no_preference(headers: &HeaderMap) -> Result<(), Problem> {
    let waits = headers
        .get_all(PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    for preference in waits {
        let name = preference.split([';', '=']).next().unwrap_or("").trim();
        if name.eq_ignore_ascii_case("wait") {
            return Err(Problem::new(code::NOT_BUILT, "`Prefer: wait` is not supported by this version"));
        }
    }
    Ok(())
}

/// `If-Match`: a revision, as `"5"` or `5`; `*` is no condition where the thing must exist anyway.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    digits.parse().map(Some).map_err(|_| {
        Problem::new(
            code::BAD_REQUEST,
            "`If-Match` must be one revision, as the `ETag` of the service shows it",
        )
    })
}

/// Refuses `If-Match` where it has no effect.
pub(crate) fn no_condition(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(IF_MATCH) {
        return Err(Problem::new(
            code::NOT_BUILT,
            "`If-Match` is supported only by `POST /services/register`",
        ));
    }
    Ok(())
}

/// The id under which a control write is known: the same for every repeat with the same key, else a new one.
pub(crate) fn request_id(
    headers: &HeaderMap,
    caller: &Caller,
    method: &Method,
    path: &str,
    ids: &dyn IdSource,
) -> Result<RequestId, Problem> {
    let Some(key) = idempotency_key(headers)? else { return Ok(ids.request_id()) };
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [caller.0.subject.as_str(), method.as_str(), path, key.as_str()] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    Ok(RequestId(uuid::Builder::from_custom_bytes(first_16(context.finish().as_ref())).into_uuid()))
}

/// What a key stands for: the start of its body's SHA-256.
pub(crate) fn fingerprint(body: &[u8]) -> Fingerprint {
    Fingerprint(first_16(digest::digest(&digest::SHA256, body).as_ref()))
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    out
}

/// A service named in a path. What cannot be a name cannot exist.
pub(crate) fn service_name(text: &str) -> Result<ServiceName, Problem> {
    text.parse().map_err(|_| Problem::new(code::NO_SERVICE, "no service can have this name"))
}

/// A message's id in a path.
pub(crate) fn message_id(text: &str) -> Result<hub_core::id::MessageId, Problem> {
    Uuid::parse_str(text)
        .map(hub_core::id::MessageId)
        .map_err(|_| super::params::bad_path("a message's id is a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, value.parse().unwrap());
        idempotency_key(&headers)
    }

    #[test]
    fn keys_with_and_without_quotes() {
        assert_eq!(key("abc").unwrap().unwrap(), "abc");
        assert_eq!(key(r#""abc""#).unwrap().unwrap(), "abc");
        assert_eq!(key(r#""a\"b\\c""#).unwrap().unwrap(), r#"a"b\c"#);
        for bad in ["", r#"""#, r#""a"#, r#""a"b""#, r#""a\b""#, &"x".repeat(256)] {
            assert_eq!(key(bad).unwrap_err().code(), code::BAD_REQUEST, "{bad}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn revisions() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value.parse().unwrap());
            if_match(&headers)
        };
        assert_eq!(read("\"12\"").unwrap(), Some(12));
        assert_eq!(read("12").unwrap(), Some(12));
        assert!(read("W/\"12\"").is_err());
        assert!(read("*").is_err());
    }

    #[test]
    fn waiting_is_refused_and_other_preferences_are_not() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, value.parse().unwrap());
            no_preference(&headers)
        };
        assert!(read("respond-async").is_ok());
        assert!(read("respond-async, wait=10").is_err());
        assert!(read("Wait=1").is_err());
    }
}
