//! The whole control state in a row of envelopes: a header with counts, then members, services and remembered requests.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reply::RefusalV1;
use super::shared::{MemberV1, ServiceV1};
use super::{KIND_SNAPSHOT, KIND_SNAPSHOT_MEMBER, KIND_SNAPSHOT_REQUESTS, KIND_SNAPSHOT_SERVICE};
use crate::codec::{CodecError, Envelope, decode_body};
use crate::control::machine::Machine;
use crate::control::requests::{Remembered, Told};
use crate::control::{Member, State};
use crate::id::{NodeId, RequestId, ServiceName};
use crate::registry::Service;
use crate::time::Timestamp;

/// Requests in one envelope: they are small, and an envelope's header is not.
const REQUESTS_PER_ENVELOPE: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct HeaderV1 {
    cluster: Option<u128>,
    clock: Timestamp,
    revision: u64,
    last_node: NodeId,
    members: u64,
    services: u64,
    requests: u64,
}

#[derive(Serialize, Deserialize)]
enum ToldV1 {
    Done,
    Cluster(u128),
    Admitted(NodeId),
    Service { name: ServiceName, created: bool, secret: Option<Arc<str>> },
    Changed(u32),
    Refused(RefusalV1),
}

#[derive(Serialize, Deserialize)]
struct RequestV1 {
    request: u128,
    fingerprint: u64,
    expires_at: Timestamp,
    told: ToldV1,
}

#[derive(Serialize, Deserialize)]
struct RequestsV1 {
    requests: Vec<RequestV1>,
}

impl From<&Told> for ToldV1 {
    fn from(told: &Told) -> Self {
        match told {
            Told::Done => Self::Done,
            Told::Cluster(cluster) => Self::Cluster(*cluster),
            Told::Admitted(node) => Self::Admitted(*node),
            Told::Service { name, created, secret } => {
                Self::Service { name: name.clone(), created: *created, secret: secret.clone() }
            }
            Told::Changed(count) => Self::Changed(*count),
            Told::Refused(refusal) => Self::Refused(refusal.into()),
        }
    }
}

impl From<ToldV1> for Told {
    fn from(told: ToldV1) -> Self {
        match told {
            ToldV1::Done => Self::Done,
            ToldV1::Cluster(cluster) => Self::Cluster(cluster),
            ToldV1::Admitted(node) => Self::Admitted(node),
            ToldV1::Service { name, created, secret } => Self::Service { name, created, secret },
            ToldV1::Changed(count) => Self::Changed(count),
            ToldV1::Refused(refusal) => Self::Refused(refusal.into()),
        }
    }
}

/// Writes the state.
pub(in crate::control) fn encode_snapshot(machine: &Machine) -> Vec<u8> {
    let Machine { state, requests } = machine;
    let mut out = BytesMut::new();
    let nil = RequestId(Uuid::nil());
    let header = HeaderV1 {
        cluster: state.cluster,
        clock: state.clock,
        revision: state.revision,
        last_node: state.last_node,
        members: state.members.len() as u64,
        services: state.services.len() as u64,
        requests: requests.len() as u64,
    };
    Envelope::required(KIND_SNAPSHOT, 1, &header).write(nil, &mut out);
    for member in state.members.values() {
        Envelope::required(KIND_SNAPSHOT_MEMBER, 1, &MemberV1::from(member)).write(nil, &mut out);
    }
    for service in state.services.values() {
        Envelope::required(KIND_SNAPSHOT_SERVICE, 1, &ServiceV1::from(&**service)).write(nil, &mut out);
    }
    let mut remembered = requests.iter().map(|(request, remembered)| RequestV1 {
        request: request.0.as_u128(),
        fingerprint: remembered.fingerprint,
        expires_at: remembered.expires_at,
        told: (&remembered.told).into(),
    });
    loop {
        let requests: Vec<RequestV1> = remembered.by_ref().take(REQUESTS_PER_ENVELOPE).collect();
        if requests.is_empty() {
            return out.to_vec();
        }
        Envelope::required(KIND_SNAPSHOT_REQUESTS, 1, &RequestsV1 { requests }).write(nil, &mut out);
    }
}

/// Reads a state of this or an earlier version.
pub(in crate::control) fn decode_snapshot(mut bytes: Bytes) -> Result<Machine, CodecError> {
    let (_, envelope) = Envelope::read(&mut bytes)?;
    if (envelope.kind, envelope.version) != (KIND_SNAPSHOT, 1) {
        return Err(CodecError::Unknown { kind: envelope.kind, version: envelope.version });
    }
    let header: HeaderV1 = decode_body(&envelope.body)?;
    let mut machine = Machine {
        state: State {
            cluster: header.cluster,
            clock: header.clock,
            revision: header.revision,
            last_node: header.last_node,
            ..State::default()
        },
        ..Machine::default()
    };
    while !bytes.is_empty() {
        let (_, envelope) = Envelope::read(&mut bytes)?;
        take_part(&mut machine, &envelope)?;
    }
    let Machine { state, requests } = &machine;
    let counts = (state.members.len() as u64, state.services.len() as u64, requests.len() as u64);
    if counts == (header.members, header.services, header.requests) {
        Ok(machine)
    } else {
        Err(CodecError::Truncated)
    }
}

fn take_part(machine: &mut Machine, envelope: &Envelope) -> Result<(), CodecError> {
    match (envelope.kind, envelope.version) {
        (KIND_SNAPSHOT_MEMBER, 1) => {
            let member = Member::from(decode_body::<MemberV1>(&envelope.body)?);
            machine.state.members.insert(member.id, member);
        }
        (KIND_SNAPSHOT_SERVICE, 1) => {
            let service = Service::from(decode_body::<ServiceV1>(&envelope.body)?);
            machine.state.services.insert(service.name.clone(), Arc::new(service));
        }
        (KIND_SNAPSHOT_REQUESTS, 1) => {
            for part in decode_body::<RequestsV1>(&envelope.body)?.requests {
                let remembered = Remembered {
                    fingerprint: part.fingerprint,
                    expires_at: part.expires_at,
                    told: part.told.into(),
                };
                machine.requests.push(RequestId(Uuid::from_u128(part.request)), remembered);
            }
        }
        _ => {
            envelope.unknown::<()>()?;
        }
    }
    Ok(())
}
