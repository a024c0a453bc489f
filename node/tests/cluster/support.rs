//! Real nodes in this process, on free loopback ports, a receiver for their deliveries, and calls over HTTP.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hub_node::clock::{HubClock, Machine, SystemMachine};
use hub_node::coded::CodedError;
use hub_node::config::{self, Config, Inputs, Raw};
use hub_node::wiring::Node;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Generous: the machine may be busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `probe` gives a value; its last refusal is the error.
pub(crate) async fn until<T, F: Future<Output = anyhow::Result<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let mut last = anyhow::anyhow!("never tried");
    let waited = tokio::time::timeout(DEADLINE, async {
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match waited.await {
        Ok(value) => Ok(value),
        Err(_) => Err(last.context(format!("{what}: not within {DEADLINE:?}"))),
    }
}

/// A node and how to start it again.
pub(crate) struct TestNode {
    pub(crate) node: Option<Node>,
    pub(crate) folder: PathBuf,
    pub(crate) url: String,
    pub(crate) raft: String,
    settings: Vec<(String, String)>,
}

/// Nothing of this machine's environment, `settings` as flags.
pub(crate) fn configuration(folder: &Path, settings: &[(String, String)]) -> anyhow::Result<Config> {
    let empty = folder.with_extension("toml");
    std::fs::write(&empty, "")?;
    let base = [
        ("node.data", folder.to_string_lossy().into_owned()),
        ("node.drain_delay", "0s".to_owned()),
        ("rest.listen", "127.0.0.1:0".to_owned()),
        ("raft.listen", "127.0.0.1:0".to_owned()),
        ("raft.cluster_key", "a cluster key that is long enough for a test".to_owned()),
        ("auth.enabled", "false".to_owned()),
        ("targets.allowed", "127.0.0.0/8".to_owned()),
    ];
    let base = base.into_iter().map(|(path, value)| (path.to_owned(), value));
    let flags = base.chain(settings.iter().cloned());
    let flags = flags.map(|(path, value)| (path, Raw::Text(value), "test".to_owned())).collect();
    Ok(config::load(&Inputs { file: Some(empty), env: Vec::new(), flags })?.config)
}

/// `("raft.join", "…")` and so on.
pub(crate) fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
}

/// Starts a node that is expected to be refused.
pub(crate) async fn refused(folder: &Path, pairs: &[(&str, &str)]) -> anyhow::Result<CodedError> {
    match Node::start(configuration(folder, &settings(pairs))?, false).await {
        Ok(node) => {
            node.stop(false).await;
            bail!("the node started")
        }
        Err(error) => Ok(error),
    }
}

impl TestNode {
    pub(crate) async fn start(folder: &Path, pairs: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_on(SystemMachine, folder, pairs).await
    }

    pub(crate) async fn start_on(
        machine: impl Machine,
        folder: &Path,
        pairs: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let settings = settings(pairs);
        let config = configuration(folder, &settings)?;
        if std::env::var_os("LOG_LEVEL").is_some() {
            let log = config::Log {
                level: std::env::var("LOG_LEVEL")?,
                format: config::LogFormat::Text,
                requests: false,
            };
            let _only_the_first = hub_node::telemetry::init(&log);
        }
        let node = Node::start_with(HubClock::new(machine), config, false).await?;
        let endpoints = node.endpoints().clone();
        Ok(Self {
            node: Some(node),
            folder: folder.to_owned(),
            url: endpoints.rest_url,
            raft: endpoints.raft_addr,
            settings,
        })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u64 {
        self.node.as_ref().map_or(0, |node| node.endpoints().node_id.0)
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop(true).await;
        }
    }

    /// Ends it after a failure.
    pub(crate) async fn fail(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop(false).await;
        }
    }

    /// Starts it again, at the addresses it had.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await;
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let mut settings = self.settings.clone();
        settings.push(("rest.listen".to_owned(), address(&self.url)));
        settings.push(("raft.listen".to_owned(), self.raft.clone()));
        let config = configuration(&self.folder, &settings)?;
        self.node = Some(Node::start(config, false).await?);
        Ok(())
    }

    /// Waits until `/readyz` says 200.
    pub(crate) async fn ready(&self, http: &Http) -> anyhow::Result<()> {
        until("ready", || async {
            let (status, body) = http.get(&format!("{}/readyz?verbose", self.url)).await?;
            ensure!(status == StatusCode::OK, "{status}: {body}");
            Ok(())
        })
        .await
    }
}

/// A node that is alone and ready, and knows the service `target` at the receiver.
pub(crate) async fn lone(
    machine: impl Machine,
    base: &Path,
    http: &Http,
    receiver: &Receiver,
) -> anyhow::Result<TestNode> {
    let node = TestNode::start_on(machine, &base.join("1"), &[]).await?;
    node.ready(http).await?;
    http.register(&node.url, "target", receiver).await?;
    Ok(node)
}

/// A lone node and two that joined it, all of them voters.
pub(crate) async fn three(base: &Path, http: &Http) -> anyhow::Result<Vec<TestNode>> {
    three_with(base, http, &[]).await
}

/// The same, each with these settings.
pub(crate) async fn three_with(
    base: &Path,
    http: &Http,
    settings: &[(&str, &str)],
) -> anyhow::Result<Vec<TestNode>> {
    let first = TestNode::start(&base.join("1"), settings).await?;
    let join = first.raft.clone();
    let joining = [settings, &[("raft.join", &join)]].concat();
    let mut nodes = vec![first];
    for name in ["2", "3"] {
        nodes.push(TestNode::start(&base.join(name), &joining).await?);
    }
    for node in &nodes {
        node.ready(http).await?;
        voters(http, &node.url, 3).await?;
    }
    Ok(nodes)
}

/// Waits until the node sees so many voters in every group.
pub(crate) async fn voters(http: &Http, url: &str, count: usize) -> anyhow::Result<()> {
    until("voters", || async {
        let (status, cluster) = http.get(&format!("{url}/api/v1/cluster")).await?;
        ensure!(status == StatusCode::OK, "{status}: {cluster}");
        let groups = cluster["groups"].as_object().context("no groups")?;
        for (group, view) in groups {
            let found = view["voters"].as_array().map_or(0, Vec::len);
            ensure!(found == count, "{group} has {found} voters: {cluster}");
        }
        Ok(())
    })
    .await
}

/// Who leads a group, as the node at `url` knows.
pub(crate) async fn leader(http: &Http, url: &str, group: &str) -> anyhow::Result<u64> {
    until("leader", || async {
        let (_, cluster) = http.get(&format!("{url}/api/v1/cluster")).await?;
        cluster["groups"][group]["leader"].as_u64().with_context(|| format!("no leader: {cluster}"))
    })
    .await
}

/// Calls over HTTP.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// One request: status, content type and body of its answer.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, String, Bytes)> {
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(|body| body.to_string()).unwrap_or_default();
        self.send_request(request.body(Full::from(bytes))?).await
    }

    async fn send_request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(StatusCode, String, Bytes)> {
        let answer = tokio::time::timeout(Duration::from_secs(70), async {
            let response = self.0.request(request).await?;
            let status = response.status();
            let kind =
                response.headers().get("content-type").map(|kind| kind.to_str().map(ToOwned::to_owned));
            let bytes = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, kind.transpose()?.unwrap_or_default(), bytes))
        });
        answer.await.context("no answer")?
    }

    /// With a token, where calls need one.
    pub(crate) async fn get_as(&self, url: &str, token: &str) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::get(url).header("authorization", format!("Bearer {token}"));
        let (status, _, bytes) = self.send_request(request.body(Full::default())?).await?;
        Ok((status, serde_json::from_slice(&bytes)?))
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let (status, _, bytes) = self.exchange(method, url, body).await?;
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok((status, value))
    }

    pub(crate) async fn get(&self, url: &str) -> anyhow::Result<(StatusCode, Value)> {
        self.call(Method::GET, url, None).await
    }

    pub(crate) async fn post(&self, url: &str, body: Value) -> anyhow::Result<(StatusCode, Value)> {
        self.call(Method::POST, url, Some(body)).await
    }

    /// Registers `name` at the receiver.
    pub(crate) async fn register(&self, url: &str, name: &str, receiver: &Receiver) -> anyhow::Result<()> {
        let body = json!({"name": name, "url": receiver.url});
        until("registered", || async {
            let (status, answer) =
                self.post(&format!("{url}/api/v1/services/register"), body.clone()).await?;
            ensure!(status.is_success(), "{status}: {answer}");
            Ok(())
        })
        .await
    }

    /// Sends one message, asking again while nothing leads; its id.
    pub(crate) async fn send(&self, url: &str, target: &str, number: usize) -> anyhow::Result<String> {
        let body = json!({
            "sender_service": "tester", "target_service": target, "message_type": "test.made",
            "content": {"number": number},
        });
        until("sent", || async {
            let (status, answer) = self.post(&format!("{url}/api/v1/messages"), body.clone()).await?;
            ensure!(status == StatusCode::ACCEPTED, "{status}: {answer}");
            Ok(answer["id"].as_str().context("no id")?.to_owned())
        })
        .await
    }

    /// Sends one message and waits until it is delivered; its id.
    pub(crate) async fn carry(&self, url: &str, target: &str, number: usize) -> anyhow::Result<String> {
        let id = self.send(url, target, number).await?;
        self.delivered(url, &id).await?;
        Ok(id)
    }

    /// Waits until the message is delivered, as the node at `url` says.
    pub(crate) async fn delivered(&self, url: &str, id: &str) -> anyhow::Result<Value> {
        until("delivered", || async {
            let (status, message) = self.get(&format!("{url}/api/v1/messages/{id}")).await?;
            ensure!(status == StatusCode::OK && message["status"] == "delivered", "{status}: {message}");
            Ok(message)
        })
        .await
    }
}

/// Takes deliveries and remembers them.
pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    /// Ends with the receiver.
    _task: tokio::task::JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let take = |State(seen): State<Arc<Mutex<Vec<Value>>>>, body: Bytes| async move {
            let Ok(message) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
            locked(&seen).push(message);
            StatusCode::OK
        };
        let router = Router::new()
            .route("/messages", post(take))
            .route("/gone", post(|| async { StatusCode::GONE }))
            .route("/health", get(|| async { StatusCode::OK }))
            .with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self { url, seen, _task: task })
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> Vec<Value> {
        locked(&self.seen).clone()
    }
}

/// What stands behind a lock.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
