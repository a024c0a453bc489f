//! Deliveries to `https` targets whose certificates come from a private authority, over HTTP/1.1 and HTTP/2.
//!
//! The fixtures are a P-256 authority, and a server's certificate for `localhost` and 127.0.0.1 signed by it, both good
//! for a hundred years; the authority's own key was thrown away.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::ensure;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use crate::support::{Http, TestNode, locked, until};

/// The authority's certificate, as a path.
pub(crate) const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/authority.pem");
const CERTIFICATE: &[u8] = include_bytes!("../fixtures/tls/server.pem");
const KEY: &[u8] = include_bytes!("../fixtures/tls/server.key");

/// Takes deliveries over TLS, and remembers the version of HTTP of each.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<Version>>>,
    _task: tokio::task::JoinSet<()>,
}

/// Takes TLS connections with the server's certificate; `protocols` is what it offers by ALPN.
pub(crate) fn acceptor(protocols: &[&str]) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE)?];
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY)?)?;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Receiver {
    async fn start(protocols: &[&str]) -> anyhow::Result<Self> {
        let acceptor = acceptor(protocols)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let seen: Arc<Mutex<Vec<Version>>> = Arc::default();
        let (told, mut task) = (Arc::clone(&seen), tokio::task::JoinSet::new());
        task.spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(move |request: Request<Incoming>| {
                        locked(&told).push(request.version());
                        async { anyhow::Ok(Response::new(String::new())) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ended = server.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Ok(Self { url, seen, _task: task })
    }
}

async fn node(folder: &Path, http: &Http, settings: &[(&str, &str)]) -> anyhow::Result<TestNode> {
    let node = TestNode::start(folder, settings).await?;
    node.ready(http).await?;
    Ok(node)
}

async fn register(http: &Http, node: &TestNode, name: &str, receiver: &Receiver) -> anyhow::Result<()> {
    let body = json!({"name": name, "url": receiver.url, "retry": {"base_ms": 50, "cap_ms": 100}});
    let (status, answer) = http.post(&format!("{}/api/v1/services/register", node.url), body).await?;
    ensure!(status == StatusCode::CREATED, "{status}: {answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_it_is_named() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let mut node = node(&folder.path().join("1"), &http, &[("delivery.ca_file", AUTHORITY)]).await?;
    let all: [(&str, &[&str], Version); 3] = [
        ("newer", &["h2", "http/1.1"], Version::HTTP_2),
        ("older", &["http/1.1"], Version::HTTP_11),
        ("silent", &[], Version::HTTP_11),
    ];
    for (name, protocols, version) in all {
        let receiver = Receiver::start(protocols).await?;
        register(&http, &node, name, &receiver).await?;
        for number in 0..3 {
            let id = http.send(&node.url, name, number).await?;
            let message = http.delivered(&node.url, &id).await?;
            assert_eq!(message["attempts"].as_array().map(Vec::len), Some(1), "{message}");
        }
        assert_eq!(*locked(&receiver.seen), [version; 3], "{name}");
    }
    node.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_gets_nothing() -> anyhow::Result<()> {
    let (folder, http) = (tempfile::tempdir()?, Http::new());
    let mut node = node(&folder.path().join("1"), &http, &[]).await?;
    let receiver = Receiver::start(&["h2", "http/1.1"]).await?;
    register(&http, &node, "target", &receiver).await?;
    let id = http.send(&node.url, "target", 1).await?;
    until("an attempt that failed", || async {
        let (_, message) = http.get(&format!("{}/api/v1/messages/{id}", node.url)).await?;
        let first = &message["attempts"][0];
        ensure!(first["outcome"] == "not_sent" && first["error_class"] == "tls", "{message}");
        Ok(())
    })
    .await?;
    assert!(locked(&receiver.seen).is_empty());
    node.stop().await;
    Ok(())
}
