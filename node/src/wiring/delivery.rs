//! The workers of delivery: dispatcher, health checker, sweeper, over the one way out.

use std::sync::Arc;

use hub_core::control::{Command, Reply, State};
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{ClusterControl, DeliveryQueue, HealthReports, MessageStore, Replicator};
use tokio::sync::watch;

use super::base::{Base, metrics};
use super::targets::Targets;
use crate::coded::CodedError;
use crate::control_port::Seen;
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};
use crate::outbound::{self, Guard, Outbound, SystemResolver};
use crate::worker::{delivery, health_checker, sweeper};

const fn kind(name: &'static str) -> TaskKind {
    TaskKind { name, stage: Stage::Work, on_error: OnError::StopNode, on_cancel: OnCancel::Finish }
}

/// What the workers work on.
pub struct Ports {
    /// This node.
    pub node: NodeId,
    /// The control state.
    pub state: watch::Receiver<State>,
    /// Where changes of health are told.
    pub control: Arc<dyn Replicator<Command, Reply>>,
    /// Which nodes are live.
    pub cluster: Arc<dyn ClusterControl>,
    /// The messages.
    pub store: Arc<dyn MessageStore>,
    /// Who leads them, where a group keeps them.
    pub leadership: Option<watch::Receiver<Seen>>,
    /// What is to be delivered.
    pub queue: Arc<dyn DeliveryQueue>,
    /// Which addresses are called.
    pub targets: Targets,
}

/// The settings of delivery.
#[must_use]
pub fn options(base: &Base) -> delivery::Options {
    let settings = &base.config.delivery;
    delivery::Options { slots: settings.slots, max_retries: settings.max_retries, ..Default::default() }
}

/// Starts the workers; what shows the results of health checks.
///
/// # Errors
/// The way out cannot be set up.
pub fn start(
    base: &Base,
    handle: &delivery::Handle,
    ports: Ports,
) -> Result<Arc<dyn HealthReports>, CodedError> {
    let outbound = outbound(base, Arc::new(ports.targets.clone()))?;
    let dispatcher = options(base)
        .build(
            handle,
            delivery::Ports {
                queue: ports.queue,
                outbound: outbound.clone(),
                ids: Arc::clone(&base.ids),
                node: ports.node,
                metrics: base.registry.clone(),
            },
        )
        .map_err(|error| CodedError::new(code::INTERNAL, "delivery cannot be set up").because(error))?;
    let checker = health_checker::Options { concurrency: base.config.delivery.health_checks };
    let (checker, reports) = checker
        .build(health_checker::Ports {
            registry: ports.state.clone(),
            control: ports.control,
            cluster: ports.cluster,
            outbound,
            clock: base.time(),
            ids: Arc::clone(&base.ids),
            metrics: base.registry.clone(),
        })
        .map_err(metrics)?;
    let sweeper = sweeper::Options { retention: base.config.messages.retention, ..Default::default() }
        .build(sweeper::Ports {
            store: ports.store,
            leadership: ports.leadership,
            registry: ports.state,
            clock: base.time(),
            metrics: base.registry.clone(),
        })
        .map_err(metrics)?;
    base.tasks.once(kind("delivery"), |tokens| async move {
        dispatcher.run(tokens).await;
        Ok(())
    });
    base.tasks.once(kind("health_checks"), |tokens| async move {
        checker.run(tokens).await;
        Ok(())
    });
    base.tasks.once(kind("sweeper"), |tokens| async move {
        sweeper.run(tokens).await;
        Ok(())
    });
    Ok(Arc::new(reports))
}

/// The one way out, to what `guard` permits.
///
/// # Errors
/// The certificate authorities cannot be used.
pub fn outbound(base: &Base, guard: Arc<dyn Guard>) -> Result<Outbound, CodedError> {
    let limit = base.config.delivery.connect_timeout.as_millis();
    let options = outbound::Options {
        connect_timeout_ms: u32::try_from(limit).unwrap_or(u32::MAX),
        ca_file: base.config.delivery.ca_file.clone(),
        ..outbound::Options::default()
    };
    options
        .build(guard, Arc::new(SystemResolver))
        .map_err(|error| CodedError::new(code::CONFIG, "the outgoing client cannot be set up").because(error))
}
