//! How two nodes make sure of each other before a connection carries anything.
//!
//! ```text
//! caller → hello:   magic, purpose, from, to, boot, cluster, generation, nonce A
//! server → proof:   nonce B, HMAC("server", transcript)
//! caller → proof:   HMAC("caller", transcript)
//! server → verdict: code, HMAC("verdict", transcript + code)
//! ```
//! The transcript is the hello and nonce B. Each side proves the key over a fresh nonce of the other, so nothing can be
//! replayed, and nothing is said about this node to who has not proven the key. A connection that got here is bound to the
//! caller's and the server's id and to the cluster.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hub_core::id::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::key::ClusterKey;

/// Nobody may keep a connection open without proving itself for longer.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const MAGIC: &[u8; 4] = b"MHP\x01";
const NONCE: usize = 32;
const HELLO: usize = 4 + 1 + 8 + 8 + 16 + 16 + 8 + NONCE;
const PROOF: usize = 32;

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is a member: everything.
    Member,
    /// It knows the key, but is not a member yet, or does not know whom it calls: joining and asking for status.
    Joiner,
}

/// Who calls whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) purpose: Purpose,
    /// The caller; 0 without an id.
    pub(crate) from: NodeId,
    /// Who the caller thinks it calls; 0 for anybody.
    pub(crate) to: NodeId,
    /// Random, made at every start of the caller's process.
    pub(crate) boot: u128,
    /// The caller's cluster; 0 if it has none yet.
    pub(crate) cluster: u128,
    /// How often, as the caller knows, the cluster was rebuilt; it begins with 1.
    pub(crate) generation: u64,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The other side has another `CLUSTER_KEY`, or none.
    #[error("the other side does not have this cluster's key")]
    WrongKey,
    /// The node called belongs to another cluster.
    #[error("the node belongs to another cluster")]
    OtherCluster,
    /// Another node is at this address.
    #[error("another node is at this address")]
    WrongNode,
    /// Another process with the caller's identity is connected.
    #[error("another process has this identity")]
    IdentityTaken,
    /// The caller was removed from the cluster.
    #[error("the node was removed from the cluster")]
    Removed,
    /// The node called is not ready to take part yet.
    #[error("the node has not joined a cluster yet")]
    NotReady,
    /// The other side does not speak this protocol.
    #[error("the other side does not speak this protocol")]
    Protocol,
    /// The cluster was recovered without the caller.
    #[error("the cluster was recovered without this node")]
    OldGeneration,
    /// The cluster was recovered without the node called.
    #[error("the node called is from before the cluster was recovered")]
    NewGeneration,
}

impl Refusal {
    const ALL: [Self; 9] = [
        Self::WrongKey,
        Self::OtherCluster,
        Self::WrongNode,
        Self::IdentityTaken,
        Self::Removed,
        Self::NotReady,
        Self::Protocol,
        Self::OldGeneration,
        Self::NewGeneration,
    ];

    /// The cluster goes on without the caller, for good.
    pub(super) const fn is_final(self) -> bool {
        matches!(self, Self::Removed | Self::OldGeneration)
    }

    fn code(self) -> u8 {
        Self::ALL.iter().zip(1..).find(|(refusal, _)| **refusal == self).map_or(u8::MAX, |(_, code)| code)
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side, or this one, said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed before there was an answer.
    #[error("connection failed before the other side had proven itself")]
    Io(#[from] std::io::Error),
    /// The other side was silent for too long.
    #[error("the other side did not answer in time")]
    Timeout,
}

impl Hello {
    fn encode(&self, nonce: &[u8; NONCE]) -> BytesMut {
        let mut out = BytesMut::with_capacity(HELLO + NONCE);
        out.put_slice(MAGIC);
        out.put_u8(match self.purpose {
            Purpose::Member => 1,
            Purpose::Joiner => 2,
        });
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
        out.put_u128(self.boot);
        out.put_u128(self.cluster);
        out.put_u64(self.generation);
        out.put_slice(nonce);
        out
    }

    fn decode(bytes: &[u8; HELLO]) -> Result<Self, Refusal> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        if bytes.split_to(4) != MAGIC.as_slice() {
            return Err(Refusal::Protocol);
        }
        let purpose = match bytes.get_u8() {
            1 => Purpose::Member,
            2 => Purpose::Joiner,
            _ => return Err(Refusal::Protocol),
        };
        let (from, to) = (NodeId(bytes.get_u64()), NodeId(bytes.get_u64()));
        let (boot, cluster) = (bytes.get_u128(), bytes.get_u128());
        Ok(Self { purpose, from, to, boot, cluster, generation: bytes.get_u64() })
    }
}

fn nonce() -> Result<[u8; NONCE], HandshakeError> {
    let mut nonce = [0; NONCE];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| std::io::Error::other("no random numbers"))?;
    Ok(nonce)
}

/// The caller's part.
pub(super) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &ClusterKey,
    hello: &Hello,
) -> Result<(), HandshakeError> {
    let exchange = async {
        let mut transcript = hello.encode(&nonce()?);
        stream.write_all(&transcript).await?;
        let mut answer = [0; NONCE + PROOF];
        stream.read_exact(&mut answer).await?;
        let (theirs, proof) = answer.split_at(NONCE);
        transcript.put_slice(theirs);
        let proof: [u8; PROOF] = proof.try_into().map_err(|_| Refusal::Protocol)?;
        if !key.check(b"server", &transcript, &proof) {
            return Err(Refusal::WrongKey.into());
        }
        stream.write_all(&key.prove(b"caller", &transcript)).await?;
        let mut verdict = [0; 1 + PROOF];
        stream.read_exact(&mut verdict).await?;
        let [code, proof @ ..] = verdict;
        transcript.put_u8(code);
        if !key.check(b"verdict", &transcript, &proof) {
            return Err(Refusal::WrongKey.into());
        }
        match code {
            0 => Ok(()),
            code => Err(Refusal::from_code(code).unwrap_or(Refusal::Protocol).into()),
        }
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange).await.map_err(|_| HandshakeError::Timeout)?
}

/// The server's part. `judge` says whether a caller who has the key may come in.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &ClusterKey,
    judge: impl FnOnce(&Hello) -> Result<(), Refusal>,
) -> Result<Hello, HandshakeError> {
    let exchange = async {
        let mut bytes = [0; HELLO];
        stream.read_exact(&mut bytes).await?;
        let hello = Hello::decode(&bytes)?;
        let mine = nonce()?;
        let mut transcript = BytesMut::from(bytes.as_slice());
        transcript.put_slice(&mine);
        let mut out = BytesMut::from(mine.as_slice());
        out.put_slice(&key.prove(b"server", &transcript));
        stream.write_all(&out).await?;
        let mut proof = [0; PROOF];
        stream.read_exact(&mut proof).await?;
        if !key.check(b"caller", &transcript, &proof) {
            // Nothing is said to a stranger: it knows already that the keys differ.
            return Err(Refusal::WrongKey.into());
        }
        let verdict = judge(&hello);
        let code = verdict.err().map_or(0, Refusal::code);
        transcript.put_u8(code);
        let mut out = BytesMut::from([code].as_slice());
        out.put_slice(&key.prove(b"verdict", &transcript));
        stream.write_all(&out).await?;
        stream.flush().await?;
        verdict?;
        Ok(hello)
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange).await.map_err(|_| HandshakeError::Timeout)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let (from, to) = (NodeId(2), NodeId(1));
        Hello { purpose: Purpose::Member, from, to, boot: 7, cluster: 9, generation: 1 }
    }

    async fn meet(
        caller: &str,
        server: &str,
        verdict: Result<(), Refusal>,
    ) -> (Result<(), HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut left, mut right) = tokio::io::duplex(1_024);
        let (caller, server) = (ClusterKey::new(caller.as_bytes()), ClusterKey::new(server.as_bytes()));
        let hello = hello();
        let call = async move { call(&mut left, &caller, &hello).await };
        let answer = async move { answer(&mut right, &server, |_| verdict).await };
        tokio::join!(call, answer)
    }

    #[tokio::test]
    async fn both_sides_learn_who_the_other_is() {
        let (called, answered) = meet("key", "key", Ok(())).await;
        called.unwrap();
        assert_eq!(answered.unwrap(), hello());
    }

    #[tokio::test]
    async fn another_key_is_refused_by_both() {
        let (called, answered) = meet("key", "other", Ok(())).await;
        assert!(matches!(called, Err(HandshakeError::Refused(Refusal::WrongKey))));
        assert!(answered.is_err());
    }

    #[tokio::test]
    async fn every_refusal_reaches_the_caller() {
        for refusal in Refusal::ALL {
            let (called, answered) = meet("key", "key", Err(refusal)).await;
            assert!(matches!(called, Err(HandshakeError::Refused(got)) if got == refusal));
            assert!(matches!(answered, Err(HandshakeError::Refused(got)) if got == refusal));
        }
    }

    #[tokio::test]
    async fn a_recorded_caller_cannot_be_replayed() {
        let key = ClusterKey::new(b"key");
        let (mut left, mut right) = tokio::io::duplex(1_024);
        let transcript = hello().encode(&[1; NONCE]);
        let stale = key.prove(b"caller", &transcript);
        left.write_all(&transcript).await.unwrap();
        left.write_all(&stale).await.unwrap();
        let answered = answer(&mut right, &key, |_| Ok(())).await;
        assert!(matches!(answered, Err(HandshakeError::Refused(Refusal::WrongKey))));
    }
}
