//! The service registry: which services exist, where their instances live, and how they are.

mod address;
mod assignment;
mod check;
mod health;
mod instance;
mod service;
mod url;

pub use address::{AddressPolicy, Refused};
pub use assignment::checker_of;
pub use check::{
    MAX_INSTANCES, MAX_METADATA_BYTES, MAX_SERVICES, check_registration, check_secret, is_short_text,
};
pub use health::{CheckKind, Health, HealthCheck, HealthTracker};
pub use instance::Instance;
pub use service::{DeliverySettings, Secret, Service};
pub use url::{Host, MAX_URL, TargetUrl, UrlError};
