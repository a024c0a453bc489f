//! The connector against real sockets on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hub_core::delivery::TransportError;
use hub_core::registry::AddressPolicy;
use hyper::header::HeaderMap;
use hyper::{Method, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// What a raw receiver does with each request it has read.
#[derive(Clone, Debug)]
enum Then {
    /// Writes these bytes and keeps the connection.
    Answer(Vec<u8>),
    /// Writes these bytes and closes the connection.
    AnswerAndClose(Vec<u8>),
    /// Says nothing.
    Silence,
}

struct Receiver {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let (connected, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connected.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream, then.clone(), Arc::clone(&asked)));
            }
        });
        Self { address, connections, requests, _tasks: tasks }
    }

    fn uri(&self) -> Uri {
        format!("http://{}/messages", self.address).parse().unwrap()
    }
}

async fn serve(mut stream: TcpStream, then: Then, requests: Arc<AtomicUsize>) {
    while read_request(&mut stream).await {
        requests.fetch_add(1, Ordering::SeqCst);
        match &then {
            Then::Answer(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Then::AnswerAndClose(bytes) => {
                let _ = stream.write_all(bytes).await;
                return;
            }
            Then::Silence => std::future::pending().await,
        }
    }
}

/// Reads one request with a `content-length`; false at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => seen.extend_from_slice(&chunk[..count]),
        }
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse::<usize>().unwrap());
        if body.len() >= length {
            return true;
        }
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Everything that tests need to reach; addresses that are never called stay refused.
pub(crate) fn with_loopback() -> Arc<AddressPolicy> {
    let mut policy = AddressPolicy::default();
    policy.allowed.push("127.0.0.0/8".parse().unwrap());
    Arc::new(policy)
}

/// Answers every name with the same addresses, or not at all.
struct Fixed(Option<Vec<IpAddr>>);

#[async_trait]
impl Resolver for Fixed {
    async fn resolve(&self, _host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        match &self.0 {
            Some(addresses) if addresses.is_empty() => Err(ResolveError::NotFound),
            Some(addresses) => Ok(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
            None => Err(ResolveError::Unavailable(std::io::Error::other("down"))),
        }
    }
}

fn client() -> Outbound {
    Options::default().build(with_loopback(), Arc::new(SystemResolver)).unwrap()
}

fn call(uri: Uri, timeout: Duration) -> Call {
    Call {
        method: Method::POST,
        uri,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{}"),
        timeout,
        keep: KEPT,
        departure: Departure::default(),
    }
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn reuses_connections_for_calls_one_after_the_other() {
    let receiver = Receiver::start(Then::Answer(ok(b"fine"))).await;
    let client = client();
    for _ in 0..20 {
        let answer = client.call(call(receiver.uri(), LONG)).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, b"fine".as_slice()));
    }
    // A connection goes back to the pool by a task of its own, so a call may now and then overtake it.
    assert!(receiver.connections.load(Ordering::SeqCst) <= 5);
    assert_eq!(receiver.requests.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn does_not_follow_redirects() {
    let elsewhere = Receiver::start(Then::Answer(ok(b""))).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.uri()
    );
    let receiver = Receiver::start(Then::Answer(redirect.into_bytes())).await;
    let answer = client().call(call(receiver.uri(), LONG)).await.unwrap();
    assert_eq!(answer.status, 307);
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn keeps_a_kib_of_a_long_answer_and_gives_the_connection_up() {
    let receiver = Receiver::start(Then::Answer(ok(&vec![b'x'; 8 << 20]))).await;
    let client = client();
    for connections in 1..=2 {
        let answer = client.call(call(receiver.uri(), LONG)).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 1024));
        assert_eq!(receiver.connections.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn hands_retry_after_on() {
    let busy = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_vec();
    let receiver = Receiver::start(Then::Answer(busy)).await;
    let answer = client().call(call(receiver.uri(), LONG)).await.unwrap();
    assert_eq!((answer.status, answer.retry_after.as_deref()), (429, Some("7")));
}

#[tokio::test]
async fn a_connection_cut_during_the_answer_is_no_answer() {
    for cut in ["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"] {
        let receiver = Receiver::start(Then::AnswerAndClose(cut.as_bytes().to_vec())).await;
        let call = call(receiver.uri(), LONG);
        let departure = call.departure.clone();
        assert_eq!(client().call(call).await, Err(TransportError::Broken), "{cut:?}");
        assert!(departure.has_left());
        assert_eq!(receiver.requests.load(Ordering::SeqCst), 1, "it was sent once");
    }
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_left() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let call = call(format!("http://{free}/").parse().unwrap(), LONG);
    let departure = call.departure.clone();
    assert_eq!(client().call(call).await, Err(TransportError::Connect));
    assert!(!departure.has_left());
}

#[tokio::test]
async fn silence_is_a_timeout_after_the_request_left() {
    let receiver = Receiver::start(Then::Silence).await;
    let call = call(receiver.uri(), Duration::from_millis(300));
    let departure = call.departure.clone();
    assert_eq!(client().call(call).await, Err(TransportError::Timeout));
    assert!(departure.has_left());
}

#[tokio::test]
async fn a_tls_handshake_with_a_plain_server_fails_as_tls() {
    let receiver = Receiver::start(Then::Answer(ok(b""))).await;
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let call = call(format!("https://{address}/").parse().unwrap(), LONG);
    let departure = call.departure.clone();
    assert_eq!(client().call(call).await, Err(TransportError::Tls));
    assert!(!departure.has_left());
    drop(receiver);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_a_connect_timeout() {
    let receiver = Receiver::start(Then::Silence).await;
    let options = Options { connect_timeout_ms: 200, ..Options::default() };
    let client = options.build(with_loopback(), Arc::new(SystemResolver)).unwrap();
    let call = call(format!("https://{}/", receiver.address).parse().unwrap(), LONG);
    assert_eq!(client.call(call).await, Err(TransportError::ConnectTimeout));
}

#[tokio::test]
async fn the_hubs_own_ports_are_refused() {
    let receiver = Receiver::start(Then::Answer(ok(b""))).await;
    let mut policy = AddressPolicy::clone(&with_loopback());
    policy.hub_ports.push(receiver.address.port());
    let client = Options::default().build(Arc::new(policy), Arc::new(SystemResolver)).unwrap();
    assert_eq!(client.call(call(receiver.uri(), LONG)).await, Err(TransportError::Guarded));
}

#[tokio::test]
async fn the_guard_is_asked_about_literals_and_about_what_names_resolve_to() {
    let receiver = Receiver::start(Then::Answer(ok(b""))).await;
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    for (host, found) in [
        ("127.0.0.1", vec![]),
        ("[::ffff:127.0.0.1]", vec![]),
        ("169.254.169.254", vec![]),
        ("harmless.example", vec![loopback]),
        ("harmless.example", vec![mapped]),
        ("harmless.example", vec![metadata]),
        ("harmless.example", vec![metadata, loopback]),
    ] {
        let client = Options::default()
            .build(Arc::new(AddressPolicy::default()), Arc::new(Fixed(Some(found))))
            .unwrap();
        let uri = format!("http://{host}:{}/", receiver.address.port()).parse().unwrap();
        let call = call(uri, LONG);
        let departure = call.departure.clone();
        assert_eq!(client.call(call).await, Err(TransportError::Guarded), "{host}");
        assert!(!departure.has_left());
    }
    assert_eq!(receiver.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_permitted_address_of_a_name_is_used_when_another_is_refused() {
    let receiver = Receiver::start(Then::Answer(ok(b""))).await;
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let found = vec![metadata, IpAddr::from(Ipv4Addr::LOCALHOST)];
    let client = Options::default().build(with_loopback(), Arc::new(Fixed(Some(found)))).unwrap();
    let uri = format!("http://both.example:{}/", receiver.address.port()).parse().unwrap();
    assert_eq!(client.call(call(uri, LONG)).await.map(|answer| answer.status), Ok(200));
}

#[tokio::test]
async fn names_that_do_not_resolve_and_name_servers_that_do_not_answer_differ() {
    for (resolver, expected) in
        [(Fixed(Some(vec![])), TransportError::NameNotFound), (Fixed(None), TransportError::Local)]
    {
        let client = Options::default().build(with_loopback(), Arc::new(resolver)).unwrap();
        let call = call("http://nobody.example/".parse().unwrap(), LONG);
        assert_eq!(client.call(call).await, Err(expected));
    }
}

#[tokio::test]
async fn a_file_of_authorities_without_any_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        Options { ca_file: Some(file), ..Options::default() }.build(with_loopback(), Arc::new(SystemResolver))
    };
    assert!(matches!(build("empty.pem", "no certificate here"), Err(BuildError::NoAuthority)));
    let broken = "-----BEGIN CERTIFICATE-----\nnonsense!\n-----END CERTIFICATE-----\n";
    assert!(matches!(build("broken.pem", broken), Err(BuildError::Authorities(_))));
}
