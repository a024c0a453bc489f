//! The whole control state in a row of envelopes: a header with counts, then members, services, breakers and remembered
//! requests.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::breaker::ConfigV1;
use super::record::RecordV1;
use super::reply::RefusalV1;
use super::shared::{MemberV1, ServiceV1};
use super::{
    KIND_SNAPSHOT, KIND_SNAPSHOT_BREAKER, KIND_SNAPSHOT_MEMBER, KIND_SNAPSHOT_REQUESTS, KIND_SNAPSHOT_SERVICE,
};
use crate::breaker::{Config, Record};
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

/// Since there are breakers.
#[derive(Serialize, Deserialize)]
struct HeaderV2 {
    first: HeaderV1,
    breakers: u64,
    breaker_defaults: ConfigV1,
}

#[derive(Serialize, Deserialize)]
struct BreakerV1 {
    service: ServiceName,
    record: RecordV1,
}

#[derive(Serialize, Deserialize)]
enum ToldV1 {
    Done,
    Cluster(u128),
    Admitted(NodeId),
    Service { name: ServiceName, created: bool, secret: Option<Arc<str>> },
    Changed(u32),
    Refused(RefusalV1),
    Breaker(ServiceName),
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
            Told::Breaker(service) => Self::Breaker(service.clone()),
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
            ToldV1::Breaker(service) => Self::Breaker(service),
        }
    }
}

/// Writes the state.
pub(in crate::control) fn encode_snapshot(machine: &Machine) -> Vec<u8> {
    let Machine { state, requests } = machine;
    let mut out = BytesMut::new();
    let nil = RequestId(Uuid::nil());
    let first = HeaderV1 {
        cluster: state.cluster,
        clock: state.clock,
        revision: state.revision,
        last_node: state.last_node,
        members: state.members.len() as u64,
        services: state.services.len() as u64,
        requests: requests.len() as u64,
    };
    let header = HeaderV2 {
        first,
        breakers: state.breakers.len() as u64,
        breaker_defaults: state.breaker_defaults.into(),
    };
    Envelope::required(KIND_SNAPSHOT, 2, &header).write(nil, &mut out);
    for member in state.members.values() {
        Envelope::required(KIND_SNAPSHOT_MEMBER, 1, &MemberV1::from(member)).write(nil, &mut out);
    }
    for service in state.services.values() {
        Envelope::required(KIND_SNAPSHOT_SERVICE, 1, &ServiceV1::from(&**service)).write(nil, &mut out);
    }
    for (service, record) in &state.breakers {
        let body = BreakerV1 { service: service.clone(), record: RecordV1::from(&**record) };
        Envelope::required(KIND_SNAPSHOT_BREAKER, 1, &body).write(nil, &mut out);
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
    let (header, breakers, breaker_defaults) = match (envelope.kind, envelope.version) {
        (KIND_SNAPSHOT, 1) => (decode_body::<HeaderV1>(&envelope.body)?, 0, Config::default()),
        (KIND_SNAPSHOT, 2) => {
            let header: HeaderV2 = decode_body(&envelope.body)?;
            (header.first, header.breakers, header.breaker_defaults.into())
        }
        (kind, version) => return Err(CodecError::Unknown { kind, version }),
    };
    let mut machine = Machine {
        state: State {
            cluster: header.cluster,
            clock: header.clock,
            revision: header.revision,
            last_node: header.last_node,
            breaker_defaults,
            ..State::default()
        },
        ..Machine::default()
    };
    while !bytes.is_empty() {
        let (_, envelope) = Envelope::read(&mut bytes)?;
        take_part(&mut machine, &envelope)?;
    }
    let Machine { state, requests } = &machine;
    let counts = [state.members.len(), state.services.len(), requests.len(), state.breakers.len()];
    if counts.map(|count| count as u64) == [header.members, header.services, header.requests, breakers] {
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
        (KIND_SNAPSHOT_BREAKER, 1) => {
            let BreakerV1 { service, record } = decode_body(&envelope.body)?;
            machine.state.breakers.insert(service, Arc::new(Record::from(record)));
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
