//! What clients send about services, as the document describes it. The fields are read one by one (see `parse`), so that
//! every mistake is reported; these types are for the document and for clients written in Rust.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A service to register, or to update. `{"name", "url"}` is enough.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({"name": "inventory", "url": "http://10.0.0.5:9000"}))]
pub struct RegistrationInput {
    /// Its unique name.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-z0-9][a-z0-9._-]*$")]
    pub name: String,
    /// Short for one instance with this URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its own version, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its running copies; those not named here stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub instances: Vec<InstanceInput>,
    /// How messages are pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryInput>,
    /// How failed deliveries are repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryInput>,
    /// How instances are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckInput>,
    /// The message types it takes; all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub message_types: Vec<String>,
    /// For people and tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// For filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub tags: Vec<String>,
}

/// A running copy of a service.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct InstanceInput {
    /// Unique within the service; made from the URL when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Base URL: `http` or `https`, without credentials, query or fragment.
    #[schema(example = "http://10.0.0.5:9000")]
    pub url: String,
    /// Share of the deliveries; default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub weight: Option<u16>,
}

/// How messages are pushed.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct DeliveryInput {
    /// `push`, the only one in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^push$")]
    pub mode: Option<String>,
    /// Appended to the instance's URL; default `/messages`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Milliseconds until an attempt counts as unanswered; default 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 300_000)]
    pub timeout_ms: Option<u32>,
    /// Attempts at a time; default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 200)]
    pub max_concurrency: Option<u16>,
    /// Further headers for every delivery.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    pub headers: BTreeMap<String, String>,
    /// Seconds after which an undelivered message becomes a dead letter; default 7 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_age_s: Option<u32>,
}

/// How failed deliveries are repeated: `uniform(0, min(cap, base·2^n))`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RetryInput {
    /// First step in milliseconds; default 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub base_ms: Option<u32>,
    /// Longest step in milliseconds; default 1 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub cap_ms: Option<u32>,
    /// Retries after the first attempt; default `MAX_RETRIES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub max_retries: Option<u8>,
    /// Further status codes (300 to 499) that are retried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub retry_on: Vec<u16>,
}

/// How instances are checked.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct HealthCheckInput {
    /// `http` or `none`; default `http` when anything else is given here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(http|none)$")]
    pub kind: Option<String>,
    /// Path for `http`; default `/health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Seconds between checks; default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 3600)]
    pub interval_s: Option<u32>,
    /// Seconds until a check counts as failed; default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 60)]
    pub timeout_s: Option<u32>,
    /// Good results in a row until passing; default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub healthy: Option<u8>,
    /// Bad results in a row until critical; default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub unhealthy: Option<u8>,
}

/// Whether an instance is under maintenance.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(example = json!({"maintenance": true}))]
pub struct MaintenanceInput {
    /// True: no deliveries, whatever the checks say.
    pub maintenance: bool,
}
