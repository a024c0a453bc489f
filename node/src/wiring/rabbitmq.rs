//! RabbitMQ between the database that keeps the messages and the dispatcher of this node.

use std::sync::Arc;
use std::time::Duration;

use hub_core::control::State;
use hub_core::error::chain;
use hub_core::id::NodeId;
use hub_core::port::{Check, CheckStatus, DeliveryQueue};
use hub_storage::rabbitmq::admin::Admin;
use hub_storage::rabbitmq::{Broker, BuildError, Error, Options, Outlet, Ports, Rows};
use tokio::sync::watch;
use tracing::warn;

use super::base::{Base, metrics};
use crate::broker::{options, refused};
use crate::coded::CodedError;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};

/// How long the start looks whether the broker can be used. One that does not answer is waited for while the node runs.
const LOOK: Duration = Duration::from_secs(5);

const KIND: TaskKind = TaskKind {
    name: "rabbitmq",
    stage: Stage::Base,
    on_error: OnError::StopNode,
    on_cancel: OnCancel::Finish,
};

/// The way to the broker, if one is configured. The store is built with its outlet.
///
/// # Errors
/// The broker refuses this hub for good, with a code.
pub(super) async fn open(
    base: &Base,
    node: NodeId,
    state: &watch::Receiver<State>,
) -> Result<Option<Broker>, CodedError> {
    let Some(options) = options(&base.config) else { return Ok(None) };
    match tokio::time::timeout(LOOK, look(base, options.clone(), state)).await {
        Ok(Err(error)) if error.is_lasting() => return Err(refused(error)),
        Ok(Err(error)) => {
            warn!(reason = chain(&error), "the broker is waited for; messages are taken meanwhile")
        }
        Err(_) => warn!("the broker does not answer; messages are taken meanwhile"),
        Ok(Ok(())) => {}
    }
    let services = state.clone();
    let ports = Ports {
        node,
        clock: base.time(),
        ids: Arc::clone(&base.ids),
        metrics: base.registry.clone(),
        services: Arc::new(move || services.borrow().services.keys().cloned().collect()),
    };
    options.build(ports).map(Some).map_err(|error| match error {
        BuildError::Broker(error) => refused(error),
        BuildError::Metrics(error) => metrics(error),
    })
}

/// The user has the rights, and the queues of every service that is known can be declared.
async fn look(base: &Base, options: Options, state: &watch::Receiver<State>) -> Result<(), Error> {
    let services: Vec<_> = state.borrow().services.keys().cloned().collect();
    let mut admin = Admin::connect(options).await?;
    admin.try_rights(base.ids.request_id()).await?;
    for service in &services {
        admin.set_up(service).await?;
    }
    admin.close().await;
    Ok(())
}

/// The delivery queue over the broker and a store that was built with its outlet.
pub(super) fn attach<S: Rows + DeliveryQueue>(
    base: &Base,
    broker: Broker,
    store: &Arc<S>,
) -> Arc<dyn DeliveryQueue> {
    let (service, queue) = broker.attach(Arc::clone(store) as _, Arc::clone(store) as _);
    let drain = base.tasks.tokens(Stage::Work).soft;
    base.tasks.once(KIND, |tokens| async move {
        Box::pin(service.run(drain, tokens.soft)).await;
        Ok(())
    });
    Arc::new(queue)
}

/// What readiness says of the broker. Without it messages are taken, and delivered when it is back.
pub(super) fn check(outlet: &Outlet) -> Check {
    let (status, detail) = if outlet.is_connected() {
        (CheckStatus::Ok, "RabbitMQ answers")
    } else {
        (CheckStatus::Degraded, "RabbitMQ does not answer: messages are taken, and delivered when it does")
    };
    Check { name: "broker", status, detail: detail.to_owned() }
}
