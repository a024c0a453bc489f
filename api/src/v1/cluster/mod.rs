//! The cluster: what it is, whether a node can go, and handing over.

mod input;
mod operate;
mod read;
mod view;

pub use input::{DrainInput, TransferInput};
pub use view::{ClusterView, DrainView, GroupView, GroupsView, NodeView, QuorumView, TransferView};

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::hub::Hub;

/// The calls under `/cluster`.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(read::status))
        .routes(routes!(read::quorum))
        .routes(routes!(operate::drain))
        .routes(routes!(operate::undrain))
        .routes(routes!(operate::transfer))
        .routes(routes!(operate::remove))
}
