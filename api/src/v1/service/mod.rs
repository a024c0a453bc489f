//! Services: registering, reading, operating.

mod change;
mod health_view;
mod input;
mod later;
mod list;
mod operate;
mod parse;
mod probe;
mod view;

pub use health_view::{HealthSummary, HealthSummaryPage, InstanceCheck, InstanceHealth, ServiceHealth};
pub use input::{
    DeliveryInput, HealthCheckInput, InstanceInput, MaintenanceInput, RegistrationInput, RetryInput,
};
pub use view::{
    BacklogView, DeliveryView, HealthCheckView, InstanceView, RegisteredView, RetryView, Route, RoutesView,
    SecretView, ServicePage, ServiceView, TestView,
};

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::hub::Hub;

/// The calls under `/services`.
pub(super) fn routes() -> OpenApiRouter<Arc<Hub>> {
    OpenApiRouter::new()
        .routes(routes!(change::register))
        .routes(routes!(list::list))
        .routes(routes!(list::health_of_all))
        .routes(routes!(later::watch))
        .routes(routes!(list::get, change::deregister))
        .routes(routes!(list::routes))
        .routes(routes!(list::health))
        .routes(routes!(list::backlog))
        .routes(routes!(operate::pause))
        .routes(routes!(operate::resume))
        .routes(routes!(operate::rotate_secret))
        .routes(routes!(probe::test))
        .routes(routes!(change::deregister_instance))
        .routes(routes!(operate::maintenance))
        .routes(routes!(later::heartbeat))
}
