//! Replies, as they travel from the leader to the node that was asked, and as the request table keeps them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::KIND_REPLY;
use super::breaker::RefusedV1;
use super::record::RecordV1;
use super::shared::ServiceV1;
use crate::codec::{self, CodecError, Envelope, decode_body};
use crate::control::{Refusal, Reply};
use crate::id::{NodeId, RequestId};

#[derive(Serialize, Deserialize)]
pub(super) enum RefusalV1 {
    NoService,
    NoInstance,
    Revision { current: u64 },
    RegistryFull,
    Invalid { field: Arc<str>, problem: Arc<str> },
    NoNode,
    IdentityTaken,
    RequestTableFull,
    RequestReused,
    Breaker(RefusedV1),
}

impl From<&Refusal> for RefusalV1 {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NoService => Self::NoService,
            Refusal::NoInstance => Self::NoInstance,
            Refusal::Revision { current } => Self::Revision { current: *current },
            Refusal::RegistryFull => Self::RegistryFull,
            Refusal::Invalid { field, problem } => {
                Self::Invalid { field: field.clone(), problem: problem.clone() }
            }
            Refusal::NoNode => Self::NoNode,
            Refusal::IdentityTaken => Self::IdentityTaken,
            Refusal::RequestTableFull => Self::RequestTableFull,
            Refusal::RequestReused => Self::RequestReused,
            Refusal::Breaker(refused) => Self::Breaker((*refused).into()),
        }
    }
}

impl From<RefusalV1> for Refusal {
    fn from(refusal: RefusalV1) -> Self {
        match refusal {
            RefusalV1::NoService => Self::NoService,
            RefusalV1::NoInstance => Self::NoInstance,
            RefusalV1::Revision { current } => Self::Revision { current },
            RefusalV1::RegistryFull => Self::RegistryFull,
            RefusalV1::Invalid { field, problem } => Self::Invalid { field, problem },
            RefusalV1::NoNode => Self::NoNode,
            RefusalV1::IdentityTaken => Self::IdentityTaken,
            RefusalV1::RequestTableFull => Self::RequestTableFull,
            RefusalV1::RequestReused => Self::RequestReused,
            RefusalV1::Breaker(refused) => Self::Breaker(refused.into()),
        }
    }
}

#[derive(Serialize, Deserialize)]
enum ReplyV1 {
    Done,
    Cluster(u128),
    Admitted(NodeId),
    Service { service: Box<ServiceV1>, created: bool, secret: Option<Arc<str>> },
    Changed(u32),
    Refused(RefusalV1),
    Skipped,
    Breaker(Box<RecordV1>),
}

impl From<&Reply> for ReplyV1 {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Cluster(cluster) => Self::Cluster(*cluster),
            Reply::Admitted(node) => Self::Admitted(*node),
            Reply::Service { service, created, secret } => Self::Service {
                service: Box::new(ServiceV1::from(&**service)),
                created: *created,
                secret: secret.clone(),
            },
            Reply::Changed(count) => Self::Changed(*count),
            Reply::Refused(refusal) => Self::Refused(refusal.into()),
            Reply::Skipped => Self::Skipped,
            Reply::Breaker(record) => Self::Breaker(Box::new(RecordV1::from(&**record))),
        }
    }
}

impl From<ReplyV1> for Reply {
    fn from(reply: ReplyV1) -> Self {
        match reply {
            ReplyV1::Done => Self::Done,
            ReplyV1::Cluster(cluster) => Self::Cluster(cluster),
            ReplyV1::Admitted(node) => Self::Admitted(node),
            ReplyV1::Service { service, created, secret } => {
                Self::Service { service: Arc::new((*service).into()), created, secret }
            }
            ReplyV1::Changed(count) => Self::Changed(count),
            ReplyV1::Refused(refusal) => Self::Refused(refusal.into()),
            ReplyV1::Skipped => Self::Skipped,
            ReplyV1::Breaker(record) => Self::Breaker(Arc::new((*record).into())),
        }
    }
}

impl codec::Reply for Reply {
    fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        Envelope::required(KIND_REPLY, 1, &ReplyV1::from(self)).write(RequestId(Uuid::nil()), &mut out);
        out.to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        let (_, envelope) = Envelope::read(&mut bytes)?;
        if (envelope.kind, envelope.version) != (KIND_REPLY, 1) {
            return Err(CodecError::Unknown { kind: envelope.kind, version: envelope.version });
        }
        if !bytes.is_empty() {
            return Err(CodecError::Body(format!("{} bytes left over", bytes.len())));
        }
        Ok(decode_body::<ReplyV1>(&envelope.body)?.into())
    }

    fn skipped() -> Self {
        Self::Skipped
    }
}
