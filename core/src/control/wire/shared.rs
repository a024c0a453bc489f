//! Frozen shapes that several kinds share.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::control::Member;
use crate::delivery::RetryPolicy;
use crate::id::{InstanceId, NodeId, ServiceName};
use crate::registry::{CheckKind, DeliverySettings, Health, HealthCheck, Instance, Secret, Service};
use crate::time::Timestamp;

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) enum HealthV1 {
    Passing,
    Warning,
    Critical,
}

impl From<Health> for HealthV1 {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => Self::Passing,
            Health::Warning => Self::Warning,
            Health::Critical => Self::Critical,
        }
    }
}

impl From<HealthV1> for Health {
    fn from(health: HealthV1) -> Self {
        match health {
            HealthV1::Passing => Self::Passing,
            HealthV1::Warning => Self::Warning,
            HealthV1::Critical => Self::Critical,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum CheckKindV1 {
    Http,
    None,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HealthCheckV1 {
    kind: CheckKindV1,
    path: Arc<str>,
    interval_s: u32,
    timeout_s: u32,
    healthy: u8,
    unhealthy: u8,
}

impl From<&HealthCheck> for HealthCheckV1 {
    fn from(check: &HealthCheck) -> Self {
        let kind = match check.kind {
            CheckKind::Http => CheckKindV1::Http,
            CheckKind::None => CheckKindV1::None,
        };
        Self {
            kind,
            path: check.path.clone(),
            interval_s: check.interval_s,
            timeout_s: check.timeout_s,
            healthy: check.healthy,
            unhealthy: check.unhealthy,
        }
    }
}

impl From<HealthCheckV1> for HealthCheck {
    fn from(check: HealthCheckV1) -> Self {
        let kind = match check.kind {
            CheckKindV1::Http => CheckKind::Http,
            CheckKindV1::None => CheckKind::None,
        };
        Self {
            kind,
            path: check.path,
            interval_s: check.interval_s,
            timeout_s: check.timeout_s,
            healthy: check.healthy,
            unhealthy: check.unhealthy,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct DeliveryV1 {
    path: Arc<str>,
    timeout_ms: u32,
    max_concurrency: u16,
    headers: Vec<(Arc<str>, Arc<str>)>,
    max_age_s: Option<u32>,
}

impl From<&DeliverySettings> for DeliveryV1 {
    fn from(delivery: &DeliverySettings) -> Self {
        Self {
            path: delivery.path.clone(),
            timeout_ms: delivery.timeout_ms,
            max_concurrency: delivery.max_concurrency,
            headers: delivery.headers.clone(),
            max_age_s: delivery.max_age_s,
        }
    }
}

impl From<DeliveryV1> for DeliverySettings {
    fn from(delivery: DeliveryV1) -> Self {
        Self {
            path: delivery.path,
            timeout_ms: delivery.timeout_ms,
            max_concurrency: delivery.max_concurrency,
            headers: delivery.headers,
            max_age_s: delivery.max_age_s,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct RetryV1 {
    base_ms: u32,
    cap_ms: u32,
    max_retries: Option<u8>,
    retry_on: Vec<u16>,
}

impl From<&RetryPolicy> for RetryV1 {
    fn from(retry: &RetryPolicy) -> Self {
        Self {
            base_ms: retry.base_ms,
            cap_ms: retry.cap_ms,
            max_retries: retry.max_retries,
            retry_on: retry.retry_on.clone(),
        }
    }
}

impl From<RetryV1> for RetryPolicy {
    fn from(retry: RetryV1) -> Self {
        Self {
            base_ms: retry.base_ms,
            cap_ms: retry.cap_ms,
            max_retries: retry.max_retries,
            retry_on: retry.retry_on,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct InstanceV1 {
    id: InstanceId,
    url: Arc<str>,
    weight: u16,
    health: HealthV1,
    maintenance: bool,
    health_since: Timestamp,
    registered_at: Timestamp,
}

impl From<&Instance> for InstanceV1 {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            url: instance.url.clone(),
            weight: instance.weight,
            health: instance.health.into(),
            maintenance: instance.maintenance,
            health_since: instance.health_since,
            registered_at: instance.registered_at,
        }
    }
}

impl From<InstanceV1> for Instance {
    fn from(instance: InstanceV1) -> Self {
        Self {
            id: instance.id,
            url: instance.url,
            weight: instance.weight,
            health: instance.health.into(),
            maintenance: instance.maintenance,
            health_since: instance.health_since,
            registered_at: instance.registered_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SecretV1 {
    value: Arc<str>,
    created_at: Timestamp,
    valid_until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ServiceV1 {
    name: ServiceName,
    version: Option<Arc<str>>,
    instances: Vec<InstanceV1>,
    delivery: DeliveryV1,
    retry: RetryV1,
    health_check: HealthCheckV1,
    message_types: Vec<Arc<str>>,
    metadata: Option<Arc<str>>,
    tags: Vec<Arc<str>>,
    paused: bool,
    secrets: Vec<SecretV1>,
    revision: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Service> for ServiceV1 {
    fn from(service: &Service) -> Self {
        let secret = |secret: &Secret| SecretV1 {
            value: secret.value.clone(),
            created_at: secret.created_at,
            valid_until: secret.valid_until,
        };
        Self {
            name: service.name.clone(),
            version: service.version.clone(),
            instances: service.instances.values().map(InstanceV1::from).collect(),
            delivery: (&service.delivery).into(),
            retry: (&service.retry).into(),
            health_check: (&service.health_check).into(),
            message_types: service.message_types.clone(),
            metadata: service.metadata.clone(),
            tags: service.tags.clone(),
            paused: service.paused,
            secrets: service.secrets.iter().map(secret).collect(),
            revision: service.revision,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

impl From<ServiceV1> for Service {
    fn from(service: ServiceV1) -> Self {
        let secret = |secret: SecretV1| Secret {
            value: secret.value,
            created_at: secret.created_at,
            valid_until: secret.valid_until,
        };
        let instances = service.instances.into_iter().map(Instance::from);
        Self {
            name: service.name,
            version: service.version,
            instances: instances.map(|instance| (instance.id.clone(), instance)).collect(),
            delivery: service.delivery.into(),
            retry: service.retry.into(),
            health_check: service.health_check.into(),
            message_types: service.message_types,
            metadata: service.metadata,
            tags: service.tags,
            paused: service.paused,
            secrets: service.secrets.into_iter().map(secret).collect(),
            revision: service.revision,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct MemberV1 {
    id: NodeId,
    incarnation: u128,
    raft_addr: Arc<str>,
    rest_url: Arc<str>,
    version: Arc<str>,
    draining: bool,
    joined_at: Timestamp,
}

impl From<&Member> for MemberV1 {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id,
            incarnation: member.incarnation,
            raft_addr: member.raft_addr.clone(),
            rest_url: member.rest_url.clone(),
            version: member.version.clone(),
            draining: member.draining,
            joined_at: member.joined_at,
        }
    }
}

impl From<MemberV1> for Member {
    fn from(member: MemberV1) -> Self {
        Self {
            id: member.id,
            incarnation: member.incarnation,
            raft_addr: member.raft_addr,
            rest_url: member.rest_url,
            version: member.version,
            draining: member.draining,
            joined_at: member.joined_at,
        }
    }
}
