//! The REST interface over the parts of a node.

use std::sync::Arc;

use hub_api::auth::Access;
use hub_api::{ControlView, Hub, Leaving, Options, Ports, Server, ServerOptions, router};
use hub_core::control::{Command, Reply, State};
use hub_core::message::Limits;
use hub_core::port::{ClusterControl, HealthReports, MessageStore, Replicator, SharedCache};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::base::{Base, metrics};
use super::cache;
use super::targets::Targets;
use crate::coded::CodedError;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};

const KIND: TaskKind =
    TaskKind { name: "rest", stage: Stage::Serve, on_error: OnError::StopNode, on_cancel: OnCancel::Finish };

/// What the interface shows and steers.
pub struct Parts {
    /// The messages.
    pub store: Arc<dyn MessageStore>,
    /// What the nodes share besides.
    pub cache: Arc<dyn SharedCache>,
    /// Where control commands are proposed.
    pub control: Arc<dyn Replicator<Command, Reply>>,
    /// The control state.
    pub state: watch::Receiver<State>,
    /// The cluster.
    pub cluster: Arc<dyn ClusterControl>,
    /// What health checks saw.
    pub health: Arc<dyn HealthReports>,
    /// Which URLs may be registered.
    pub targets: Targets,
    /// How callers are known.
    pub access: Access,
}

/// Serves from now on; what tells clients to go elsewhere before the end.
///
/// # Errors
/// The metrics cannot be registered.
pub fn start(base: &Base, parts: Parts, listener: TcpListener) -> Result<Leaving, CodedError> {
    let state = parts.state;
    let view: ControlView = Arc::new(move || state.borrow().clone());
    let targets = parts.targets;
    let hub = Hub::new(Ports {
        store: parts.store,
        cache: parts.cache,
        control: parts.control,
        view,
        cluster: parts.cluster,
        health: parts.health,
        clock: base.time(),
        ids: Arc::clone(&base.ids),
        urls: Arc::new(move |url| targets.check_url(url)),
        access: parts.access,
        registry: base.registry.clone(),
        options: options(base),
    })
    .map_err(metrics)?;
    let metrics = hub.metrics();
    let server = Server::new(router(hub), server_options(base), base.time(), metrics, TaskTracker::new());
    let leaving = server.leaving();
    base.tasks.once(KIND, |tokens| async move {
        server.run(listener, tokens.soft, tokens.hard).await;
        Ok(())
    });
    Ok(leaving)
}

fn options(base: &Base) -> Options {
    let config = &base.config;
    let max_content_bytes = usize::try_from(config.messages.max_content_bytes.0).unwrap_or(usize::MAX);
    Options {
        limits: Limits { max_content_bytes, ..Limits::default() },
        rates: cache::rates(&config.limits),
        max_age: config.messages.max_age,
        retention: config.messages.retention,
        deadline: config.rest.request_timeout,
        body_timeout: config.rest.body_timeout,
        max_in_flight: config.rest.max_in_flight,
        open_metrics: config.rest.open_metrics,
        open_docs: config.rest.open_docs,
        log_requests: config.log.requests,
        ..Options::default()
    }
}

fn server_options(base: &Base) -> ServerOptions {
    ServerOptions {
        max_connections: base.config.rest.max_connections,
        header_timeout: base.config.rest.header_timeout,
        drain_limit: base.config.node.drain_limit,
        ..ServerOptions::default()
    }
}
