//! Problems (RFC 9457): the one shape of every answer that is not a success.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hub_core::error::{CATALOGUE, Code, Explanation, FieldError, code};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Where a code is explained; the code follows.
const TYPE_BASE: &str = "urn:message-hub:problem:";

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) into the request's body.
    #[schema(example = "/target_service")]
    pub pointer: String,
    /// The code of this field's problem, when it is not the problem's own.
    #[schema(example = "HUB-1003")]
    pub code: String,
    /// What is wrong with it.
    #[schema(example = "is required")]
    pub detail: String,
}

impl From<FieldError> for FieldProblem {
    fn from(error: FieldError) -> Self {
        Self { pointer: error.pointer, code: error.code.to_string(), detail: error.detail }
    }
}

/// An answer that is not a success. It travels through the handlers as a value; the outermost layer writes it, with the
/// request's trace id and path.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    parts: Option<Box<Parts>>,
}

/// What only some problems carry.
#[derive(Clone, Debug, Default)]
struct Parts {
    cause: Option<String>,
    retry_after: Option<Duration>,
    errors: Vec<FieldProblem>,
    unknown: bool,
    message_id: Option<String>,
    message_ids: Option<Vec<Option<String>>>,
    message_status: Option<&'static str>,
    results: Option<Box<RawValue>>,
    allow: Option<HeaderValue>,
    violated_policies: Vec<&'static str>,
    headers: HeaderMap,
}

/// A problem as it is written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body<'a> {
    /// A URN that ends in the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:message-hub:problem:HUB-1003")]
    kind: String,
    /// The same for every occurrence of the code.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// The stable code; `message-hub explain` tells cause and cure.
    #[schema(example = "HUB-1003")]
    code: String,
    /// Names this request in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    /// Milliseconds after which another try may succeed; also as `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// Every field that is wrong.
    #[serde(skip_serializing_if = "<[FieldProblem]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldProblem],
    /// `unknown`: it may or may not have been done.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// The message that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    /// The messages of a batch whose outcome is unknown, in order; null for one that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_ids: Option<&'a [Option<String>]>,
    /// The state of the message that did not allow the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_status: Option<&'static str>,
    /// What became of each message of an atomic batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    results: Option<&'a RawValue>,
    /// The limits that were overstepped, as `RateLimit-Policy` names them.
    #[serde(rename = "violated-policies", skip_serializing_if = "<[&str]>::is_empty")]
    #[schema(required = false, value_type = Vec<String>, example = json!(["caller"]))]
    violated_policies: &'a [&'static str],
}

/// The catalogue's entry of a code.
#[must_use]
pub fn explain(code: Code) -> Option<&'static Explanation> {
    CATALOGUE.binary_search_by_key(&code, |entry| entry.code).ok().and_then(|at| CATALOGUE.get(at))
}

impl Problem {
    /// A problem with its detail: a sentence for people about this occurrence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), parts: None }
    }

    /// A fault of ours. What is told is nothing but that: the cause is in the log.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(code::INTERNAL, "the request failed inside message-hub; its log has the cause")
    }

    /// Fields that are not valid. One code for all if they share it.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map_or(code::INVALID_FIELDS, |error| error.code);
        let shared = errors.iter().all(|error| error.code == first);
        let detail = match (errors.len(), errors.first()) {
            (1, Some(only)) => Cow::Owned(format!("{}: {}", pointer_name(&only.pointer), only.detail)),
            (count, _) => Cow::Owned(format!("{count} fields are not valid; see `errors`")),
        };
        let mut problem = Self::new(if shared { first } else { code::INVALID_FIELDS }, detail);
        problem.parts().errors = errors.into_iter().map(FieldProblem::from).collect();
        problem
    }

    fn parts(&mut self) -> &mut Parts {
        self.parts.get_or_insert_with(Box::default)
    }

    /// Another try may succeed after this.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.parts().retry_after = Some(wait);
        self
    }

    /// It may or may not have been done.
    #[must_use]
    pub fn unknown(mut self) -> Self {
        self.parts().unknown = true;
        self
    }

    /// Why, for the log alone.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.parts().cause = Some(cause.into());
        self
    }

    /// About this message.
    #[must_use]
    pub fn message_id(mut self, id: impl ToString) -> Self {
        self.parts().message_id = Some(id.to_string());
        self
    }

    /// About these messages of a batch, in order; `None` for one that was refused.
    #[must_use]
    pub fn message_ids(mut self, ids: Vec<Option<String>>) -> Self {
        self.parts().message_ids = Some(ids);
        self
    }

    /// The state that did not allow the change.
    #[must_use]
    pub fn message_status(mut self, status: &'static str) -> Self {
        self.parts().message_status = Some(status);
        self
    }

    /// What became of each message of an atomic batch.
    #[must_use]
    pub fn results(mut self, results: Box<RawValue>) -> Self {
        self.parts().results = Some(results);
        self
    }

    /// The methods that the path takes.
    #[must_use]
    pub fn allow(mut self, methods: HeaderValue) -> Self {
        self.parts().allow = Some(methods);
        self
    }

    /// The limit of this name was overstepped.
    #[must_use]
    pub fn violated_policy(mut self, name: &'static str) -> Self {
        self.parts().violated_policies.push(name);
        self
    }

    /// Headers that go with it.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        if !headers.is_empty() {
            self.parts().headers.extend(headers);
        }
        self
    }

    /// Its code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Why it happened, for the log: its cause, or else what is told.
    pub(crate) fn reason(&self) -> &str {
        let cause = self.parts.as_ref().and_then(|parts| parts.cause.as_deref());
        cause.unwrap_or(&self.detail)
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        explain(self.code)
            .and_then(|entry| StatusCode::from_u16(entry.status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// As it is written, for the request `trace_id` of the path `instance`.
    #[must_use]
    pub fn body<'a>(&'a self, trace_id: Option<&'a str>, instance: Option<&'a str>) -> Body<'a> {
        let parts = self.parts.as_deref();
        Body {
            kind: format!("{TYPE_BASE}{}", self.code),
            title: explain(self.code).map_or("Internal error", |entry| entry.title),
            status: self.status().as_u16(),
            detail: &self.detail,
            instance,
            code: self.code.to_string(),
            trace_id,
            retry_after_ms: parts.and_then(|parts| parts.retry_after).map(millis),
            errors: parts.map_or(&[], |parts| &parts.errors),
            outcome: parts.filter(|parts| parts.unknown).map(|_| "unknown"),
            message_id: parts.and_then(|parts| parts.message_id.as_deref()),
            message_ids: parts.and_then(|parts| parts.message_ids.as_deref()),
            message_status: parts.and_then(|parts| parts.message_status),
            results: parts.and_then(|parts| parts.results.as_deref()),
            violated_policies: parts.map_or(&[], |parts| &parts.violated_policies),
        }
    }

    /// The whole answer.
    #[must_use]
    pub fn render(&self, trace_id: &str, instance: &str) -> Response {
        let bytes = serde_json::to_vec(&self.body(Some(trace_id), Some(instance))).unwrap_or_default();
        let mut response = Response::new(bytes.into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.extend(self.parts.iter().flat_map(|parts| parts.headers.clone()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(wait) = self.parts.as_ref().and_then(|parts| parts.retry_after) {
            headers.insert(RETRY_AFTER, HeaderValue::from(millis(wait).div_ceil(1_000).max(1)));
        }
        if let Some(methods) = self.parts.as_ref().and_then(|parts| parts.allow.clone()) {
            headers.insert(axum::http::header::ALLOW, methods);
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(
                axum::http::header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"message-hub\""),
            );
        }
        response
    }
}

/// Leaves the writing to the outermost layer, which knows the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn pointer_name(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}
