//! Messages: sending them one by one or in batches, showing them, calling them back.

mod admit;
mod batch;
mod batch_body;
mod filter;
mod input;
mod rate;
mod read;
mod send;
mod view;

pub use input::{BatchInput, MessageInput};
pub use view::{AcceptedView, AttemptView, BatchItem, BatchView, CancelledView, MessagePage, MessageView};

pub(super) use filter::list_query;
pub(super) use read::{changeable, conflict, find, read_fault};
pub(super) use view::{id_view, page_answer};

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::hub::Hub;

/// The calls under `/messages`.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(send::send, read::list))
        .routes(routes!(batch::send_batch))
        .routes(routes!(read::get, read::cancel))
}
