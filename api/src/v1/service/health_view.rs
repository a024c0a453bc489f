//! How services and instances fare, as it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use hub_core::id::InstanceId;
use hub_core::port::{CheckReport, CheckResult};
use hub_core::registry::{Health, Instance, Service};
use hub_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// How a service fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceStatus {
    /// Every instance that is not under maintenance passes.
    Passing,
    /// Some instance is busy or critical, but not all are critical.
    Warning,
    /// No instance can take deliveries.
    Critical,
    /// All instances are under maintenance.
    Maintenance,
}

impl ServiceStatus {
    /// From the instances.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let standing = || service.instances.values().filter(|instance| !instance.maintenance);
        if service.instances.is_empty() {
            return Self::Critical;
        }
        if standing().next().is_none() {
            return Self::Maintenance;
        }
        if standing().all(|instance| instance.health == Health::Passing) {
            return Self::Passing;
        }
        if standing().all(|instance| instance.health == Health::Critical) {
            Self::Critical
        } else {
            Self::Warning
        }
    }

    /// From its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            "maintenance" => Some(Self::Maintenance),
            _ => None,
        }
    }
}

/// How an instance fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthView {
    /// It answers.
    Passing,
    /// It answers that it is busy.
    Warning,
    /// It does not answer, or not well.
    Critical,
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => Self::Passing,
            Health::Warning => Self::Warning,
            Health::Critical => Self::Critical,
        }
    }
}

/// How a service and each of its instances fare.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// The service.
    pub service: String,
    /// How it fares.
    pub status: ServiceStatus,
    /// So few instances look healthy that all are used.
    pub protected: bool,
    /// Each instance.
    pub instances: Vec<InstanceHealth>,
}

/// How an instance fares.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceHealth {
    /// The instance.
    pub id: String,
    /// Its base URL.
    pub url: String,
    /// What the checks say.
    pub health: HealthView,
    /// Taken out by an operator.
    pub maintenance: bool,
    /// When `health` changed last.
    #[schema(value_type = String, format = DateTime)]
    pub health_since: Timestamp,
    /// The node that checks it; absent when the service has no check, or while no node does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_by: Option<u64>,
    /// The last check, if the node that answers has made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check: Option<InstanceCheck>,
}

/// One check of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceCheck {
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
    /// What it says by itself, before thresholds; absent when it failed by the hub's own fault and says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<HealthView>,
    /// The status code, or why there was none.
    #[schema(value_type = String, example = "answered 200")]
    pub detail: Arc<str>,
}

impl From<&CheckResult> for InstanceCheck {
    fn from(result: &CheckResult) -> Self {
        Self {
            at: result.at,
            took_ms: result.took_ms,
            result: result.seen.map(HealthView::from),
            detail: Arc::clone(&result.detail),
        }
    }
}

impl ServiceHealth {
    /// The service with what is known of its checks.
    #[must_use]
    pub fn new(service: &Service, reports: &BTreeMap<InstanceId, CheckReport>) -> Self {
        let health = |instance: &Instance| {
            let report = reports.get(&instance.id);
            InstanceHealth {
                id: instance.id.to_string(),
                url: instance.url.to_string(),
                health: instance.health.into(),
                maintenance: instance.maintenance,
                health_since: instance.health_since,
                checked_by: report.and_then(|report| report.checked_by).map(|node| node.0),
                last_check: report.and_then(|report| report.last.as_ref()).map(InstanceCheck::from),
            }
        };
        Self {
            service: service.name.to_string(),
            status: ServiceStatus::of(service),
            protected: service.is_protected(),
            instances: service.instances.values().map(health).collect(),
        }
    }
}

/// How one service fares, in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthSummary {
    /// The service.
    pub service: String,
    /// How it fares.
    pub status: ServiceStatus,
    /// Instances that may get deliveries.
    pub available: usize,
    /// All instances.
    pub total: usize,
}

impl From<&Service> for HealthSummary {
    fn from(service: &Service) -> Self {
        Self {
            service: service.name.to_string(),
            status: ServiceStatus::of(service),
            available: service.deliverable().count(),
            total: service.instances.len(),
        }
    }
}

/// How the services fare, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthSummaryPage {
    /// Each service.
    pub items: Vec<HealthSummary>,
    /// Where the next page starts; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}
