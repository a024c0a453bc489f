//! A service that takes every delivery and writes it into the ledger.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use super::{Error, SharedLedger};
use crate::client::source;

/// A service that takes every delivery; ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    desk: Arc<Desk>,
    _tasks: JoinSet<()>,
}

/// What the connections share.
#[derive(Debug)]
struct Desk {
    ledger: Arc<SharedLedger>,
    held: watch::Receiver<bool>,
    tried: AtomicU64,
}

impl Receiver {
    /// Listens on a free port of `host`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(host: IpAddr, ledger: Arc<SharedLedger>) -> Result<Self, Error> {
        Self::start_holding(host, ledger, watch::channel(false).1).await
    }

    /// The same, but while `held` is true deliveries get no answer and are not written down.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start_holding(
        host: IpAddr,
        ledger: Arc<SharedLedger>,
        held: watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind((host, 0)).await.map_err(Error::Receiver)?;
        let address = listener.local_addr().map_err(Error::Receiver)?;
        let mut tasks = JoinSet::new();
        let desk = Arc::new(Desk { ledger, held, tried: AtomicU64::new(0) });
        tasks.spawn(accept(listener, Arc::clone(&desk)));
        Ok(Self { address, desk, _tasks: tasks })
    }

    /// How many deliveries began to arrive, answered or not.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.desk.tried.load(Ordering::Relaxed)
    }

    /// Its base URL.
    ///
    /// # Errors
    /// Never with an address of this machine.
    pub fn url(&self) -> Result<Url, Error> {
        let text = format!("http://{}", self.address);
        Url::parse(&text).map_err(|error| Error::Usage(format!("{text}: {error}")))
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of files: those that close make room.
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                // Without it answers wait for the other side; with it refused they are only later.
                drop(stream.set_nodelay(true));
                let desk = Arc::clone(&desk);
                connections.spawn(async move {
                    let service = service_fn(move |request| take(request, Arc::clone(&desk)));
                    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A connection that is cut was a node that ended.
                    drop(served.await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A delivery counts when it has arrived whole.
async fn take(request: Request<Incoming>, desk: Arc<Desk>) -> Result<Response<Full<Bytes>>, Infallible> {
    let delivery = request.method() == Method::POST;
    let key = request.headers().get("idempotency-key").and_then(|value| value.to_str().ok());
    let id = key.and_then(|key| uuid::Uuid::parse_str(key).ok());
    if delivery {
        desk.tried.fetch_add(1, Ordering::Relaxed);
    }
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return Ok(answer(StatusCode::BAD_REQUEST));
        }
    }
    if delivery {
        let mut held = desk.held.clone();
        // Without a sender nobody holds it. If the caller gives up meanwhile, this ends here.
        drop(held.wait_for(|held| !held).await);
    }
    match (delivery, id) {
        (true, Some(id)) => {
            desk.ledger.arrive(id.as_u128(), source::instant());
            Ok(answer(StatusCode::OK))
        }
        (true, None) => Ok(answer(StatusCode::BAD_REQUEST)),
        (false, _) => Ok(answer(StatusCode::OK)),
    }
}

fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}
