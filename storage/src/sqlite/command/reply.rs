//! What the `messages` group answers. The wire shapes of version 1 are frozen.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hub_core::codec::{self, CodecError, Envelope, Kind, decode_body};
use hub_core::delivery::Claim;
use hub_core::id::{MessageId, NodeId, RequestId};
use hub_core::message::Status;
use hub_core::port::{AcceptRefusal, Accepted, CancelOutcome, DeadLetterOutcome, SweepReport};
use hub_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const KIND_REPLY: Kind = 150;

/// A claim that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// On which message.
    pub message: MessageId,
    /// Number of the attempt.
    pub attempt: u32,
    /// End of the lease.
    pub lease_end: Timestamp,
    /// Counted retries so far.
    pub retry_count: u32,
}

impl Granted {
    /// The claim, which `owner` asked for in `term`.
    #[must_use]
    pub const fn claim(&self, owner: NodeId, term: u64) -> Claim {
        Claim { message: self.message, owner, term, attempt: self.attempt, lease_end: self.lease_end }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The command was of a kind that may be skipped, and was.
    Skipped,
    /// To `Insert`: one for each message, in order. How long to wait after `BacklogFull` is left to who was asked.
    Inserted(Vec<Result<Accepted, AcceptRefusal>>),
    /// To `Cancel`.
    Cancelled(CancelOutcome),
    /// To `Replay` and `Discard`.
    DeadLetter(DeadLetterOutcome),
    /// To `Claim`.
    Claimed(Vec<Granted>),
    /// To `Settle`: one for each settlement; `false` for those that came too late.
    Settled(Vec<bool>),
    /// To `Sweep`.
    Swept(SweepReport),
}

#[derive(Serialize, Deserialize)]
enum ReplyV1 {
    Skipped,
    Inserted(Vec<InsertedV1>),
    Cancelled(CancelledV1),
    DeadLetter(DeadLetterV1),
    Claimed(Vec<GrantedV1>),
    Settled(Vec<bool>),
    Swept(SweptV1),
}

#[derive(Serialize, Deserialize)]
enum InsertedV1 {
    Accepted { id: [u8; 16], created_at: i64, replayed: bool },
    KeyReused,
    BacklogFull { target: String },
    BatchRefused,
}

#[derive(Serialize, Deserialize)]
enum CancelledV1 {
    Cancelled { may_have_arrived: bool },
    Conflict(StatusV1),
    NotFound,
}

#[derive(Serialize, Deserialize)]
enum DeadLetterV1 {
    Done(StatusV1),
    Conflict(StatusV1),
    Expired,
    NotFound,
}

#[derive(Serialize, Deserialize)]
struct GrantedV1 {
    message: [u8; 16],
    attempt: u32,
    lease_end: i64,
    retry_count: u32,
}

#[derive(Serialize, Deserialize)]
struct SweptV1 {
    expired: u64,
    buried: u64,
    pruned: u64,
    more: bool,
    next: Option<i64>,
}

#[derive(Serialize, Deserialize)]
enum StatusV1 {
    Held,
    Pending,
    Delivering,
    Retrying,
    Delivered,
    Cancelled,
    Expired,
    DeadLetter,
    Discarded,
}

impl StatusV1 {
    fn of(status: Status) -> Self {
        match status {
            Status::Held => Self::Held,
            Status::Pending => Self::Pending,
            Status::Delivering => Self::Delivering,
            Status::Retrying => Self::Retrying,
            Status::Delivered => Self::Delivered,
            Status::Cancelled => Self::Cancelled,
            Status::Expired => Self::Expired,
            Status::DeadLetter => Self::DeadLetter,
            Status::Discarded => Self::Discarded,
        }
    }

    fn into_status(self) -> Status {
        match self {
            Self::Held => Status::Held,
            Self::Pending => Status::Pending,
            Self::Delivering => Status::Delivering,
            Self::Retrying => Status::Retrying,
            Self::Delivered => Status::Delivered,
            Self::Cancelled => Status::Cancelled,
            Self::Expired => Status::Expired,
            Self::DeadLetter => Status::DeadLetter,
            Self::Discarded => Status::Discarded,
        }
    }
}

impl InsertedV1 {
    fn of(result: &Result<Accepted, AcceptRefusal>) -> Self {
        match result {
            Ok(accepted) => Self::Accepted {
                id: accepted.id.0.into_bytes(),
                created_at: accepted.created_at.as_millis(),
                replayed: accepted.replayed,
            },
            Err(AcceptRefusal::KeyReused) => Self::KeyReused,
            Err(AcceptRefusal::BacklogFull { target, .. }) => {
                Self::BacklogFull { target: target.to_string() }
            }
            Err(AcceptRefusal::BatchRefused) => Self::BatchRefused,
        }
    }

    fn into_result(self) -> Result<Result<Accepted, AcceptRefusal>, CodecError> {
        Ok(match self {
            // Whatever became of it since: a repeat gets the answer that the first one got.
            Self::Accepted { id, created_at, replayed } => Ok(Accepted {
                id: MessageId(Uuid::from_bytes(id)),
                status: Status::Pending,
                created_at: Timestamp::from_millis(created_at),
                replayed,
            }),
            Self::KeyReused => Err(AcceptRefusal::KeyReused),
            Self::BacklogFull { target } => Err(AcceptRefusal::BacklogFull {
                target: target.parse().map_err(|error| CodecError::Body(format!("service name {error}")))?,
                retry_after: Duration::ZERO,
            }),
            Self::BatchRefused => Err(AcceptRefusal::BatchRefused),
        })
    }
}

impl ReplyV1 {
    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Skipped => Self::Skipped,
            Reply::Inserted(results) => Self::Inserted(results.iter().map(InsertedV1::of).collect()),
            Reply::Cancelled(outcome) => Self::Cancelled(match *outcome {
                CancelOutcome::Cancelled { may_have_arrived } => CancelledV1::Cancelled { may_have_arrived },
                CancelOutcome::Conflict(status) => CancelledV1::Conflict(StatusV1::of(status)),
                CancelOutcome::NotFound => CancelledV1::NotFound,
            }),
            Reply::DeadLetter(outcome) => Self::DeadLetter(match *outcome {
                DeadLetterOutcome::Done(status) => DeadLetterV1::Done(StatusV1::of(status)),
                DeadLetterOutcome::Conflict(status) => DeadLetterV1::Conflict(StatusV1::of(status)),
                DeadLetterOutcome::Expired => DeadLetterV1::Expired,
                DeadLetterOutcome::NotFound => DeadLetterV1::NotFound,
            }),
            Reply::Claimed(granted) => Self::Claimed(granted.iter().map(GrantedV1::of).collect()),
            Reply::Settled(results) => Self::Settled(results.clone()),
            Reply::Swept(report) => Self::Swept(SweptV1 {
                expired: report.expired,
                buried: report.buried,
                pruned: report.pruned,
                more: report.more,
                next: report.next.map(Timestamp::as_millis),
            }),
        }
    }

    fn into_reply(self) -> Result<Reply, CodecError> {
        Ok(match self {
            Self::Skipped => Reply::Skipped,
            Self::Inserted(results) => {
                Reply::Inserted(results.into_iter().map(InsertedV1::into_result).collect::<Result<_, _>>()?)
            }
            Self::Cancelled(outcome) => Reply::Cancelled(match outcome {
                CancelledV1::Cancelled { may_have_arrived } => CancelOutcome::Cancelled { may_have_arrived },
                CancelledV1::Conflict(status) => CancelOutcome::Conflict(status.into_status()),
                CancelledV1::NotFound => CancelOutcome::NotFound,
            }),
            Self::DeadLetter(outcome) => Reply::DeadLetter(match outcome {
                DeadLetterV1::Done(status) => DeadLetterOutcome::Done(status.into_status()),
                DeadLetterV1::Conflict(status) => DeadLetterOutcome::Conflict(status.into_status()),
                DeadLetterV1::Expired => DeadLetterOutcome::Expired,
                DeadLetterV1::NotFound => DeadLetterOutcome::NotFound,
            }),
            Self::Claimed(granted) => {
                Reply::Claimed(granted.into_iter().map(GrantedV1::into_granted).collect())
            }
            Self::Settled(results) => Reply::Settled(results),
            Self::Swept(report) => Reply::Swept(SweepReport {
                expired: report.expired,
                buried: report.buried,
                pruned: report.pruned,
                more: report.more,
                next: report.next.map(Timestamp::from_millis),
            }),
        })
    }
}

impl GrantedV1 {
    fn of(granted: &Granted) -> Self {
        Self {
            message: granted.message.0.into_bytes(),
            attempt: granted.attempt,
            lease_end: granted.lease_end.as_millis(),
            retry_count: granted.retry_count,
        }
    }

    fn into_granted(self) -> Granted {
        Granted {
            message: MessageId(Uuid::from_bytes(self.message)),
            attempt: self.attempt,
            lease_end: Timestamp::from_millis(self.lease_end),
            retry_count: self.retry_count,
        }
    }
}

impl codec::Reply for Reply {
    fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        Envelope::required(KIND_REPLY, 1, &ReplyV1::of(self)).write(RequestId(Uuid::nil()), &mut out);
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        let (_, envelope) = Envelope::read(&mut bytes)?;
        if (envelope.kind, envelope.version) != (KIND_REPLY, 1) {
            return Err(CodecError::Unknown { kind: envelope.kind, version: envelope.version });
        }
        decode_body::<ReplyV1>(&envelope.body)?.into_reply()
    }

    fn skipped() -> Self {
        Self::Skipped
    }
}
