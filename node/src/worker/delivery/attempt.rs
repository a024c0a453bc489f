//! One attempt: the last checks before the request leaves, the call, and what its answer means.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hub_core::delivery::{
    Admission, AttemptOutcome, Outcome, Reaction, SettleOutcome, Settlement, TargetAnswer, TransportError,
    choose_instance,
};
use hub_core::id::{InstanceId, MessageId, NodeId};
use hub_core::message::Attempt;
use hub_core::port::{Claimed, IdSource};
use hub_core::registry::{Instance, Service};
use hub_core::time::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::shared::{AtInstance, Held, Shared};
use crate::outbound::delivery::Delivery;
use crate::outbound::{Answer, Call, Outbound, retry_after};

/// After a fault of the hub's own (name server down, address refused, out of files) the target is left alone for this
/// long on this node, so that the fault does not turn its waiting messages over and over.
const FAULT_PAUSE: Duration = Duration::from_secs(5);

/// How many messages are remembered with the instance that failed them, so that their next attempt goes elsewhere.
const REMEMBERED_FAILURES: usize = 10_000;

/// Makes attempts.
pub(super) struct Attempter {
    pub(super) shared: Arc<Shared>,
    pub(super) outbound: Outbound,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) node: NodeId,
    pub(super) metrics: Arc<Metrics>,
    pub(super) max_retries: u8,
    /// Cancelled when attempts under way are to be given up.
    pub(super) abort: CancellationToken,
    pub(super) settle: UnboundedSender<Settlement>,
    pub(super) failures: Mutex<HashMap<MessageId, InstanceId>>,
}

/// Why an attempt did not start.
enum NotStarted {
    Expired,
    Released,
}

/// What an attempt needs once it may start.
struct Ready {
    service: Arc<Service>,
    instance: Instance,
    timeout: Duration,
    started_at: Timestamp,
}

impl Attempter {
    /// Attempts one claimed message and hands its end to the settler. The slot is free again as soon as the target has
    /// answered.
    pub(super) async fn run(self: Arc<Self>, claimed: Claimed, held: Held) {
        let settlement = match self.prepare(&claimed, &held) {
            Ok(ready) => self.attempt(&claimed, &held, ready).await,
            Err(NotStarted::Expired) => unused(claimed.claim, SettleOutcome::Expired),
            Err(NotStarted::Released) => {
                self.metrics.released.inc();
                unused(claimed.claim, SettleOutcome::Released)
            }
        };
        drop(held);
        // The settler outlives every attempt.
        let _ = self.settle.send(settlement);
    }

    /// Gives a claim back unused.
    pub(super) fn release(&self, claimed: Claimed) {
        self.metrics.released.inc();
        let _ = self.settle.send(unused(claimed.claim, SettleOutcome::Released));
    }

    /// The last look before the request leaves: time may have passed since the claim was asked for.
    fn prepare(&self, claimed: &Claimed, held: &Held) -> Result<Ready, NotStarted> {
        let now = self.shared.clock.now();
        let time_left = claimed.message.expires_at.map(|end| end.since(now));
        if time_left == Some(Duration::ZERO) {
            return Err(NotStarted::Expired);
        }
        let service = self.shared.service(held.target()).ok_or(NotStarted::Released)?;
        if self.abort.is_cancelled() || self.shared.may_call(held.target(), Some(&service)) != Admission::Yes
        {
            return Err(NotStarted::Released);
        }
        let timeout = Duration::from_millis(u64::from(service.delivery.timeout_ms));
        let timeout = time_left.map_or(timeout, |left| left.min(timeout));
        if claimed.claim.lease_end.since(now) < timeout {
            return Err(NotStarted::Released);
        }
        let instance = self.choose(&service, claimed).ok_or(NotStarted::Released)?;
        Ok(Ready { service, instance, timeout, started_at: now })
    }

    fn choose(&self, service: &Service, claimed: &Claimed) -> Option<Instance> {
        let failed = self.lock_failures().remove(&claimed.message.id);
        let table = self.shared.table();
        let target = table.target(&service.name);
        let in_flight = |id: &InstanceId| target.map_or(0, |target| target.at_instance(id));
        choose_instance(service, failed.as_ref(), in_flight, |bound| self.ids.below(bound)).cloned()
    }

    async fn attempt(&self, claimed: &Claimed, held: &Held, ready: Ready) -> Settlement {
        let _at = AtInstance::start(held, ready.instance.id.clone());
        self.metrics.in_flight.inc();
        let begun = self.shared.clock.instant();
        let (answer, departed) = self.call(claimed, &ready).await;
        let took = self.shared.clock.instant().saturating_duration_since(begun);
        self.metrics.in_flight.dec();
        match answer {
            Some(answer) => self.ended(claimed, ready, answer, took),
            None if departed => self.cut_short(claimed, ready, took),
            None => {
                self.metrics.released.inc();
                unused(claimed.claim.clone(), SettleOutcome::Released)
            }
        }
    }

    /// The answer, or `None` when the attempt was given up; and whether the request may have left.
    async fn call(&self, claimed: &Claimed, ready: &Ready) -> (Option<Result<Answer, TransportError>>, bool) {
        let Some(call) = self.request(claimed, ready) else {
            return (Some(Err(TransportError::NameNotFound)), false);
        };
        let departure = call.departure.clone();
        tokio::select! {
            answer = self.outbound.call(call) => (Some(answer), departure.has_left()),
            () = self.abort.cancelled() => (None, departure.has_left()),
        }
    }

    fn request(&self, claimed: &Claimed, ready: &Ready) -> Option<Call> {
        let delivery = Delivery {
            message: &claimed.message,
            attempt: claimed.claim.attempt,
            service: &ready.service,
            instance: &ready.instance,
            now: ready.started_at,
            span: self.ids.below(u64::MAX - 1) + 1,
        };
        delivery.call(ready.timeout)
    }

    /// The attempt ended with an answer or a failure: what follows for the message and for the target.
    fn ended(
        &self,
        claimed: &Claimed,
        ready: Ready,
        answer: Result<Answer, TransportError>,
        took: Duration,
    ) -> Settlement {
        let now = self.shared.clock.now();
        let heard = match &answer {
            Ok(answer) => TargetAnswer::Http {
                status: answer.status,
                retry_after: answer.retry_after.as_deref().and_then(|value| retry_after(value, now)),
            },
            Err(error) => TargetAnswer::Failed(*error),
        };
        let policy = &ready.service.retry;
        let retries = claimed.message.max_retries.or(policy.max_retries).unwrap_or(self.max_retries);
        let below = |bound| self.ids.below(bound);
        let reaction = Reaction::to(&heard, policy, claimed.retry_count, u32::from(retries), now, below);
        let fault = (reaction.attempt == AttemptOutcome::HubFault).then_some(FAULT_PAUSE);
        if let Some(pause) = reaction.slow_target.max(fault) {
            self.shared.table().slow(&ready.service.name, now.plus(pause));
        }
        let outcome = match reaction.outcome {
            Outcome::Delivered => SettleOutcome::Delivered,
            Outcome::RetryAt { at, counted } => {
                self.remember_failure(claimed, &ready);
                SettleOutcome::RetryAt { at, counted }
            }
            Outcome::DeadLetter(reason) => SettleOutcome::Dead(reason),
        };
        let attempt = self.row(claimed, ready, reaction.attempt, answer, took);
        Settlement { claim: claimed.claim.clone(), outcome, attempt: Some(attempt), error: reaction.error }
    }

    /// The node gives up an attempt whose request may have arrived: it is repeated, not counted, and the row says that
    /// the target may have got it.
    fn cut_short(&self, claimed: &Claimed, ready: Ready, took: Duration) -> Settlement {
        let outcome = SettleOutcome::RetryAt { at: self.shared.clock.now(), counted: false };
        let answer = Err(TransportError::Broken);
        let attempt = self.row(claimed, ready, AttemptOutcome::NoAnswer, answer, took);
        let error = Some("the hub stopped before the target answered".into());
        Settlement { claim: claimed.claim.clone(), outcome, attempt: Some(attempt), error }
    }

    fn row(
        &self,
        claimed: &Claimed,
        ready: Ready,
        outcome: AttemptOutcome,
        answer: Result<Answer, TransportError>,
        took: Duration,
    ) -> Attempt {
        self.metrics.attempted(&ready.service.name, outcome, took);
        let (http_status, error_class, response) = match answer {
            Ok(answer) => (Some(answer.status), None, text(&answer.body)),
            Err(error) => (None, Some(error.as_str().into()), None),
        };
        Attempt {
            number: claimed.claim.attempt,
            node: self.node,
            instance: Some(ready.instance.id),
            started_at: ready.started_at,
            duration_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            outcome,
            http_status,
            error_class,
            response,
        }
    }

    fn remember_failure(&self, claimed: &Claimed, ready: &Ready) {
        if ready.service.instances.len() < 2 {
            return;
        }
        let mut failures = self.lock_failures();
        if failures.len() < REMEMBERED_FAILURES {
            failures.insert(claimed.message.id, ready.instance.id.clone());
        }
    }

    fn lock_failures(&self) -> std::sync::MutexGuard<'_, HashMap<MessageId, InstanceId>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unused(claim: hub_core::delivery::Claim, outcome: SettleOutcome) -> Settlement {
    Settlement { claim, outcome, attempt: None, error: None }
}

/// The start of the target's answer as text; what is not UTF-8, and NUL, is replaced.
fn text(body: &[u8]) -> Option<Arc<str>> {
    if body.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    Some(if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() })
}
