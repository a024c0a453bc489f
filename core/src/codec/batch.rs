//! A log entry's payload: the leader's time, then the envelopes of the commands that share the entry.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CodecError, Command, Decoded, Envelope, Kind, decode_body};
use crate::id::RequestId;
use crate::port::Submitted;
use crate::time::Timestamp;

/// The envelope kind that opens every entry.
const KIND_BATCH: Kind = 1;

#[derive(Serialize, Deserialize)]
struct HeaderV1 {
    now: Timestamp,
    count: u32,
}

/// A decoded entry. `None` stands where a command was skipped as ignorable.
#[derive(Clone, Debug)]
pub struct Batch<C> {
    /// The leader's time when the entry was proposed.
    pub now: Timestamp,
    /// The commands, in order.
    pub commands: Vec<Option<Submitted<C>>>,
}

/// Encodes an entry.
pub fn encode_batch<C: Command>(now: Timestamp, commands: &[Submitted<C>]) -> Bytes {
    let mut out = BytesMut::new();
    let header = HeaderV1 { now, count: u32::try_from(commands.len()).unwrap_or(u32::MAX) };
    Envelope::required(KIND_BATCH, 1, &header).write(RequestId(Uuid::nil()), &mut out);
    for submitted in commands {
        submitted.command.encode().write(submitted.request, &mut out);
    }
    out.freeze()
}

/// Decodes an entry.
pub fn decode_batch<C: Command>(mut bytes: Bytes) -> Result<Batch<C>, CodecError> {
    let (_, envelope) = Envelope::read(&mut bytes)?;
    if (envelope.kind, envelope.version) != (KIND_BATCH, 1) {
        return Err(CodecError::Unknown { kind: envelope.kind, version: envelope.version });
    }
    let header: HeaderV1 = decode_body(&envelope.body)?;
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let (request, envelope) = Envelope::read(&mut bytes)?;
        commands.push(match C::decode(envelope)? {
            Decoded::Value(command) => Some(Submitted { request, command }),
            Decoded::Ignorable => None,
        });
    }
    if commands.len() != header.count as usize {
        return Err(CodecError::Truncated);
    }
    Ok(Batch { now: header.now, commands })
}
