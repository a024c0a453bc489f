//! The accept loop over real connections.

use std::sync::Arc;
use std::time::Duration;

use hub_api::{Leaving, Server, ServerOptions};
use hub_core::port::StoreError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rig::{Rig, admin};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    abort: CancellationToken,
    leaving: Leaving,
    task: JoinHandle<()>,
    rig: Rig,
}

async fn serve(rig: Rig, change: impl FnOnce(&mut ServerOptions)) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut options = ServerOptions::default();
    change(&mut options);
    let tasks = TaskTracker::new();
    let clock = Arc::clone(&rig.fakes.clock);
    let server = Server::new(rig.router.clone(), options, clock, rig.hub.metrics(), tasks.clone());
    let leaving = server.leaving();
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let task = tasks.spawn(server.run(listener, stop.clone(), abort.clone()));
    Running { address, stop, abort, leaving, task, rig }
}

async fn all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    // A connection that is cut may end with a reset; what came before counts.
    let _cut = tokio::time::timeout(PATIENCE, read).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads one answer with a body of known length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut byte = [0; 1];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.unwrap().unwrap();
        assert_ne!(count, 0, "ended: {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
        let head = String::from_utf8_lossy(&text).to_lowercase();
        if let Some((head, body)) = head.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return head.to_owned();
            }
        }
    }
}

const PROBE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: hub\r\n\r\n";

#[tokio::test]
async fn a_connection_that_sends_nothing_gets_a_problem() {
    let running = serve(Rig::new(), |options| options.header_timeout = Duration::from_millis(100)).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let text = all(&mut silent).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("HUB-1009"), "{text}");
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: h").await.unwrap();
    let text = all(&mut slow).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("HUB-1009"), "{text}");
    let mut fine = TcpStream::connect(running.address).await.unwrap();
    fine.write_all(PROBE).await.unwrap();
    assert!(answer(&mut fine).await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let running = serve(Rig::new(), |options| options.idle_timeout = Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(PROBE).await.unwrap();
    answer(&mut stream).await;
    assert_eq!(all(&mut stream).await, "");
}

#[tokio::test]
async fn headers_that_are_no_http_get_a_problem() {
    let running = serve(Rig::new(), |_| {}).await;
    for request in
        ["NONSENSE\r\n\r\n".to_owned(), format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000))]
    {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // The server may answer and close before it has all.
        let _refused = stream.write_all(request.as_bytes()).await;
        let text = all(&mut stream).await;
        assert!(text.is_empty() || text.contains("HUB-1002"), "{text}");
    }
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"NONSENSE\r\n\r\n").await.unwrap();
    let text = all(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("application/problem+json"), "{text}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let running = serve(Rig::new(), |options| options.max_connections = 1).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first.write_all(PROBE).await.unwrap();
    answer(&mut first).await;
    let mut second = TcpStream::connect(running.address).await.unwrap();
    second.write_all(PROBE).await.unwrap();
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(early.is_err(), "answered beyond the limit");
    drop(first);
    assert!(answer(&mut second).await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn leaving_and_stopping() {
    let running = serve(Rig::new(), |_| {}).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(PROBE).await.unwrap();
    assert!(!answer(&mut idle).await.contains("connection: close"));
    running.leaving.announce();
    let mut told = TcpStream::connect(running.address).await.unwrap();
    told.write_all(PROBE).await.unwrap();
    assert!(answer(&mut told).await.contains("connection: close"));
    assert_eq!(all(&mut told).await, "");
    running.stop.cancel();
    assert_eq!(all(&mut idle).await, "", "an idle connection is closed at once");
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

/// A request that the store never answers.
async fn stuck(running: &Running) -> TcpStream {
    *running.rig.fakes.store.stuck.lock().unwrap() = true;
    let body = r#"{"sender_service":"a","target_service":"b","message_type":"t","content":1}"#;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = format!(
        "POST /api/v1/messages?allow_unregistered HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        admin(),
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let reached = async {
        while running.rig.fakes.store.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
    stream
}

#[tokio::test]
async fn requests_at_work_are_finished() {
    let running = serve(Rig::new(), |_| {}).await;
    let mut stream = stuck(&running).await;
    running.stop.cancel();
    let text = all(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 504 ") && text.contains("HUB-1402"), "{text}");
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_takes_too_long_is_cut() {
    let hour = Duration::from_secs(3_600);
    let rig = Rig::with(|options| options.deadline = hour);
    let running = serve(rig, |options| options.drain_limit = Duration::from_millis(100)).await;
    let mut stream = stuck(&running).await;
    running.stop.cancel();
    assert_eq!(all(&mut stream).await, "");
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
    assert!(!running.abort.is_cancelled(), "only its own connections are cut");
    let rig = Rig::with(|options| options.deadline = hour);
    let running = serve(rig, |_| {}).await;
    let mut stream = stuck(&running).await;
    running.stop.cancel();
    running.abort.cancel();
    assert_eq!(all(&mut stream).await, "");
    tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn http2_without_upgrade() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let running = serve(Rig::new(), |options| options.header_timeout = Duration::from_millis(200)).await;
    *running.rig.fakes.store.fault.lock().unwrap() = Some(|| StoreError::DiskLow);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    for _ in 0..3 {
        let request = axum::http::Request::get("http://hub/livez").body(axum::body::Body::empty()).unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        // Longer than a header may take: between requests HTTP/2 has no header under way.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
