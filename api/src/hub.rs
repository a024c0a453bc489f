//! What the handlers work with: the ports, the settings, and the few counters of this process.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hub_core::control::{self, State};
use hub_core::id::{RequestId, ServiceName};
use hub_core::port::{
    Clock, ClusterControl, Committed, HealthReports, IdSource, MessageStore, ProposeError, ReadError,
    Replicator, SharedCache, StoreError, Submitted,
};
use hub_core::registry::Service;
use prometheus::Registry;

use crate::auth::Access;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::request_log::RequestLog;

/// The control group, as the interface proposes to it and waits for it.
pub type ControlGroup = Arc<dyn Replicator<control::Command, control::Reply>>;

/// The control state that this node has applied: a cheap clone.
pub type ControlView = Arc<dyn Fn() -> State + Send + Sync>;

/// Whether a service's URL may be called: `Err` says why not, for people. Checked before it is proposed, and again by
/// the connector at every call.
pub type UrlPolicy = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// How much longer than its deadline a port is waited for, before its outcome is called unknown.
const PORT_GRACE: Duration = Duration::from_millis(500);

/// The ports and settings of the interface.
pub struct Ports {
    /// Accepts, keeps and shows messages.
    pub store: Arc<dyn MessageStore>,
    /// Counts rates, and keeps what has come to its end.
    pub cache: Arc<dyn SharedCache>,
    /// Takes control commands.
    pub control: ControlGroup,
    /// Shows the control state.
    pub view: ControlView,
    /// Shows and steers the cluster.
    pub cluster: Arc<dyn ClusterControl>,
    /// Who checks which instance, and the last results of this node's own checks.
    pub health: Arc<dyn HealthReports>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and chance.
    pub ids: Arc<dyn IdSource>,
    /// Which addresses may be registered.
    pub urls: UrlPolicy,
    /// How callers are known.
    pub access: Access,
    /// Where metrics are registered, and what `/metrics` shows.
    pub registry: Registry,
    /// Limits and switches.
    pub options: Options,
}

/// The state behind every handler.
pub struct Hub {
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) cache: Arc<dyn SharedCache>,
    pub(crate) control: ControlGroup,
    pub(crate) view: ControlView,
    pub(crate) cluster: Arc<dyn ClusterControl>,
    pub(crate) health: Arc<dyn HealthReports>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) urls: UrlPolicy,
    pub(crate) access: Access,
    pub(crate) registry: Registry,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) request_log: RequestLog,
    pub(crate) openapi: bytes::Bytes,
    in_flight: AtomicUsize,
    body_bytes: AtomicUsize,
}

impl Hub {
    /// Puts the parts together and registers the metrics.
    ///
    /// # Errors
    /// When the registry holds metrics of these names already.
    pub fn new(ports: Ports) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            store: ports.store,
            cache: ports.cache,
            control: ports.control,
            view: ports.view,
            cluster: ports.cluster,
            health: ports.health,
            clock: ports.clock,
            ids: ports.ids,
            urls: ports.urls,
            access: ports.access,
            metrics: Arc::new(Metrics::register(&ports.registry)?),
            registry: ports.registry,
            openapi: crate::openapi::document(&ports.options.version).into(),
            request_log: RequestLog::new(ports.options.log_requests),
            options: ports.options,
            in_flight: AtomicUsize::new(0),
            body_bytes: AtomicUsize::new(0),
        }))
    }

    /// The metrics, which the server counts in too.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// When a request that starts now must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.clock.instant() + self.options.deadline
    }

    /// The same for operations that wait for something to happen.
    pub(crate) fn long_deadline(&self) -> Instant {
        self.clock.instant() + self.options.long_deadline
    }

    /// Takes a place among the requests at work; `None` when there is none left.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let place = InFlight(Arc::clone(self));
        self.metrics.in_flight.inc();
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (before < self.options.max_in_flight).then_some(place)
    }

    /// Takes room for a body; `None` when there is none left.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<BodyRoom> {
        let room = BodyRoom { hub: Arc::clone(self), bytes };
        let before = self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= self.options.max_body_memory).then_some(room)
    }

    /// Proposes a control command.
    pub(crate) async fn propose(
        &self,
        request: RequestId,
        command: control::Command,
        deadline: Instant,
    ) -> Result<Committed<control::Reply>, ProposeError> {
        let proposal = self.control.propose(Submitted { request, command }, deadline);
        self.bounded(deadline, proposal)
            .await
            .unwrap_or_else(|| Err(ProposeError::Unknown("deadline".into())))
    }

    /// The control state; fresh ones hold everything acknowledged before the call.
    pub(crate) async fn read_control(&self, fresh: bool, deadline: Instant) -> Result<State, ReadError> {
        if fresh {
            let barrier = self.control.read_barrier(deadline);
            self.bounded(deadline, barrier).await.unwrap_or(Err(ReadError::NoLeader))?;
        }
        Ok((self.view)())
    }

    /// The target's registration: from the local view, or on a miss from a fresh one.
    pub(crate) async fn target(
        &self,
        name: &ServiceName,
        deadline: Instant,
    ) -> Result<Option<Arc<Service>>, ReadError> {
        if let Some(service) = (self.view)().services.get(name) {
            return Ok(Some(Arc::clone(service)));
        }
        Ok(self.read_control(true, deadline).await?.services.get(name).cloned())
    }

    /// A call of the store, bounded although every store keeps deadlines by itself.
    pub(crate) async fn store_call<T>(
        &self,
        deadline: Instant,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.bounded(deadline, call)
            .await
            .unwrap_or_else(|| Err(StoreError::Unknown("the store did not answer in time".into())))
    }

    /// `None` when the call outlives its deadline by more than a little.
    pub(crate) async fn bounded<T>(&self, deadline: Instant, call: impl Future<Output = T>) -> Option<T> {
        let limit = tokio::time::Instant::from_std(deadline + PORT_GRACE);
        tokio::time::timeout_at(limit, call).await.ok()
    }
}

/// A request at work.
pub(crate) struct InFlight(Arc<Hub>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.dec();
    }
}

/// Room for one body.
pub(crate) struct BodyRoom {
    hub: Arc<Hub>,
    bytes: usize,
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        self.hub.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
