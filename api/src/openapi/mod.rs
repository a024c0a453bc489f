//! The OpenAPI document: made from the handlers, so that it says what they do.

mod problems;

use std::sync::Arc;

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use crate::hub::Hub;
use crate::{health, problem, v1};

/// What stands around the calls.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Message Hub",
        description = "Carries messages between services, knows which services exist, and how they fare.\n\nEvery answer \
                       that is not 2xx is a problem (RFC 9457) with a stable code `HUB-nnnn`; `message-hub explain \
                       HUB-nnnn` says cause and cure. Any node answers any call.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(problem::Body, problem::FieldProblem)),
    tags(
        (name = "messages", description = "Send messages and see what became of them."),
        (name = "dead letters", description = "Messages that were given up."),
        (name = "services", description = "Who can get messages, and where."),
        (name = "cluster", description = "The nodes, and steering them."),
        (name = "health", description = "How this node is."),
    ),
)]
struct Document;

/// All calls with their documentation.
pub(crate) fn routes() -> OpenApiRouter<Arc<Hub>> {
    let mut document = Document::openapi();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("A JWT; `message-hub token` makes one."))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(scheme));
    OpenApiRouter::with_openapi(document).merge(health::routes()).nest(v1::PREFIX, v1::routes())
}

/// The document of this version as JSON (OpenAPI 3.1).
#[must_use]
pub fn document(version: &str) -> String {
    let mut document = routes().into_openapi();
    let without_terms = problems::complete(&mut document);
    debug_assert!(without_terms.is_empty(), "{without_terms:?}");
    version.clone_into(&mut document.info.version);
    document.to_pretty_json().unwrap_or_default()
}
