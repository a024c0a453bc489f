//! RFC 9457 problems as the hub writes them.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// One wrong field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct FieldProblem {
    /// JSON pointer to the field.
    #[serde(default)]
    pub pointer: String,
    /// What is wrong with it.
    #[serde(default)]
    pub detail: String,
}

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Problem {
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// `HUB-nnnn`; empty if the answer was not the hub's own.
    #[serde(default)]
    pub code: String,
    /// The same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// What is special this time.
    #[serde(default)]
    pub detail: Option<String>,
    /// Finds the request in the node's log.
    #[serde(default)]
    pub trace_id: Option<String>,
    /// Not before this, in milliseconds.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// Every wrong field.
    #[serde(default)]
    pub errors: Vec<FieldProblem>,
    /// `unknown` if the write may have been done.
    #[serde(default)]
    pub outcome: Option<String>,
    /// The message that it is about.
    #[serde(default)]
    pub message_id: Option<String>,
    /// The body as it came, for output as JSON.
    #[serde(skip)]
    pub raw: Option<Value>,
}

impl Problem {
    /// Reads a body; what is not a problem document becomes one that shows its beginning.
    #[must_use]
    pub fn parse(status: u16, body: &[u8]) -> Self {
        let raw: Option<Value> = serde_json::from_slice(body).ok();
        let mut problem: Self =
            raw.clone().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_else(|| Self {
                title: "answer is not the hub's".to_owned(),
                detail: Some(String::from_utf8_lossy(body).chars().take(200).collect()),
                ..Self::default()
            });
        problem.status = status;
        problem.raw = raw;
        problem
    }

    /// The write may have been done or not.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.outcome.as_deref() == Some("unknown") || self.status == 504
    }

    /// The node could not serve it just now, another may.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 502..=504) || self.code == IN_PROGRESS
    }
}

/// The first request with this key still runs.
const IN_PROGRESS: &str = "HUB-1205";

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            write!(f, "HTTP {}: {}", self.status, self.title)?;
        } else {
            write!(f, "{}: {}", self.code, self.title)?;
        }
        let detail = self.detail.as_deref().unwrap_or_default();
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        // A problem with a single field says in its detail what is wrong with it.
        let said = |error: &FieldProblem| !error.detail.is_empty() && detail.ends_with(&error.detail);
        for error in self.errors.iter().filter(|error| !said(error)) {
            let pointer = if error.pointer.is_empty() { "(whole body)" } else { &error.pointer };
            write!(f, "\n  {pointer}: {}", error.detail)?;
        }
        if let Some(id) = &self.message_id {
            write!(f, "\n  message: {id}")?;
        }
        if let Some(wait) = self.retry_after_ms {
            write!(f, "\n  try again after {} s", wait.div_ceil(1000))?;
        }
        if let Some(trace) = &self.trace_id {
            write!(f, "\n  trace id: {trace}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let body =
            br#"{"type":"about:blank","title":"Some fields are not valid","status":422,"code":"HUB-1003",
            "trace_id":"ab","errors":[{"pointer":"/target_service","detail":"is missing"}],"x":1}"#;
        let problem = Problem::parse(422, body);
        assert_eq!(problem.code, "HUB-1003");
        assert_eq!(problem.errors[0].pointer, "/target_service");
        assert!(!problem.is_unknown());
        assert_eq!(
            problem.to_string(),
            "HUB-1003: Some fields are not valid\n  /target_service: is missing\n  trace id: ab"
        );
    }

    #[test]
    fn what_is_wrong_with_a_single_field_is_said_once() {
        let body =
            br#"{"title":"Address not allowed","code":"HUB-1304","detail":"/url: is a loopback address",
            "errors":[{"pointer":"/url","code":"HUB-1304","detail":"is a loopback address"}]}"#;
        let text = Problem::parse(422, body).to_string();
        assert_eq!(text, "HUB-1304: Address not allowed: /url: is a loopback address");
    }

    #[test]
    fn unknown_outcome_is_seen() {
        let body = br#"{"status":504,"code":"HUB-1402","title":"Outcome unknown","outcome":"unknown","message_id":"m"}"#;
        let problem = Problem::parse(504, body);
        assert!(problem.is_unknown() && problem.is_passing());
        assert!(problem.to_string().contains("message: m"));
    }

    #[test]
    fn a_strange_answer_is_shown() {
        let problem = Problem::parse(502, b"<html>bad gateway");
        assert_eq!(problem.to_string(), "HTTP 502: answer is not the hub's: <html>bad gateway");
        assert!(problem.is_passing());
        assert_eq!(Problem::parse(500, b"[1]").status, 500);
    }
}
