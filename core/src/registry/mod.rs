//! The service registry: which services exist, where their instances live, and how they are.

mod health;
mod instance;
mod service;

pub use health::{CheckKind, Health, HealthCheck, HealthTracker};
pub use instance::Instance;
pub use service::{DeliverySettings, Secret, Service};
