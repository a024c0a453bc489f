//! The router: every call, its document, and the layer around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::edge::edge;
use crate::extract::Caller;
use crate::hub::Hub;
use crate::openapi;
use crate::problem::Problem;

const DOCUMENT: &str = "/openapi.json";

/// Everything the interface serves.
pub fn router(hub: Arc<Hub>) -> Router {
    let (calls, _) = openapi::routes().split_for_parts();
    let mut router = calls.route(DOCUMENT, get(document));
    // The page asks for the document without a token, so it is only there when the document is open.
    if hub.options.open_docs {
        router = router.merge(SwaggerUi::new("/docs").config(Config::new([DOCUMENT])));
    }
    router
        .fallback(|| async { StatusCode::NOT_FOUND })
        .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
        .layer(from_fn_with_state(Arc::clone(&hub), edge))
        .with_state(hub)
}

async fn document(State(hub): State<Arc<Hub>>, parts: Parts) -> Result<Response, Problem> {
    if !hub.options.open_docs {
        Caller::of(&parts, &hub)?;
    }
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], hub.openapi.clone()).into_response())
}
