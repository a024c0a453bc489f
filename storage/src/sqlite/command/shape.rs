//! The frozen shapes of version 1, as they lie in the log. Never change one: add a version.

use std::sync::Arc;
use std::time::Duration;

use hub_core::codec::{CodecError, decode_body};
use hub_core::delivery::{AttemptOutcome, Claim, DeadReason, SettleOutcome, Settlement};
use hub_core::id::{InstanceId, MessageId, NodeId, ServiceName};
use hub_core::message::{Attempt, Fingerprint, IdempotencyKey, NewMessage, Priority};
use hub_core::port::Want;
use hub_core::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ClaimDue, Insert, Item, Sweep};

type Text = Arc<str>;

#[derive(Serialize, Deserialize)]
pub(super) struct TargetV1 {
    id: [u8; 16],
}

#[derive(Serialize, Deserialize)]
pub(super) struct InsertV1<S> {
    items: Vec<ItemV1<S>>,
    atomic: bool,
    max_backlog: u64,
}

#[derive(Serialize, Deserialize)]
struct ItemV1<S> {
    id: [u8; 16],
    sender: S,
    target: S,
    message_type: S,
    content: S,
    metadata: Option<S>,
    correlation_id: Option<S>,
    priority: u8,
    created_at: i64,
    deliver_at: Option<i64>,
    expires_at: Option<i64>,
    too_old_at: i64,
    max_retries: Option<u8>,
    traceparent: Option<S>,
    key: Option<KeyV1<S>>,
    claim: Option<ClaimV1>,
}

#[derive(Serialize, Deserialize)]
struct KeyV1<S> {
    caller: S,
    key: S,
    fingerprint: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct ClaimV1 {
    owner: u64,
    term: u64,
    attempt: u32,
    lease_end: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ClaimDueV1<S> {
    owner: u64,
    term: u64,
    wants: Vec<WantV1<S>>,
}

#[derive(Serialize, Deserialize)]
struct WantV1<S> {
    target: S,
    count: u32,
    lease_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SettleV1<S> {
    settlements: Vec<SettlementV1<S>>,
}

#[derive(Serialize, Deserialize)]
struct SettlementV1<S> {
    message: [u8; 16],
    claim: ClaimV1,
    outcome: OutcomeV1,
    attempt: Option<AttemptV1<S>>,
    error: Option<S>,
}

#[derive(Serialize, Deserialize)]
enum OutcomeV1 {
    Delivered,
    RetryAt { at: i64, counted: bool },
    Dead(DeadReasonV1),
    Expired,
    Released,
}

#[derive(Serialize, Deserialize)]
enum DeadReasonV1 {
    Gone,
    Rejected,
    Exhausted,
    TooOld,
    NoTarget,
}

#[derive(Serialize, Deserialize)]
struct AttemptV1<S> {
    number: u32,
    node: u64,
    instance: Option<S>,
    started_at: i64,
    duration_ms: u32,
    outcome: AttemptOutcomeV1,
    http_status: Option<u16>,
    error_class: Option<S>,
    response: Option<S>,
}

#[derive(Serialize, Deserialize)]
enum AttemptOutcomeV1 {
    Delivered,
    Failed,
    Rejected,
    NotSent,
    NoAnswer,
    HubFault,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SweepV1<S> {
    limit: u32,
    retention_ms: u64,
    gone: Vec<S>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_body(bytes)
}

fn service(text: &Text) -> Result<ServiceName, CodecError> {
    text.parse().map_err(|error| CodecError::Body(format!("service name {error}")))
}

impl TargetV1 {
    pub(super) fn of(id: MessageId) -> Self {
        Self { id: id.0.into_bytes() }
    }
}

impl<'a> InsertV1<&'a str> {
    pub(super) fn of(insert: &'a Insert) -> Self {
        Self {
            items: insert.items.iter().map(ItemV1::of).collect(),
            atomic: insert.atomic,
            max_backlog: insert.max_backlog,
        }
    }
}

impl<'a> ItemV1<&'a str> {
    fn of(item: &'a Item) -> Self {
        let message = &item.message;
        Self {
            id: message.id.0.into_bytes(),
            sender: message.sender.as_str(),
            target: message.target.as_str(),
            message_type: &message.message_type,
            content: &message.content,
            metadata: message.metadata.as_deref(),
            correlation_id: message.correlation_id.as_deref(),
            priority: message.priority.get(),
            created_at: message.created_at.as_millis(),
            deliver_at: message.deliver_at.map(Timestamp::as_millis),
            expires_at: message.expires_at.map(Timestamp::as_millis),
            too_old_at: message.too_old_at.as_millis(),
            max_retries: message.max_retries,
            traceparent: message.traceparent.as_deref(),
            key: message.idempotency.as_ref().map(|key| KeyV1 {
                caller: key.caller.as_str(),
                key: key.key.as_str(),
                fingerprint: key.fingerprint.0,
            }),
            claim: item.claim.as_ref().map(ClaimV1::of),
        }
    }
}

impl ItemV1<Text> {
    fn into_item(self) -> Result<Item, CodecError> {
        let id = MessageId(Uuid::from_bytes(self.id));
        let priority = Priority::new(self.priority)
            .ok_or_else(|| CodecError::Body(format!("priority {}", self.priority)))?;
        let message = NewMessage {
            id,
            sender: service(&self.sender)?,
            target: service(&self.target)?,
            message_type: self.message_type,
            content: self.content,
            metadata: self.metadata,
            correlation_id: self.correlation_id,
            priority,
            created_at: Timestamp::from_millis(self.created_at),
            deliver_at: self.deliver_at.map(Timestamp::from_millis),
            expires_at: self.expires_at.map(Timestamp::from_millis),
            too_old_at: Timestamp::from_millis(self.too_old_at),
            max_retries: self.max_retries,
            traceparent: self.traceparent,
            idempotency: self.key.map(|key| IdempotencyKey {
                caller: key.caller.to_string(),
                key: key.key.to_string(),
                fingerprint: Fingerprint(key.fingerprint),
            }),
        };
        Ok(Item { message, claim: self.claim.map(|claim| claim.into_claim(id)) })
    }
}

impl ClaimV1 {
    fn of(claim: &Claim) -> Self {
        Self {
            owner: claim.owner.0,
            term: claim.term,
            attempt: claim.attempt,
            lease_end: claim.lease_end.as_millis(),
        }
    }

    fn into_claim(self, message: MessageId) -> Claim {
        Claim {
            message,
            owner: NodeId(self.owner),
            term: self.term,
            attempt: self.attempt,
            lease_end: Timestamp::from_millis(self.lease_end),
        }
    }
}

impl<'a> ClaimDueV1<&'a str> {
    pub(super) fn of(claim: &'a ClaimDue) -> Self {
        let want = |want: &'a Want| WantV1 {
            target: want.target.as_str(),
            count: want.count,
            lease_ms: millis(want.lease),
        };
        Self { owner: claim.owner.0, term: claim.term, wants: claim.wants.iter().map(want).collect() }
    }
}

impl<'a> SettleV1<&'a str> {
    pub(super) fn of(settlements: &'a [Settlement]) -> Self {
        Self { settlements: settlements.iter().map(SettlementV1::of).collect() }
    }
}

impl<'a> SettlementV1<&'a str> {
    fn of(settlement: &'a Settlement) -> Self {
        Self {
            message: settlement.claim.message.0.into_bytes(),
            claim: ClaimV1::of(&settlement.claim),
            outcome: OutcomeV1::of(&settlement.outcome),
            attempt: settlement.attempt.as_ref().map(AttemptV1::of),
            error: settlement.error.as_deref(),
        }
    }
}

impl SettlementV1<Text> {
    fn into_settlement(self) -> Result<Settlement, CodecError> {
        let message = MessageId(Uuid::from_bytes(self.message));
        Ok(Settlement {
            claim: self.claim.into_claim(message),
            outcome: self.outcome.into_outcome(),
            attempt: self.attempt.map(AttemptV1::into_attempt).transpose()?,
            error: self.error,
        })
    }
}

impl OutcomeV1 {
    fn of(outcome: &SettleOutcome) -> Self {
        match outcome {
            SettleOutcome::Delivered => Self::Delivered,
            SettleOutcome::RetryAt { at, counted } => Self::RetryAt { at: at.as_millis(), counted: *counted },
            SettleOutcome::Dead(reason) => Self::Dead(match reason {
                DeadReason::Gone => DeadReasonV1::Gone,
                DeadReason::Rejected => DeadReasonV1::Rejected,
                DeadReason::Exhausted => DeadReasonV1::Exhausted,
                DeadReason::TooOld => DeadReasonV1::TooOld,
                DeadReason::NoTarget => DeadReasonV1::NoTarget,
            }),
            SettleOutcome::Expired => Self::Expired,
            SettleOutcome::Released => Self::Released,
        }
    }

    fn into_outcome(self) -> SettleOutcome {
        match self {
            Self::Delivered => SettleOutcome::Delivered,
            Self::RetryAt { at, counted } => {
                SettleOutcome::RetryAt { at: Timestamp::from_millis(at), counted }
            }
            Self::Dead(reason) => SettleOutcome::Dead(match reason {
                DeadReasonV1::Gone => DeadReason::Gone,
                DeadReasonV1::Rejected => DeadReason::Rejected,
                DeadReasonV1::Exhausted => DeadReason::Exhausted,
                DeadReasonV1::TooOld => DeadReason::TooOld,
                DeadReasonV1::NoTarget => DeadReason::NoTarget,
            }),
            Self::Expired => SettleOutcome::Expired,
            Self::Released => SettleOutcome::Released,
        }
    }
}

impl<'a> AttemptV1<&'a str> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            node: attempt.node.0,
            instance: attempt.instance.as_ref().map(InstanceId::as_str),
            started_at: attempt.started_at.as_millis(),
            duration_ms: attempt.duration_ms,
            outcome: match attempt.outcome {
                AttemptOutcome::Delivered => AttemptOutcomeV1::Delivered,
                AttemptOutcome::Failed => AttemptOutcomeV1::Failed,
                AttemptOutcome::Rejected => AttemptOutcomeV1::Rejected,
                AttemptOutcome::NotSent => AttemptOutcomeV1::NotSent,
                AttemptOutcome::NoAnswer => AttemptOutcomeV1::NoAnswer,
                AttemptOutcome::HubFault => AttemptOutcomeV1::HubFault,
            },
            http_status: attempt.http_status,
            error_class: attempt.error_class.as_deref(),
            response: attempt.response.as_deref(),
        }
    }
}

impl AttemptV1<Text> {
    fn into_attempt(self) -> Result<Attempt, CodecError> {
        let instance = match self.instance {
            Some(text) => Some(
                text.parse::<InstanceId>()
                    .map_err(|error| CodecError::Body(format!("instance id {error}")))?,
            ),
            None => None,
        };
        Ok(Attempt {
            number: self.number,
            node: NodeId(self.node),
            instance,
            started_at: Timestamp::from_millis(self.started_at),
            duration_ms: self.duration_ms,
            outcome: match self.outcome {
                AttemptOutcomeV1::Delivered => AttemptOutcome::Delivered,
                AttemptOutcomeV1::Failed => AttemptOutcome::Failed,
                AttemptOutcomeV1::Rejected => AttemptOutcome::Rejected,
                AttemptOutcomeV1::NotSent => AttemptOutcome::NotSent,
                AttemptOutcomeV1::NoAnswer => AttemptOutcome::NoAnswer,
                AttemptOutcomeV1::HubFault => AttemptOutcome::HubFault,
            },
            http_status: self.http_status,
            error_class: self.error_class,
            response: self.response,
        })
    }
}

impl<'a> SweepV1<&'a str> {
    pub(super) fn of(sweep: &'a Sweep) -> Self {
        Self {
            limit: sweep.limit,
            retention_ms: millis(sweep.retention),
            gone: sweep.gone.iter().map(ServiceName::as_str).collect(),
        }
    }
}

pub(super) fn decode_target(bytes: &[u8]) -> Result<MessageId, CodecError> {
    body::<TargetV1>(bytes).map(|target| MessageId(Uuid::from_bytes(target.id)))
}

pub(super) fn decode_insert(bytes: &[u8]) -> Result<Insert, CodecError> {
    let shape: InsertV1<Text> = body(bytes)?;
    let items = shape.items.into_iter().map(ItemV1::into_item).collect::<Result<_, _>>()?;
    Ok(Insert { items, atomic: shape.atomic, max_backlog: shape.max_backlog })
}

pub(super) fn decode_claim(bytes: &[u8]) -> Result<ClaimDue, CodecError> {
    let shape: ClaimDueV1<Text> = body(bytes)?;
    let want = |want: WantV1<Text>| {
        Ok(Want {
            target: service(&want.target)?,
            count: want.count,
            lease: Duration::from_millis(want.lease_ms),
        })
    };
    let wants = shape.wants.into_iter().map(want).collect::<Result<_, CodecError>>()?;
    Ok(ClaimDue { owner: NodeId(shape.owner), term: shape.term, wants })
}

pub(super) fn decode_settle(bytes: &[u8]) -> Result<Vec<Settlement>, CodecError> {
    let shape: SettleV1<Text> = body(bytes)?;
    shape.settlements.into_iter().map(SettlementV1::into_settlement).collect()
}

pub(super) fn decode_sweep(bytes: &[u8]) -> Result<Sweep, CodecError> {
    let shape: SweepV1<Text> = body(bytes)?;
    let gone = shape.gone.iter().map(service).collect::<Result<_, _>>()?;
    Ok(Sweep { limit: shape.limit, retention: Duration::from_millis(shape.retention_ms), gone })
}
