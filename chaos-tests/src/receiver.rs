//! The service that messages are delivered to: it remembers every arrival, and answers slowly.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A receiver; it stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Message id to the attempts that arrived, in order.
    arrivals: Mutex<HashMap<String, Vec<u32>>>,
    /// Deliveries that have arrived and have no answer yet.
    in_flight: AtomicUsize,
    /// How long an answer takes, in milliseconds.
    delay: AtomicU64,
}

impl Receiver {
    /// Starts to receive on a free loopback port; every answer takes `delay`.
    ///
    /// # Errors
    /// No port.
    pub async fn start(delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        state.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, state.clone()));
        Ok(Self { address, state, _tasks: tasks })
    }

    /// The URL of an instance here.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Deliveries that have arrived and have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::SeqCst)
    }

    /// How many different messages have arrived.
    pub fn distinct(&self) -> usize {
        self.state.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A copy of all arrivals: message id to the attempts, in order.
    pub fn arrivals(&self) -> HashMap<String, Vec<u32>> {
        self.state.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes how long an answer takes.
    pub fn set_delay(&self, delay: Duration) {
        self.state.delay.store(delay.as_millis() as u64, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, state.clone()));
            // A hub that dies cuts its connections: that is what the tests are for.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts down however the request ends.
struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (id, attempt) = (header("idempotency-key"), header("hub-attempt"));
    if let Some(id) = id {
        let attempt = attempt.and_then(|number| number.parse().ok()).unwrap_or_default();
        let mut arrivals = state.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.entry(id).or_default().push(attempt);
    }
    state.in_flight.fetch_add(1, Ordering::SeqCst);
    let in_flight = InFlight(state.clone());
    let _ = request.into_body().collect().await;
    tokio::time::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed))).await;
    drop(in_flight);
    Ok(Response::new(Full::default()))
}
