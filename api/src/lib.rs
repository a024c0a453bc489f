//! The HTTP interface.

pub mod auth;
mod edge;
mod extract;
mod fault;
pub mod health;
mod hub;
pub mod json;
mod metrics;
mod openapi;
mod options;
pub mod problem;
mod request_log;
mod router;
mod server;
pub mod v1;

pub use hub::{ControlGroup, ControlView, Hub, Ports, UrlPolicy};
pub use metrics::Metrics;
pub use openapi::document;
pub use options::{Options, Rates};
pub use router::router;
pub use server::{Leaving, Server, ServerOptions};
