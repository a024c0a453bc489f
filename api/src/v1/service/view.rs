//! Services as they are shown. Secrets are not part of any of these but the two answers that made one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hub_core::id::ServiceName;
use hub_core::port::Backlog;
use hub_core::registry::{CheckKind, Instance, Service};
use hub_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::health_view::{HealthView, ServiceStatus};
use crate::v1::message::AttemptView;

/// A service.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceView {
    /// Its unique name.
    #[schema(example = "inventory")]
    pub name: String,
    /// Its own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it fares: the best that its instances allow.
    pub status: ServiceStatus,
    /// Deliveries are paused.
    pub paused: bool,
    /// So few instances look healthy that all are used: the fault may be ours.
    pub protected: bool,
    /// Its running copies.
    pub instances: Vec<InstanceView>,
    /// How messages are pushed.
    pub delivery: DeliveryView,
    /// How failed deliveries are repeated.
    pub retry: RetryView,
    /// How instances are checked.
    pub health_check: HealthCheckView,
    /// The message types it takes; all if empty.
    pub message_types: Vec<String>,
    /// For people and tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Box<RawValue>>,
    /// For filters.
    pub tags: Vec<String>,
    /// Log index of its last change; also as `ETag`.
    pub revision: u64,
    /// When it was registered first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was changed last (health not counted).
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A running copy of a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceView {
    /// Unique within the service.
    pub id: String,
    /// Base URL.
    pub url: String,
    /// Share of the deliveries.
    pub weight: u16,
    /// What the checks say.
    pub health: HealthView,
    /// Taken out by an operator.
    pub maintenance: bool,
    /// When `health` changed last.
    #[schema(value_type = String, format = DateTime)]
    pub health_since: Timestamp,
    /// When it was registered first.
    #[schema(value_type = String, format = DateTime)]
    pub registered_at: Timestamp,
}

impl From<&Instance> for InstanceView {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.to_string(),
            url: instance.url.to_string(),
            weight: instance.weight,
            health: instance.health.into(),
            maintenance: instance.maintenance,
            health_since: instance.health_since,
            registered_at: instance.registered_at,
        }
    }
}

/// How messages are pushed.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryView {
    /// Always `push` in this version.
    #[schema(value_type = String)]
    pub mode: &'static str,
    /// Appended to the instance's URL.
    pub path: String,
    /// Milliseconds until an attempt counts as unanswered.
    pub timeout_ms: u32,
    /// Attempts at a time.
    pub max_concurrency: u16,
    /// Further headers for every delivery.
    pub headers: BTreeMap<String, String>,
    /// Seconds after which an undelivered message becomes a dead letter; the hub's setting if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
}

/// How failed deliveries are repeated.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetryView {
    /// First step in milliseconds.
    pub base_ms: u32,
    /// Longest step in milliseconds.
    pub cap_ms: u32,
    /// Retries after the first attempt; the hub's setting if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u8>,
    /// Further status codes that are retried.
    pub retry_on: Vec<u16>,
}

/// How instances are checked.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthCheckView {
    /// `http` or `none`.
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// Path for `http`.
    pub path: String,
    /// Seconds between checks.
    pub interval_s: u32,
    /// Seconds until a check counts as failed.
    pub timeout_s: u32,
    /// Good results in a row until passing.
    pub healthy: u8,
    /// Bad results in a row until critical.
    pub unhealthy: u8,
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        let (delivery, retry, check) = (&service.delivery, &service.retry, &service.health_check);
        let pair = |(name, value): &(Arc<str>, Arc<str>)| (name.to_string(), value.to_string());
        Self {
            name: service.name.to_string(),
            version: service.version.as_deref().map(str::to_owned),
            status: ServiceStatus::of(service),
            paused: service.paused,
            protected: service.is_protected(),
            instances: service.instances.values().map(InstanceView::from).collect(),
            delivery: DeliveryView {
                mode: "push",
                path: delivery.path.to_string(),
                timeout_ms: delivery.timeout_ms,
                max_concurrency: delivery.max_concurrency,
                headers: delivery.headers.iter().map(pair).collect(),
                max_age_s: delivery.max_age_s,
            },
            retry: RetryView {
                base_ms: retry.base_ms,
                cap_ms: retry.cap_ms,
                max_retries: retry.max_retries,
                retry_on: retry.retry_on.clone(),
            },
            health_check: HealthCheckView {
                kind: if check.kind == CheckKind::Http { "http" } else { "none" },
                path: check.path.to_string(),
                interval_s: check.interval_s,
                timeout_s: check.timeout_s,
                healthy: check.healthy,
                unhealthy: check.unhealthy,
            },
            message_types: service.message_types.iter().map(ToString::to_string).collect(),
            metadata: service.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            tags: service.tags.iter().map(ToString::to_string).collect(),
            revision: service.revision,
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

/// A service that was registered or updated.
#[derive(Debug, Serialize, ToSchema)]
pub struct RegisteredView {
    /// The service as it is now.
    pub service: ServiceView,
    /// Its revision, for `If-Match`.
    pub revision: u64,
    /// Signs its deliveries (Standard Webhooks). Shown only in this answer, and only if the service is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<Arc<str>>,
}

/// A page of services, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServicePage {
    /// The services.
    pub items: Vec<ServiceView>,
    /// Where the next page starts; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A new signing secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct SecretView {
    /// The secret. Shown only in this answer.
    #[schema(value_type = String, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Arc<str>,
    /// Until when the ones before sign too; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub previous_valid_until: Option<Timestamp>,
    /// The service's revision.
    pub revision: u64,
}

/// The instances that may be called.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoutesView {
    /// The service.
    pub service: String,
    /// So few instances look healthy that all are shown.
    pub protected: bool,
    /// Where to call it.
    pub instances: Vec<Route>,
}

/// Where to call a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Route {
    /// The instance.
    pub id: String,
    /// Its base URL.
    pub url: String,
    /// Its share of the calls.
    pub weight: u16,
    /// What the checks say.
    pub health: HealthView,
}

impl From<&Service> for RoutesView {
    fn from(service: &Service) -> Self {
        let route = |instance: &Instance| Route {
            id: instance.id.to_string(),
            url: instance.url.to_string(),
            weight: instance.weight,
            health: instance.health.into(),
        };
        Self {
            service: service.name.to_string(),
            protected: service.is_protected(),
            instances: service.deliverable().map(route).collect(),
        }
    }
}

/// What waits for a service, from counters.
#[derive(Debug, Serialize, ToSchema)]
pub struct BacklogView {
    /// The service.
    pub service: String,
    /// Open messages: waiting, retrying or being delivered.
    pub depth: u64,
    /// Of them being delivered.
    pub in_flight: u64,
    /// When the oldest open one was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest: Option<Timestamp>,
    /// Age of the oldest open one in seconds; 0 if there is none.
    pub oldest_age_s: f64,
    /// Accepted since the store was made.
    pub accepted_total: u64,
    /// Delivered since the store was made.
    pub delivered_total: u64,
    /// Dead letters now.
    pub dead_letters: u64,
}

impl BacklogView {
    /// The backlog of `service` at `now`.
    #[must_use]
    pub fn new(service: &ServiceName, backlog: &Backlog, now: Timestamp) -> Self {
        let age = backlog.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
        Self {
            service: service.to_string(),
            depth: backlog.depth,
            in_flight: backlog.in_flight,
            oldest: backlog.oldest,
            oldest_age_s: age.as_secs_f64(),
            accepted_total: backlog.accepted_total,
            delivered_total: backlog.delivered_total,
            dead_letters: backlog.dead_letters,
        }
    }
}

/// What became of a test message.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestView {
    /// The test message.
    pub message_id: String,
    /// Its state when the wait ended.
    #[schema(example = "delivered")]
    pub status: String,
    /// The attempt; absent when none was made, because deliveries are paused or no instance can take them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptView>,
    /// Why there was no attempt, or what was wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
