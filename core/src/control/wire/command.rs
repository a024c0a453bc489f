//! Commands as they stand in the log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::breaker_command;
use super::shared::{DeliveryV1, HealthCheckV1, HealthV1, RetryV1};
use super::{
    KIND_ADMIT, KIND_DEREGISTER, KIND_DEREGISTER_INSTANCE, KIND_FOUND, KIND_REGISTER, KIND_REMOVE,
    KIND_ROTATE_SECRET, KIND_SET_DRAINING, KIND_SET_HEALTH, KIND_SET_MAINTENANCE, KIND_SET_PAUSED,
};
use crate::codec::{self, CodecError, Decoded, Envelope, decode_body};
use crate::control::{Command, HealthChange, Registration};
use crate::id::{InstanceId, NodeId, ServiceName};

#[derive(Serialize, Deserialize)]
struct FoundV1 {
    cluster: u128,
}

#[derive(Serialize, Deserialize)]
struct AdmitV1 {
    node: Option<NodeId>,
    incarnation: u128,
    raft_addr: Arc<str>,
    rest_url: Arc<str>,
    version: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct RemoveV1 {
    node: NodeId,
}

#[derive(Serialize, Deserialize)]
struct SetDrainingV1 {
    node: NodeId,
    draining: bool,
}

#[derive(Serialize, Deserialize)]
struct RegisterV1 {
    name: ServiceName,
    version: Option<Arc<str>>,
    instances: Vec<(InstanceId, Arc<str>, u16)>,
    delivery: DeliveryV1,
    retry: RetryV1,
    health_check: HealthCheckV1,
    message_types: Vec<Arc<str>>,
    metadata: Option<Arc<str>>,
    tags: Vec<Arc<str>>,
    fresh_secret: Arc<str>,
    if_revision: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct DeregisterV1 {
    service: ServiceName,
}

#[derive(Serialize, Deserialize)]
struct DeregisterInstanceV1 {
    service: ServiceName,
    instance: InstanceId,
}

#[derive(Serialize, Deserialize)]
struct SetPausedV1 {
    service: ServiceName,
    paused: bool,
}

#[derive(Serialize, Deserialize)]
struct SetMaintenanceV1 {
    service: ServiceName,
    instance: InstanceId,
    maintenance: bool,
}

#[derive(Serialize, Deserialize)]
struct HealthChangeV1 {
    service: ServiceName,
    instance: InstanceId,
    url: Arc<str>,
    health: HealthV1,
}

#[derive(Serialize, Deserialize)]
struct SetHealthV1 {
    changes: Vec<HealthChangeV1>,
}

#[derive(Serialize, Deserialize)]
struct RotateSecretV1 {
    service: ServiceName,
    secret: Arc<str>,
}

impl From<&Registration> for RegisterV1 {
    fn from(registration: &Registration) -> Self {
        Self {
            name: registration.name.clone(),
            version: registration.version.clone(),
            instances: registration.instances.clone(),
            delivery: (&registration.delivery).into(),
            retry: (&registration.retry).into(),
            health_check: (&registration.health_check).into(),
            message_types: registration.message_types.clone(),
            metadata: registration.metadata.clone(),
            tags: registration.tags.clone(),
            fresh_secret: registration.fresh_secret.clone(),
            if_revision: registration.if_revision,
        }
    }
}

impl From<RegisterV1> for Registration {
    fn from(register: RegisterV1) -> Self {
        Self {
            name: register.name,
            version: register.version,
            instances: register.instances,
            delivery: register.delivery.into(),
            retry: register.retry.into(),
            health_check: register.health_check.into(),
            message_types: register.message_types,
            metadata: register.metadata,
            tags: register.tags,
            fresh_secret: register.fresh_secret,
            if_revision: register.if_revision,
        }
    }
}

impl From<&HealthChange> for HealthChangeV1 {
    fn from(change: &HealthChange) -> Self {
        Self {
            service: change.service.clone(),
            instance: change.instance.clone(),
            url: change.url.clone(),
            health: change.health.into(),
        }
    }
}

impl From<HealthChangeV1> for HealthChange {
    fn from(change: HealthChangeV1) -> Self {
        Self {
            service: change.service,
            instance: change.instance,
            url: change.url,
            health: change.health.into(),
        }
    }
}

impl codec::Command for Command {
    fn encode(&self) -> Envelope {
        match self {
            Self::Found { cluster } => Envelope::required(KIND_FOUND, 1, &FoundV1 { cluster: *cluster }),
            Self::Admit { node, incarnation, raft_addr, rest_url, version } => {
                let body = AdmitV1 {
                    node: *node,
                    incarnation: *incarnation,
                    raft_addr: raft_addr.clone(),
                    rest_url: rest_url.clone(),
                    version: version.clone(),
                };
                Envelope::required(KIND_ADMIT, 1, &body)
            }
            Self::Remove { node } => Envelope::required(KIND_REMOVE, 1, &RemoveV1 { node: *node }),
            Self::SetDraining { node, draining } => {
                let body = SetDrainingV1 { node: *node, draining: *draining };
                Envelope::required(KIND_SET_DRAINING, 1, &body)
            }
            Self::Register(registration) => {
                Envelope::required(KIND_REGISTER, 1, &RegisterV1::from(&**registration))
            }
            Self::Deregister { service } => {
                Envelope::required(KIND_DEREGISTER, 1, &DeregisterV1 { service: service.clone() })
            }
            Self::DeregisterInstance { service, instance } => {
                let body = DeregisterInstanceV1 { service: service.clone(), instance: instance.clone() };
                Envelope::required(KIND_DEREGISTER_INSTANCE, 1, &body)
            }
            Self::SetPaused { service, paused } => {
                let body = SetPausedV1 { service: service.clone(), paused: *paused };
                Envelope::required(KIND_SET_PAUSED, 1, &body)
            }
            Self::SetMaintenance { service, instance, maintenance } => {
                let (service, instance) = (service.clone(), instance.clone());
                let body = SetMaintenanceV1 { service, instance, maintenance: *maintenance };
                Envelope::required(KIND_SET_MAINTENANCE, 1, &body)
            }
            Self::SetHealth(changes) => {
                let changes = changes.iter().map(HealthChangeV1::from).collect();
                Envelope::required(KIND_SET_HEALTH, 1, &SetHealthV1 { changes })
            }
            Self::RotateSecret { service, secret } => {
                let body = RotateSecretV1 { service: service.clone(), secret: secret.clone() };
                Envelope::required(KIND_ROTATE_SECRET, 1, &body)
            }
            Self::Breaker(command) => breaker_command::encode(command),
        }
    }

    fn decode(envelope: Envelope) -> Result<Decoded<Self>, CodecError> {
        if envelope.version != 1 {
            return envelope.unknown();
        }
        let body = &envelope.body;
        Ok(Decoded::Value(match envelope.kind {
            KIND_FOUND => {
                let FoundV1 { cluster } = decode_body(body)?;
                Self::Found { cluster }
            }
            KIND_ADMIT => {
                let AdmitV1 { node, incarnation, raft_addr, rest_url, version } = decode_body(body)?;
                Self::Admit { node, incarnation, raft_addr, rest_url, version }
            }
            KIND_REMOVE => {
                let RemoveV1 { node } = decode_body(body)?;
                Self::Remove { node }
            }
            KIND_SET_DRAINING => {
                let SetDrainingV1 { node, draining } = decode_body(body)?;
                Self::SetDraining { node, draining }
            }
            KIND_REGISTER => Self::Register(Box::new(decode_body::<RegisterV1>(body)?.into())),
            KIND_DEREGISTER => {
                let DeregisterV1 { service } = decode_body(body)?;
                Self::Deregister { service }
            }
            KIND_DEREGISTER_INSTANCE => {
                let DeregisterInstanceV1 { service, instance } = decode_body(body)?;
                Self::DeregisterInstance { service, instance }
            }
            KIND_SET_PAUSED => {
                let SetPausedV1 { service, paused } = decode_body(body)?;
                Self::SetPaused { service, paused }
            }
            KIND_SET_MAINTENANCE => {
                let SetMaintenanceV1 { service, instance, maintenance } = decode_body(body)?;
                Self::SetMaintenance { service, instance, maintenance }
            }
            KIND_SET_HEALTH => {
                let SetHealthV1 { changes } = decode_body(body)?;
                Self::SetHealth(changes.into_iter().map(HealthChange::from).collect())
            }
            KIND_ROTATE_SECRET => {
                let RotateSecretV1 { service, secret } = decode_body(body)?;
                Self::RotateSecret { service, secret }
            }
            kind => match breaker_command::decode(kind, body)? {
                Some(command) => Self::Breaker(command),
                None => return envelope.unknown(),
            },
        }))
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Register(registration) => {
                let text = |text: &Option<Arc<str>>| text.as_deref().map_or(0, str::len);
                let instances: usize = registration.instances.iter().map(|(_, url, _)| 110 + url.len()).sum();
                let headers = registration.delivery.headers.iter();
                let headers: usize = headers.map(|(name, value)| 4 + name.len() + value.len()).sum();
                let lists = registration.message_types.iter().chain(&registration.tags);
                let lists: usize = lists.map(|item| 2 + item.len()).sum();
                512 + instances + headers + lists + text(&registration.metadata)
            }
            Self::SetHealth(changes) => {
                64 + changes.iter().map(|change| 210 + change.url.len()).sum::<usize>()
            }
            Self::Breaker(command) => breaker_command::size_hint(command),
            _ => 256,
        }
    }
}
