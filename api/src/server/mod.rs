//! The accept loop: connection limits, deadlines on what arrives, and an orderly end.

mod io;
mod raw;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use hub_core::port::Clock;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::Metrics;
use io::{Activity, Watched};

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Most connections at a time; others wait to be accepted. Default 10,000.
    pub max_connections: usize,
    /// Time for a request's header to arrive; also for a new connection's first byte. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection without requests is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// How long requests at work may take to end once the server stops. Default 20 s.
    pub drain_limit: Duration,
    /// Largest request header in bytes, at least 8 KiB; also the size of one read. Default 64 KiB.
    pub max_header_bytes: usize,
    /// Most requests at a time on one HTTP/2 connection. Default 256.
    pub max_streams: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            drain_limit: Duration::from_secs(20),
            max_header_bytes: 64 << 10,
            max_streams: 256,
        }
    }
}

/// Serves a router on a listener.
pub struct Server {
    router: Router,
    options: ServerOptions,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    leaving: Arc<AtomicBool>,
}

/// Tells clients to go, before the server stops.
#[derive(Clone, Debug, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// From now on every HTTP/1 answer says `Connection: close`, so that clients open their next connection elsewhere.
    pub fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts an open connection, however it ends.
struct Open(prometheus::IntGauge);

impl Open {
    fn new(gauge: &prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Runs HTTP/2 streams on the tracker.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl Server {
    /// A server whose connections run on `tasks`. `metrics` are those of the hub behind `router`.
    #[must_use]
    pub fn new(
        router: Router,
        options: ServerOptions,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Self {
        Self { router, options, clock, metrics, tasks, leaving: Arc::default() }
    }

    /// The switch that tells clients to go.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        Leaving(Arc::clone(&self.leaving))
    }

    /// Accepts until `stop`, then lets requests end for [`ServerOptions::drain_limit`], or until `abort`. When it
    /// returns no connection is left.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken, abort: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        let connections = TaskTracker::new();
        let cut = abort.child_token();
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else {
                server.metrics.rejected("accept");
                continue;
            };
            let (one, stop, cut) = (Arc::clone(&server), stop.clone(), cut.clone());
            let connection = connections.track_future(async move {
                let _open = Open::new(&one.metrics.connections);
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = Arc::clone(&one).serve(stream, &stop) => {}
                }
                drop(place);
            });
            server.tasks.spawn(connection);
        }
        drop(listener);
        connections.close();
        tokio::select! {
            () = connections.wait() => return,
            () = abort.cancelled() => {}
            () = tokio::time::sleep(server.options.drain_limit) => {
                tracing::warn!(left = connections.len(), "connections are cut: their requests took too long to end");
            }
        }
        cut.cancel();
        connections.wait().await;
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, stop: &CancellationToken) {
        // Without it small answers wait for the peer's delayed acknowledgement. A failure costs only that.
        let _only_slower = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new(self.clock.instant()));
        let io = Watched::new(stream, Arc::clone(&activity), Arc::clone(&self.clock), &self.options);
        let (server, work) = (Arc::clone(&self), Arc::clone(&activity));
        let service = service_fn(move |request| Arc::clone(&server).answer(request, Arc::clone(&work)));
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Some(reason) = activity.expired() {
            self.metrics.rejected(reason);
        }
        if let Err(error) = result {
            tracing::debug!(error = &*error, "a connection ended");
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        activity: Arc<Activity>,
    ) -> Result<Response<Body>, Infallible> {
        let busy = activity.begin();
        let closes = request.version() <= Version::HTTP_11;
        let mut response = self.router.clone().oneshot(request).await?;
        if closes && self.leaving.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        busy.end(self.clock.instant());
        Ok(response)
    }

    fn builder(&self) -> Builder<Tracked> {
        let mut builder = Builder::new(Tracked(self.tasks.clone()));
        builder
            .http1()
            .timer(TokioTimer::new())
            // Header and idle time are watched below HTTP, where an answer can still be written.
            .header_read_timeout(None)
            .max_buf_size(self.options.max_header_bytes.max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.max_streams)
            .max_header_list_size(u32::try_from(self.options.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
    }
}

/// The next connection, once there is a place for it. `None` when accepting failed: after a pause, since what fails (out
/// of files) does not mend at once.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => Some((stream, place)),
        Err(error) => {
            if is_fault_of_ours(&error) {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            None
        }
    }
}

fn is_fault_of_ours(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    !matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}
