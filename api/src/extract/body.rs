//! Bodies: of the right type, of bounded size, arriving in time, within the memory there is.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hub_core::error::code;

use crate::hub::{BodyRoom, Hub};
use crate::problem::Problem;

/// The media types that some call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`.
    Ndjson,
}

/// A body, with the memory it was given.
pub(crate) struct BodyText {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Its type.
    pub(crate) media: Media,
    _room: BodyRoom,
}

/// Reads a body of at most `limit` bytes. `lines` says whether NDJSON is taken.
pub(crate) async fn read_body(
    hub: &Arc<Hub>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    lines: bool,
) -> Result<BodyText, Problem> {
    let media = media_type(headers, lines)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let room = hub.reserve(announced.unwrap_or(limit)).ok_or_else(|| {
        hub.metrics.rejected("body_memory");
        Problem::new(code::OVERLOADED, "too many bodies are being read by this node")
            .retry_after(std::time::Duration::from_secs(1))
    })?;
    let bytes = collect(hub, body, limit).await?;
    hub.metrics.body_bytes.inc_by(bytes.len() as u64);
    Ok(BodyText { bytes, media, _room: room })
}

/// All of the body, if it is small enough and arrives in time.
async fn collect(hub: &Hub, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(hub.options.body_timeout, Limited::new(body, limit).collect());
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => Err(Problem::new(code::BAD_REQUEST, format!("the body broke off: {error}"))),
        Err(_) => {
            hub.metrics.rejected("body_timeout");
            let seconds = hub.options.body_timeout.as_secs_f32();
            let detail = format!("the body did not arrive within {seconds} s");
            Err(Problem::new(code::HEADER_TIMEOUT, detail))
        }
    }
}

/// For calls that take no body: one that is sent all the same is refused, never ignored. `{}` is as good as none.
pub(crate) async fn refuse_body(hub: &Hub, body: Body) -> Result<(), Problem> {
    const ROOM: usize = 1_024;
    match collect(hub, body, ROOM).await?.trim_ascii() {
        [] | b"{}" => Ok(()),
        _ => Err(super::params::bad_field("", "this call takes no body")),
    }
}

fn media_type(headers: &HeaderMap, lines: bool) -> Result<Media, Problem> {
    if headers.get(CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::new(
            code::MEDIA_TYPE,
            "compressed bodies are not taken: leave Content-Encoding out",
        ));
    }
    let value = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    if value == Some(b"application/json") {
        return Ok(Media::Json);
    }
    let text = value.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim();
    let charset_fits = text.split(';').skip(1).all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if charset_fits && essence.eq_ignore_ascii_case("application/json") {
        Ok(Media::Json)
    } else if charset_fits && lines && essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(Media::Ndjson)
    } else {
        let taken = if lines { "application/json or application/x-ndjson" } else { "application/json" };
        let given = if text.is_empty() { "no content type" } else { "another content type" };
        Err(Problem::new(code::MEDIA_TYPE, format!("the body must be {taken} in UTF-8; it has {given}")))
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(code::TOO_LARGE, format!("the body may have at most {limit} bytes"))
}
