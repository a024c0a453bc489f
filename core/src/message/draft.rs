//! A message as a client wrote it, read field by field so that every bad one can be named.

use std::ops::Range;
use std::sync::Arc;

use crate::error::FieldError;
use crate::json::{self, JsonError, Top};

/// Fields of later versions: refused, so that none is silently ignored.
const NOT_BUILT: [&str; 4] = ["ordering_key", "schedule", "topic", "transaction_id"];

/// What a request says about a message; `None` where it says nothing. `null` says nothing too, except as `content`.
/// [`Self::check`] makes a message of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Who sends; the caller if `None`.
    pub sender_service: Option<String>,
    /// Who shall get it.
    pub target_service: Option<String>,
    /// Its type.
    pub message_type: Option<String>,
    /// JSON text.
    pub content: Option<Arc<str>>,
    /// JSON text.
    pub metadata: Option<Arc<str>>,
    /// 0 to 9.
    pub priority: Option<i64>,
    /// RFC 3339.
    pub deliver_at: Option<String>,
    /// Seconds from now; instead of `deliver_at`.
    pub delay_seconds: Option<i64>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// Seconds from now; instead of `expires_at`.
    pub ttl_seconds: Option<i64>,
    /// 0 to 100.
    pub max_retries: Option<i64>,
    /// Within a batch: this message's own key.
    pub idempotency_key: Option<String>,
    /// What was wrong already when it was read.
    pub bad: Vec<FieldError>,
}

impl Draft {
    /// Reads a JSON object. Wrong types, unknown, repeated and unsupported fields are kept in [`Self::bad`]; an error
    /// means that the text is not JSON at all.
    pub fn read(text: &str) -> Result<Self, JsonError> {
        let shape = json::scan(text, usize::MAX)?;
        let mut draft = Self::default();
        if shape.top != Top::Object {
            draft.bad.push(FieldError::invalid("", "must be an object"));
            return Ok(draft);
        }
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in shape.members {
            let name = part(text, name);
            let Ok(field) = serde_json::from_str::<String>(name) else {
                draft.bad.push(FieldError::invalid("", "has a field whose name is not Unicode"));
                continue;
            };
            if seen.insert(field.clone()) {
                draft.take(&field, part(text, value));
            } else {
                draft.bad.push(FieldError::invalid(json::pointer(&field), "is there twice"));
            }
        }
        Ok(draft)
    }

    fn take(&mut self, field: &str, value: &str) {
        if field == "content" {
            self.content = Some(value.into());
            return;
        }
        if value == "null" {
            return;
        }
        let result = match field {
            "sender_service" => text(value, &mut self.sender_service),
            "target_service" => text(value, &mut self.target_service),
            "message_type" => text(value, &mut self.message_type),
            "metadata" => {
                self.metadata = Some(value.into());
                Ok(())
            }
            "priority" => whole(value, &mut self.priority),
            "deliver_at" => text(value, &mut self.deliver_at),
            "delay_seconds" => whole(value, &mut self.delay_seconds),
            "expires_at" => text(value, &mut self.expires_at),
            "ttl_seconds" => whole(value, &mut self.ttl_seconds),
            "max_retries" => whole(value, &mut self.max_retries),
            "idempotency_key" => text(value, &mut self.idempotency_key),
            later if NOT_BUILT.contains(&later) => {
                self.bad.push(FieldError::not_built(json::pointer(later)));
                Ok(())
            }
            _ => Err("is not a known field"),
        };
        if let Err(problem) = result {
            self.bad.push(FieldError::invalid(json::pointer(field), problem));
        }
    }
}

fn part(text: &str, range: Range<usize>) -> &str {
    text.get(range).unwrap_or_default()
}

fn text(value: &str, into: &mut Option<String>) -> Result<(), &'static str> {
    *into = Some(serde_json::from_str(value).map_err(|_| "must be a string")?);
    Ok(())
}

fn whole(value: &str, into: &mut Option<i64>) -> Result<(), &'static str> {
    *into = Some(value.parse().map_err(|_| "must be a whole number")?);
    Ok(())
}
