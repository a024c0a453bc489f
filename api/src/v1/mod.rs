//! Version 1 of the interface, under `/api/v1`.

pub mod cluster;
pub(crate) mod control;
pub mod dead_letter;
pub mod message;
pub mod service;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::hub::Hub;

/// The prefix of every path of this version.
pub(crate) const PREFIX: &str = "/api/v1";

/// All calls with their documentation.
pub(crate) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .merge(message::routes())
        .merge(dead_letter::routes())
        .merge(service::routes())
        .merge(cluster::routes())
}
