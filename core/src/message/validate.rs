//! From a draft to a message: every limit of a message, and all that is wrong with one at once.

use std::sync::Arc;
use std::time::Duration;

use super::{Draft, IdempotencyKey, Limits, NewMessage, Priority};
use crate::error::FieldError;
use crate::id::{MessageId, ServiceName};
use crate::json::{self, Top};
use crate::registry::is_short_text;
use crate::time::Timestamp;

/// Longest `ttl_seconds`: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const MAX_KEY: usize = 255;

/// A checked draft. What remains is known only where it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Who sends.
    pub sender: ServiceName,
    /// Who shall get it.
    pub target: ServiceName,
    /// Its type.
    pub message_type: Arc<str>,
    /// JSON text exactly as it came.
    pub content: Arc<str>,
    /// JSON text of an object, exactly as it came.
    pub metadata: Option<Arc<str>>,
    /// `metadata.correlation_id`.
    pub correlation_id: Option<Arc<str>>,
    /// Higher first.
    pub priority: Priority,
    /// No attempt before this.
    pub deliver_at: Option<Timestamp>,
    /// No attempt starts after this.
    pub expires_at: Option<Timestamp>,
    /// Retries after the first attempt.
    pub max_retries: Option<u8>,
    /// This message's own key, within a batch.
    pub idempotency_key: Option<String>,
}

/// What the place of acceptance adds to a checked message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The new message's id.
    pub id: MessageId,
    /// Now.
    pub created_at: Timestamp,
    /// The target's `max_age`, or the hub's. It runs from the moment the message is due first.
    pub max_age: Duration,
    /// W3C trace context of the sender.
    pub traceparent: Option<Arc<str>>,
    /// The caller's key, if given.
    pub idempotency: Option<IdempotencyKey>,
}

impl Checked {
    /// The message to be written.
    #[must_use]
    pub fn accept(self, acceptance: Acceptance) -> NewMessage {
        let Acceptance { id, created_at, max_age, traceparent, idempotency } = acceptance;
        let due = self.deliver_at.map_or(created_at, |at| at.max(created_at));
        NewMessage {
            id,
            sender: self.sender,
            target: self.target,
            message_type: self.message_type,
            content: self.content,
            metadata: self.metadata,
            correlation_id: self.correlation_id,
            priority: self.priority,
            created_at,
            deliver_at: self.deliver_at,
            expires_at: self.expires_at,
            too_old_at: due.plus(max_age),
            max_retries: self.max_retries,
            traceparent,
            idempotency,
        }
    }
}

impl Draft {
    /// Checks everything. `sender` is the caller's own service, taken where the draft names none.
    pub fn check(
        self,
        limits: &Limits,
        now: Timestamp,
        sender: Option<&ServiceName>,
    ) -> Result<Checked, Vec<FieldError>> {
        let mut checker = Checker { limits, now, bad: self.bad };
        let sender = match self.sender_service {
            None => sender.cloned(),
            given => checker.name("/sender_service", given),
        };
        let target = checker.name("/target_service", self.target_service);
        let message_type = checker.message_type(self.message_type);
        let content = checker.content(self.content);
        let (metadata, correlation_id) = checker.metadata(self.metadata);
        let priority = checker.small("/priority", self.priority, Priority::MAX);
        let max_retries = checker.small("/max_retries", self.max_retries, 100);
        let deliver_at = checker.deliver_at(self.deliver_at, self.delay_seconds);
        let expires_at = checker.expires_at(self.expires_at, self.ttl_seconds, deliver_at);
        checker.key(self.idempotency_key.as_deref());
        for (pointer, missing) in [
            ("/sender_service", sender.is_none()),
            ("/target_service", target.is_none()),
            ("/message_type", message_type.is_none()),
            ("/content", content.is_none()),
        ] {
            // A field that could not be read is not missing: one complaint is enough.
            if missing && !checker.names(pointer) {
                checker.refuse(pointer, "is missing");
            }
        }
        match (sender, target, message_type, content) {
            (Some(sender), Some(target), Some(message_type), Some(content)) if checker.bad.is_empty() => {
                Ok(Checked {
                    sender,
                    target,
                    message_type,
                    content,
                    metadata,
                    correlation_id,
                    priority: priority.and_then(Priority::new).unwrap_or_default(),
                    deliver_at,
                    expires_at,
                    max_retries,
                    idempotency_key: self.idempotency_key,
                })
            }
            _ => Err(checker.bad),
        }
    }
}

struct Checker<'a> {
    limits: &'a Limits,
    now: Timestamp,
    bad: Vec<FieldError>,
}

impl Checker<'_> {
    fn refuse(&mut self, pointer: &str, detail: impl Into<String>) {
        self.bad.push(FieldError::invalid(pointer, detail));
    }

    /// Something was said about this field already.
    fn names(&self, pointer: &str) -> bool {
        self.bad.iter().any(|error| error.pointer == pointer)
    }

    fn name(&mut self, pointer: &str, text: Option<String>) -> Option<ServiceName> {
        match text?.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.refuse(pointer, format!("{error}"));
                None
            }
        }
    }

    fn message_type(&mut self, text: Option<String>) -> Option<Arc<str>> {
        let text = text?;
        if is_short_text(&text) {
            return Some(text.into());
        }
        self.refuse("/message_type", "must be 1 to 100 characters, none of them a control character");
        None
    }

    fn content(&mut self, text: Option<Arc<str>>) -> Option<Arc<str>> {
        let text = text?;
        let most = self.limits.max_content_bytes;
        if text.len() > most {
            self.bad.push(FieldError::too_large("/content", format!("must be at most {most} bytes")));
        } else if let Err(error) = json::scan(&text, self.limits.max_depth) {
            self.refuse("/content", error.to_string());
        } else {
            return Some(text);
        }
        None
    }

    fn metadata(&mut self, text: Option<Arc<str>>) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let Some(text) = text else { return (None, None) };
        let (most_bytes, most_entries) = (self.limits.max_metadata_bytes, self.limits.max_metadata_entries);
        if text.len() > most_bytes {
            self.bad.push(FieldError::too_large("/metadata", format!("must be at most {most_bytes} bytes")));
            return (None, None);
        }
        let shape = match json::scan(&text, self.limits.max_depth) {
            Ok(shape) if shape.top == Top::Object => shape,
            Ok(_) => {
                self.refuse("/metadata", "must be an object");
                return (None, None);
            }
            Err(error) => {
                self.refuse("/metadata", error.to_string());
                return (None, None);
            }
        };
        if shape.members.len() > most_entries {
            self.refuse("/metadata", format!("must have at most {most_entries} entries"));
        }
        let mut correlation_id = None;
        let mut seen = std::collections::BTreeSet::new();
        for (name, value) in shape.members {
            let name = text.get(name).and_then(|name| serde_json::from_str::<String>(name).ok());
            let Some(name) = name else {
                self.refuse("/metadata", "has an entry whose name is not Unicode");
                continue;
            };
            if name == "correlation_id" || name == "reply_to" {
                let value = self.label(&name, text.get(value).unwrap_or_default());
                correlation_id = if name == "correlation_id" { value } else { correlation_id };
            }
            if !seen.insert(name.clone()) {
                self.refuse(&format!("/metadata{}", json::pointer(&name)), "is there twice");
            }
        }
        (Some(text), correlation_id)
    }

    /// `correlation_id` and `reply_to`: strings of 1 to 255 characters.
    fn label(&mut self, name: &str, value: &str) -> Option<Arc<str>> {
        match serde_json::from_str::<Option<String>>(value) {
            Ok(None) => None,
            Ok(Some(label)) if (1..=MAX_KEY).contains(&label.chars().count()) => Some(label.into()),
            _ => {
                self.refuse(&format!("/metadata/{name}"), "must be a string of 1 to 255 characters");
                None
            }
        }
    }

    fn small(&mut self, pointer: &str, value: Option<i64>, most: u8) -> Option<u8> {
        let small = u8::try_from(value?).ok().filter(|small| *small <= most);
        if small.is_none() {
            self.refuse(pointer, format!("must be 0 to {most}"));
        }
        small
    }

    /// One of a moment and a number of seconds from now.
    fn moment(
        &mut self,
        at: (&'static str, Option<String>),
        seconds: (&'static str, Option<i64>),
        allowed: std::ops::RangeInclusive<u64>,
    ) -> Option<(Timestamp, &'static str)> {
        match (at, seconds) {
            ((at, Some(_)), (pointer, Some(_))) => {
                self.refuse(pointer, format!("cannot stand beside {}", at.trim_start_matches('/')));
                None
            }
            ((pointer, Some(text)), _) => match text.parse() {
                Ok(time) => Some((time, pointer)),
                Err(_) => {
                    self.refuse(pointer, "must be a time as in 2026-11-23T08:55:00Z");
                    None
                }
            },
            (_, (pointer, Some(seconds))) => {
                let seconds = u64::try_from(seconds).ok().filter(|seconds| allowed.contains(seconds));
                if seconds.is_none() {
                    self.refuse(pointer, format!("must be {} to {}", allowed.start(), allowed.end()));
                }
                seconds.map(|seconds| (self.now.plus(Duration::from_secs(seconds)), pointer))
            }
            _ => None,
        }
    }

    fn deliver_at(&mut self, at: Option<String>, delay: Option<i64>) -> Option<Timestamp> {
        let most = self.limits.max_delay;
        let (time, pointer) =
            self.moment(("/deliver_at", at), ("/delay_seconds", delay), 0..=most.as_secs())?;
        if time > self.now.plus(most) {
            self.refuse(pointer, format!("must be at most {} days ahead", most.as_secs() / 86_400));
        }
        Some(time)
    }

    fn expires_at(
        &mut self,
        at: Option<String>,
        ttl: Option<i64>,
        deliver_at: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let (time, pointer) =
            self.moment(("/expires_at", at), ("/ttl_seconds", ttl), 1..=MAX_TTL.as_secs())?;
        if time <= self.now {
            self.refuse(pointer, "is already past");
        } else if deliver_at.is_some_and(|due| time <= due) {
            self.refuse(pointer, "must be later than the scheduled delivery");
        }
        Some(time)
    }

    fn key(&mut self, key: Option<&str>) {
        if key.is_some_and(|key| !(1..=MAX_KEY).contains(&key.chars().count())) {
            self.refuse("/idempotency_key", "must be 1 to 255 characters");
        }
    }
}
