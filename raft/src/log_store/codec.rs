//! How log ids, votes and payloads lie in the log file. The layout is frozen by golden tests.

use std::io;

use bytes::Bytes;
use raft_log::codeq::{Decode, Encode};

use crate::proto::{self as pb, membership_from, membership_to};
use crate::type_config::{self as t, EntryBytes, LogId, Payload, Vote};

/// No payload is larger; a length above it is damage, not a request for memory.
const MAX_PAYLOAD: u32 = 64 << 20;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// term, node, index: ordered as openraft orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DiskLogId {
    term: u64,
    node: u64,
    pub(super) index: u64,
}

impl From<&LogId> for DiskLogId {
    fn from(id: &LogId) -> Self {
        let leader = id.committed_leader_id();
        Self { term: leader.term, node: leader.node_id, index: id.index() }
    }
}

impl From<DiskLogId> for LogId {
    fn from(id: DiskLogId) -> Self {
        t::log_id(id.term, id.node, id.index)
    }
}

/// term, node, committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DiskVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for DiskVote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id().term, node: vote.leader_id().node_id, committed: vote.is_committed() }
    }
}

impl From<DiskVote> for Vote {
    fn from(vote: DiskVote) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct DiskPayload(pub(super) Payload);

impl DiskPayload {
    pub(super) fn size(&self) -> u64 {
        match &self.0 {
            Payload::Normal(EntryBytes(bytes)) => bytes.len() as u64,
            Payload::Blank | Payload::Membership(_) => 64,
        }
    }
}

/// The log stores nothing of its own besides entries, votes and marks of purge and commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoUserData;

impl Encode for NoUserData {
    fn encode<W: io::Write>(&self, _: W) -> io::Result<usize> {
        Ok(0)
    }
}

impl Decode for NoUserData {
    fn decode<R: io::Read>(_: R) -> io::Result<Self> {
        Ok(Self)
    }
}

impl Encode for DiskLogId {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        Ok(self.term.encode(&mut writer)?
            + self.node.encode(&mut writer)?
            + self.index.encode(&mut writer)?)
    }
}

impl Decode for DiskLogId {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        Ok(Self {
            term: u64::decode(&mut reader)?,
            node: u64::decode(&mut reader)?,
            index: u64::decode(&mut reader)?,
        })
    }
}

impl Encode for DiskVote {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        Ok(self.term.encode(&mut writer)?
            + self.node.encode(&mut writer)?
            + u8::from(self.committed).encode(&mut writer)?)
    }
}

impl Decode for DiskVote {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        Ok(Self {
            term: u64::decode(&mut reader)?,
            node: u64::decode(&mut reader)?,
            committed: u8::decode(&mut reader)? != 0,
        })
    }
}

fn put<W: io::Write>(writer: &mut W, kind: u8, body: &[u8]) -> io::Result<usize> {
    let length = u32::try_from(body.len()).map_err(|_| invalid("payload is too large"))?;
    let head = kind.encode(&mut *writer)? + length.encode(&mut *writer)?;
    writer.write_all(body)?;
    Ok(head + body.len())
}

impl Encode for DiskPayload {
    fn encode<W: io::Write>(&self, mut writer: W) -> io::Result<usize> {
        match &self.0 {
            Payload::Blank => put(&mut writer, BLANK, &[]),
            Payload::Normal(EntryBytes(bytes)) => put(&mut writer, NORMAL, bytes),
            Payload::Membership(membership) => {
                put(&mut writer, MEMBERSHIP, &prost::Message::encode_to_vec(&membership_to(membership)))
            }
        }
    }
}

impl Decode for DiskPayload {
    fn decode<R: io::Read>(mut reader: R) -> io::Result<Self> {
        let kind = u8::decode(&mut reader)?;
        let length = u32::decode(&mut reader)?;
        if length > MAX_PAYLOAD {
            return Err(invalid("payload length is out of range"));
        }
        let mut body = vec![0; length as usize];
        reader.read_exact(&mut body)?;
        match kind {
            BLANK if body.is_empty() => Ok(Self(Payload::Blank)),
            NORMAL => Ok(Self(Payload::Normal(EntryBytes(Bytes::from(body))))),
            MEMBERSHIP => {
                let message = <pb::Membership as prost::Message>::decode(body.as_slice())
                    .map_err(|error| invalid(&error.to_string()))?;
                let membership = membership_from(&message).map_err(|error| invalid(&error.to_string()))?;
                Ok(Self(Payload::Membership(membership)))
            }
            _ => Err(invalid("unknown kind of payload")),
        }
    }
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::type_config::{Membership, NodeAddr};

    fn bytes(value: &impl Encode) -> Vec<u8> {
        let mut out = Vec::new();
        let written = value.encode(&mut out).unwrap();
        assert_eq!(written, out.len());
        out
    }

    #[test]
    fn log_id_and_vote_are_frozen() {
        let id = DiskLogId { term: 1, node: 2, index: 259 };
        let golden = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 3];
        assert_eq!(bytes(&id), golden);
        assert_eq!(DiskLogId::decode(golden.as_slice()).unwrap(), id);
        let vote = DiskVote { term: 1, node: 2, committed: true };
        let golden = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1];
        assert_eq!(bytes(&vote), golden);
        assert_eq!(DiskVote::decode(golden.as_slice()).unwrap(), vote);
    }

    #[test]
    fn payloads_are_frozen() {
        let nodes: BTreeMap<u64, NodeAddr> = [(7, NodeAddr { addr: "h:1".into() })].into();
        let membership = Membership::new(vec![[7].into()], nodes).unwrap();
        let cases: [(Payload, &[u8]); 3] = [
            (Payload::Blank, &[0, 0, 0, 0, 0]),
            (Payload::Normal(EntryBytes(Bytes::from_static(b"abc"))), &[1, 0, 0, 0, 3, 97, 98, 99]),
            (
                Payload::Membership(membership),
                &[2, 0, 0, 0, 14, 10, 3, 10, 1, 7, 18, 7, 8, 7, 18, 3, 104, 58, 49],
            ),
        ];
        for (payload, golden) in cases {
            assert_eq!(bytes(&DiskPayload(payload.clone())), golden);
            assert_eq!(DiskPayload::decode(golden).unwrap().0, payload);
        }
    }

    #[test]
    fn absurd_lengths_are_refused() {
        let error = DiskPayload::decode([1, 255, 0, 0, 0].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
