//! A lean client of the REST interface.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// A call that has no answer after this has none, unless the client was told otherwise.
const LIMIT: Duration = Duration::from_secs(15);

/// The key of all clusters under test.
pub const SECRET_KEY: &str = "chaos-tests-secret-key-of-more-than-32-bytes";

/// In seconds; longer than a test sets the clocks of its nodes ahead.
const LIFETIME: u64 = 60 * 24 * 3600;

const SCOPES: &str =
    "messages:send messages:read messages:admin services:register services:read cluster:admin";

/// An answer of a node.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The JSON body; the text as a JSON string if it is something else.
    pub body: Value,
}

impl Answer {
    /// 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A string field of the body.
    ///
    /// # Errors
    /// There is none.
    pub fn text(&self, field: &str) -> anyhow::Result<&str> {
        self.body.get(field).and_then(Value::as_str).with_context(|| format!("no {field} in {self:?}"))
    }

    /// The problem's code, `HUB-nnnn`, or nothing.
    pub fn code(&self) -> &str {
        self.body.get("code").and_then(Value::as_str).unwrap_or_default()
    }

    /// Itself if it is a success.
    ///
    /// # Errors
    /// It is not.
    pub fn success(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.is_success(), "refused: {self:?}");
        Ok(self)
    }
}

/// A client with all rights. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    token: String,
    limit: Duration,
}

impl Client {
    /// A client that speaks as the service `service`.
    ///
    /// # Errors
    /// The token cannot be made.
    pub fn new(service: &str) -> anyhow::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a token expires by the wall clock")]
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims =
            serde_json::json!({ "sub": service, "scope": SCOPES, "iat": now, "exp": now + LIFETIME });
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET_KEY.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(3)));
        Ok(Self { http: Http::builder(TokioExecutor::new()).build(connector), token, limit: LIMIT })
    }

    /// The same client, but a call that has no answer after `limit` has none.
    #[must_use]
    pub fn with_limit(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// One call. `key` is the Idempotency-Key.
    ///
    /// # Errors
    /// No answer: what became of the call is unknown.
    pub async fn call(
        &self,
        method: Method,
        url: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        request = request.header("authorization", format!("Bearer {}", self.token));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(bytes)))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let (status, bytes) =
            tokio::time::timeout(self.limit, exchange).await.context("no answer in time")??;
        let as_text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| as_text()) })
    }

    /// GET.
    ///
    /// # Errors
    /// No answer.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.call(Method::GET, url, None, None).await
    }

    /// POST without a key.
    ///
    /// # Errors
    /// No answer.
    pub async fn post(&self, url: &str, body: &Value) -> anyhow::Result<Answer> {
        self.call(Method::POST, url, None, Some(body)).await
    }
}
