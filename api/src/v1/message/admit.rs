//! From a draft to a message that may be written: its fields, its sender, its target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::control::State;
use hub_core::error::{FieldError, code};
use hub_core::id::ServiceName;
use hub_core::message::{Acceptance, Draft, IdempotencyKey, NewMessage};
use hub_core::port::ReadError;
use hub_core::registry::Service;
use hub_core::time::Timestamp;

use crate::extract::{Caller, Trace, fingerprint};
use crate::hub::Hub;
use crate::problem::Problem;

/// How long the registry may take to be read afresh for a target that is not known here.
const LOOKUP: Duration = Duration::from_secs(3);

/// What all messages of one request share.
pub(super) struct Admission<'a> {
    hub: &'a Hub,
    caller: &'a Caller,
    trace: &'a Trace,
    allow_unregistered: bool,
    now: Timestamp,
    deadline: Instant,
    view: State,
    /// What came of reading the view afresh after a target was missing: it is not asked again.
    fresh: Option<Result<(), ReadError>>,
}

/// A message's own text and the key that its request gave it.
pub(super) struct Item<'a> {
    pub(super) text: &'a str,
    pub(super) key: Option<String>,
}

impl<'a> Admission<'a> {
    pub(super) fn new(hub: &'a Hub, caller: &'a Caller, trace: &'a Trace, allow_unregistered: bool) -> Self {
        let (now, deadline) = (hub.clock.now(), hub.deadline());
        Self { hub, caller, trace, allow_unregistered, now, deadline, view: (hub.view)(), fresh: None }
    }

    /// When the request must be answered.
    pub(super) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Reads and checks one message.
    pub(super) async fn admit(&mut self, item: Item<'_>) -> Result<NewMessage, Problem> {
        let draft = Draft::read(item.text).map_err(|error| not_json(item.text, error))?;
        let options = &self.hub.options;
        let mut checked = draft
            .check(&options.limits, self.now, self.caller.0.service.as_ref())
            .map_err(Problem::fields)?;
        self.caller.require_sender(&checked.sender)?;
        let target = self.target(&checked.target).await?;
        if let Some(service) = target.as_deref().filter(|service| !service.takes(&checked.message_type)) {
            return Err(type_refused(service, &checked.message_type));
        }
        let max_age = target.and_then(|service| service.delivery.max_age_s);
        let max_age = max_age.map_or(options.max_age, |seconds| Duration::from_secs(seconds.into()));
        let key = checked.idempotency_key.take().or(item.key);
        let idempotency = key.map(|key| IdempotencyKey {
            caller: self.caller.0.subject.clone(),
            key,
            fingerprint: fingerprint(item.text.as_bytes()),
        });
        Ok(checked.accept(Acceptance {
            id: self.hub.ids.message_id(self.now),
            created_at: self.now,
            max_age,
            traceparent: self.trace.parent.clone(),
            idempotency,
        }))
    }

    /// The target's registration; `None` only if the sender accepts that.
    async fn target(&mut self, name: &ServiceName) -> Result<Option<Arc<Service>>, Problem> {
        if let Some(service) = self.view.services.get(name) {
            return Ok(Some(Arc::clone(service)));
        }
        if self.allow_unregistered {
            return Ok(None);
        }
        if self.fresh.is_none() {
            // Time must be left for the write: without a leader the messages to targets that are known are taken.
            let deadline = self.deadline.min(self.hub.clock.instant() + LOOKUP);
            let read = self.hub.read_control(true, deadline).await;
            self.fresh = Some(read.map(|view| self.view = view));
        }
        if let Some(service) = self.view.services.get(name) {
            return Ok(Some(Arc::clone(service)));
        }
        if let Some(Err(error)) = &self.fresh {
            return Err(error.clone().into());
        }
        Err(Problem::new(code::UNKNOWN_TARGET, format!("no service {name} is registered")))
    }
}

fn type_refused(service: &Service, message_type: &str) -> Problem {
    Problem::fields(vec![FieldError {
        pointer: "/message_type".to_owned(),
        code: code::TYPE_REFUSED,
        detail: format!("{} does not take messages of type {message_type:?}", service.name),
    }])
}

/// Malformed text, with line and column.
fn not_json(text: &str, error: hub_core::json::JsonError) -> Problem {
    match error {
        hub_core::json::JsonError::Malformed { at } => {
            let (line, column) = hub_core::json::line_and_column(text, at);
            Problem::new(
                code::NOT_JSON,
                format!("the body is not well-formed JSON at line {line} column {column}"),
            )
        }
        hub_core::json::JsonError::TooDeep { .. } => {
            Problem::fields(vec![FieldError::invalid("", error.to_string())])
        }
    }
}
