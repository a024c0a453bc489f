//! `POST /services/{name}/test`: one message, delivered while the caller waits.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use hub_core::delivery::{Admission, may_call};
use hub_core::error::code;
use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Acceptance, Draft, NewMessage, Record, Status};
use hub_core::port::{AcceptMode, Consistency};
use hub_core::registry::Service;

use super::change::owned;
use super::view::TestView;
use crate::extract::{Params, Trace};
use crate::hub::Hub;
use crate::problem::Problem;
use crate::v1::control::{Change, no_service};
use crate::v1::message::{AttemptView, read_fault};

/// The type of test messages.
const TEST_TYPE: &str = "hub.test";

/// How long an attempt is waited for beyond the service's own timeout.
const MARGIN: Duration = Duration::from_secs(5);

/// How often the message is looked at while it is under way. Nothing but this call looks.
const LOOK: Duration = Duration::from_millis(25);

/// Send a test message
///
/// A message of type `hub.test`, without retries, delivered like any other; the answer shows its attempt. A test that fails
/// leaves no dead letter behind.
#[utoipa::path(
    post,
    path = "/services/{name}/test",
    operation_id = "testService",
    tag = "services",
    params(("name" = String, Path, description = "The service's name.")),
    responses((status = 200, description = "What became of it.", body = TestView)),
)]
pub(super) async fn test(
    State(hub): State<Arc<Hub>>,
    Extension(trace): Extension<Trace>,
    change: Change,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<Json<TestView>, Problem> {
    let name = owned(&change, &name)?;
    change.bare(&hub, params, body).await?;
    let deadline = hub.deadline();
    let service = hub.target(&name, deadline).await?.ok_or_else(|| no_service(&name))?;
    let sender = change.caller.0.service.clone().unwrap_or_else(|| name.clone());
    let message = test_message(&hub, sender, &service, &trace)?;
    let id = message.id;
    let accepted =
        hub.store_call(deadline, hub.store.accept(vec![message], AcceptMode::Each, deadline)).await?;
    if let Some(Err(refusal)) = accepted.into_iter().next() {
        return Err(refusal.into());
    }
    let record = settled(&hub, id, patience(&service)).await?;
    if record.status == Status::DeadLetter {
        let deadline = hub.deadline();
        // Left behind it would only be a dead letter that says what this answer says.
        let _tidy = hub.store_call(deadline, hub.store.discard(id, deadline)).await;
    }
    Ok(Json(view(&hub, &record, &service)))
}

fn patience(service: &Service) -> Duration {
    Duration::from_millis(service.delivery.timeout_ms.into()) + MARGIN
}

fn test_message(
    hub: &Hub,
    sender: ServiceName,
    service: &Service,
    trace: &Trace,
) -> Result<NewMessage, Problem> {
    let now = hub.clock.now();
    let draft = Draft {
        target_service: Some(service.name.to_string()),
        message_type: Some(TEST_TYPE.to_owned()),
        content: Some(r#"{"test":true}"#.into()),
        ttl_seconds: i64::try_from(patience(service).as_secs()).ok(),
        max_retries: Some(0),
        priority: Some(9),
        ..Draft::default()
    };
    let checked = draft.check(&hub.options.limits, now, Some(&sender)).map_err(Problem::fields)?;
    Ok(checked.accept(Acceptance {
        id: hub.ids.message_id(now),
        created_at: now,
        max_age: hub.options.max_age,
        traceparent: trace.parent.clone(),
        idempotency: None,
    }))
}

/// The message once its attempt has ended, or when patience has.
async fn settled(hub: &Hub, id: MessageId, patience: Duration) -> Result<Record, Problem> {
    let until = hub.clock.instant() + patience;
    loop {
        let deadline = hub.deadline();
        let found = hub.store_call(deadline, hub.store.get(id, Consistency::Linearizable, deadline)).await;
        match found {
            Ok(Some(record)) if record.status.is_final() || record.status == Status::DeadLetter => {
                return Ok(record);
            }
            Ok(Some(record)) if hub.clock.instant() >= until => return Ok(record),
            Ok(None) => return Err(Problem::new(code::NO_MESSAGE, "the test message is gone")),
            Err(error) if hub.clock.instant() >= until => return Err(read_fault(error)),
            Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn view(hub: &Hub, record: &Record, service: &Service) -> TestView {
    let attempt = record.attempts.last().map(AttemptView::from);
    let reason = || match may_call(Some(service), None, hub.clock.now()) {
        Admission::Paused => "deliveries to this service are paused",
        Admission::NoInstance => "no instance of this service may get deliveries",
        _ => "no attempt was made in time",
    };
    let error = match (&record.error_message, &attempt) {
        (Some(error), _) => Some(error.to_string()),
        (None, None) => Some(reason().to_owned()),
        (None, Some(_)) => None,
    };
    TestView { message_id: record.message.id.to_string(), status: record.status.to_string(), attempt, error }
}
