//! The commands of the `messages` group and their replies. Released wire shapes are frozen in `shape`.

mod reply;
mod shape;

use std::time::Duration;

use hub_core::codec::{self, CodecError, Decoded, Envelope, Kind};
use hub_core::delivery::{Claim, Settlement};
use hub_core::id::{MessageId, NodeId, ServiceName};
use hub_core::message::NewMessage;
use hub_core::port::Want;

pub use reply::{Granted, Reply};

const KIND_INSERT: Kind = 100;
const KIND_CANCEL: Kind = 101;
const KIND_REPLAY: Kind = 102;
const KIND_DISCARD: Kind = 103;
const KIND_CLAIM: Kind = 104;
const KIND_SETTLE: Kind = 105;
const KIND_SWEEP: Kind = 106;

/// What can be proposed to the `messages` group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept messages.
    Insert(Insert),
    /// Cancel a message that nobody holds a live claim on.
    Cancel(MessageId),
    /// Send a dead letter again.
    Replay(MessageId),
    /// Throw a dead letter away.
    Discard(MessageId),
    /// Claim what is due for a node.
    Claim(ClaimDue),
    /// End attempts.
    Settle(Vec<Settlement>),
    /// End what has reached its end, and delete what is past retention.
    Sweep(Sweep),
}

/// Messages to accept, each for itself or all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    /// The messages.
    pub items: Vec<Item>,
    /// All or none.
    pub atomic: bool,
    /// Most open messages a target may have; `u64::MAX` for no bound.
    pub max_backlog: u64,
}

/// One message to accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The message.
    pub message: NewMessage,
    /// Stamped by the leader when the message found a free delivery slot.
    pub claim: Option<Claim>,
}

/// A node asks for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimDue {
    /// Who will attempt them.
    pub owner: NodeId,
    /// The term of the leader that asks.
    pub term: u64,
    /// How many for which targets.
    pub wants: Vec<Want>,
}

/// One pass over what has reached an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// At most this many of each sort.
    pub limit: u32,
    /// Final messages are deleted when they have been final for so long.
    pub retention: Duration,
    /// Targets that are not registered: their messages end as `no_target`, not `too_old`.
    pub gone: Vec<ServiceName>,
}

impl codec::Command for Command {
    fn encode(&self) -> Envelope {
        match self {
            Self::Insert(insert) => Envelope::required(KIND_INSERT, 1, &shape::InsertV1::of(insert)),
            Self::Cancel(id) => Envelope::required(KIND_CANCEL, 1, &shape::TargetV1::of(*id)),
            Self::Replay(id) => Envelope::required(KIND_REPLAY, 1, &shape::TargetV1::of(*id)),
            Self::Discard(id) => Envelope::required(KIND_DISCARD, 1, &shape::TargetV1::of(*id)),
            Self::Claim(claim) => Envelope::required(KIND_CLAIM, 1, &shape::ClaimDueV1::of(claim)),
            Self::Settle(all) => Envelope::required(KIND_SETTLE, 1, &shape::SettleV1::of(all)),
            Self::Sweep(sweep) => Envelope::required(KIND_SWEEP, 1, &shape::SweepV1::of(sweep)),
        }
    }

    fn decode(envelope: Envelope) -> Result<Decoded<Self>, CodecError> {
        let body = &envelope.body;
        Ok(Decoded::Value(match (envelope.kind, envelope.version) {
            (KIND_INSERT, 1) => Self::Insert(shape::decode_insert(body)?),
            (KIND_CANCEL, 1) => Self::Cancel(shape::decode_target(body)?),
            (KIND_REPLAY, 1) => Self::Replay(shape::decode_target(body)?),
            (KIND_DISCARD, 1) => Self::Discard(shape::decode_target(body)?),
            (KIND_CLAIM, 1) => Self::Claim(shape::decode_claim(body)?),
            (KIND_SETTLE, 1) => Self::Settle(shape::decode_settle(body)?),
            (KIND_SWEEP, 1) => Self::Sweep(shape::decode_sweep(body)?),
            _ => return envelope.unknown(),
        }))
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Insert(insert) => insert.items.iter().map(|item| item.message.size_hint() + 128).sum(),
            Self::Settle(all) => all.iter().map(settlement_size).sum(),
            Self::Claim(claim) => 64 + 64 * claim.wants.len(),
            Self::Sweep(sweep) => 64 + 64 * sweep.gone.len(),
            Self::Cancel(_) | Self::Replay(_) | Self::Discard(_) => 64,
        }
    }
}

/// About how many bytes a settlement takes in the log.
pub(crate) fn settlement_size(settlement: &Settlement) -> usize {
    let attempt = settlement.attempt.as_ref();
    let response = attempt.and_then(|attempt| attempt.response.as_deref()).map_or(0, str::len);
    192 + response + settlement.error.as_deref().map_or(0, str::len)
}
