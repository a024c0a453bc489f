//! The service that messages are delivered to: it remembers every arrival, and answers slowly.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    book: Mutex<Book>,
    /// How long an answer takes, in milliseconds.
    delay: AtomicU64,
}

#[derive(Debug, Default)]
struct Book {
    /// Message id to the attempts that arrived, in order.
    arrivals: HashMap<String, Vec<u32>>,
    /// Message ids of deliveries that have arrived and have no answer yet.
    under_way: Vec<String>,
}

impl State {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery without an answer, and how often its message had arrived when it was noted.
#[derive(Clone, Debug)]
pub struct UnderWay {
    id: String,
    arrived: usize,
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

    /// How many deliveries have arrived and have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.state.book().under_way.len()
    }

    /// Deliveries that have arrived and have no answer yet.
    pub fn under_way(&self) -> Vec<UnderWay> {
        let book = self.state.book();
        let arrived = |id: &String| book.arrivals.get(id).map_or(0, Vec::len);
        book.under_way.iter().map(|id| UnderWay { id: id.clone(), arrived: arrived(id) }).collect()
    }

    /// How many of these messages have arrived once more since.
    pub fn repeated(&self, noted: &[UnderWay]) -> usize {
        let book = self.state.book();
        let again = |one: &&UnderWay| book.arrivals.get(&one.id).is_some_and(|all| all.len() > one.arrived);
        noted.iter().filter(again).count()
    }

    /// How many different messages have arrived.
    pub fn distinct(&self) -> usize {
        self.state.book().arrivals.len()
    }

    /// How often this message has arrived.
    pub fn arrived(&self, id: &str) -> usize {
        self.state.book().arrivals.get(id).map_or(0, Vec::len)
    }

    /// A copy of all arrivals: message id to the attempts, in order.
    pub fn arrivals(&self) -> HashMap<String, Vec<u32>> {
        self.state.book().arrivals.clone()
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

/// Strikes a delivery out however it ends.
struct InFlight(Arc<State>, String);

impl InFlight {
    fn new(state: &Arc<State>, id: String, attempt: u32) -> Self {
        let mut book = state.book();
        book.arrivals.entry(id.clone()).or_default().push(attempt);
        book.under_way.push(id.clone());
        Self(Arc::clone(state), id)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut book = self.0.book();
        if let Some(at) = book.under_way.iter().position(|id| *id == self.1) {
            book.under_way.swap_remove(at);
        }
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let attempt = header("hub-attempt").and_then(|number| number.parse().ok()).unwrap_or_default();
    let in_flight = header("idempotency-key").map(|id| InFlight::new(&state, id, attempt));
    let _ = request.into_body().collect().await;
    tokio::time::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed))).await;
    drop(in_flight);
    Ok(Response::new(Full::default()))
}
