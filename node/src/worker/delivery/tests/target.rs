//! A target on loopback that answers by script and remembers what it got.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    from: SocketAddr,
}

/// What to do with the nth request (from 0).
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Status(u16),
    With(u16, &'static str, String),
    /// 200 once the target is opened.
    WhenOpened,
}

type Script = Arc<dyn Fn(usize) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Shared {
    script: Script,
    got: Arc<Mutex<Vec<Got>>>,
    gate: Arc<Semaphore>,
}

pub(super) struct Target {
    pub(super) url: String,
    shared: Shared,
    _server: JoinSet<()>,
}

impl Target {
    pub(super) async fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared =
            Shared { script: Arc::new(script), got: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let service = app.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        });
        Self { url, shared, _server: server }
    }

    pub(super) fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// Lets everybody who waits, and comes later, have an answer.
    pub(super) fn open(&self) {
        self.shared.gate.close();
    }

    /// Waits until so many requests have arrived.
    pub(super) async fn wait_for(&self, count: usize) {
        let arrived = async {
            while self.got().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("requests arrive");
    }

    pub(super) fn connections(&self) -> usize {
        self.got().iter().map(|got| got.from).collect::<BTreeSet<_>>().len()
    }
}

async fn answer(
    State(shared): State<Shared>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let number = {
        let mut got = shared.got.lock().unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        got.push(Got { path: uri.path().to_owned(), headers, body, from });
        got.len() - 1
    };
    let status = |code| StatusCode::from_u16(code).unwrap();
    match (shared.script)(number) {
        Answer::Status(code) => status(code).into_response(),
        Answer::With(code, name, value) => (status(code), [(name, value)], "why").into_response(),
        Answer::WhenOpened => {
            // Closing the gate ends the wait.
            let _ = shared.gate.acquire().await;
            StatusCode::OK.into_response()
        }
    }
}
