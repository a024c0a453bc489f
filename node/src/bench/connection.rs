//! One keep-alive connection to a node, as lean as it gets: the generator shares its processors with the nodes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hub_core::error::chain;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use super::Error;

/// A node to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct Origin {
    address: String,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
}

impl Origin {
    /// The node at `url`, plain HTTP only.
    ///
    /// # Errors
    /// When the URL is not `http://host:port`.
    pub fn new(url: &Url, token: Option<&SecretString>) -> Result<Self, Error> {
        let host = url.host_str().filter(|_| url.scheme() == "http");
        let host =
            host.ok_or_else(|| Error::Usage(format!("{url}: the load generator speaks plain http only")))?;
        let address = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
        let header =
            |text: &str| HeaderValue::from_str(text).map_err(|error| Error::Usage(format!("{url}: {error}")));
        let authorization =
            token.map(|token| header(&format!("Bearer {}", token.expose_secret()))).transpose()?;
        Ok(Self { host: header(&address)?, address, authorization })
    }
}

/// One keep-alive connection to a node; it connects when it is first needed, and again after a cut.
#[derive(Debug)]
pub struct Connection {
    origin: Origin,
    open: Option<(SendRequest<Full<Bytes>>, JoinSet<()>)>,
}

/// What a request brought.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

impl Connection {
    /// Not connected yet.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self { origin, open: None }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let ready = match self.open.as_mut() {
            Some((sender, _)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.open = Some(connect(&self.origin).await?);
        }
        self.open.as_mut().map(|(sender, _)| sender).ok_or_else(|| "not connected".to_owned())
    }

    /// Sends one request; after any failure the connection is made anew.
    ///
    /// # Errors
    /// In words, when no whole answer came within `deadline`: the outcome is unknown.
    pub async fn request(
        &mut self,
        method: Method,
        path: &Uri,
        key: Option<&HeaderValue>,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Reply, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.origin.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.origin.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(key) = key {
            headers.insert("idempotency-key", key.clone());
        }
        let exchange = async {
            let response = self.sender().await?.send_request(request).await.map_err(|error| chain(&error))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| chain(&error))?;
            Ok(Reply { status, body: body.to_bytes() })
        };
        let reply = tokio::time::timeout(deadline, exchange)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if reply.is_err() {
            self.open = None;
        }
        reply
    }
}

async fn connect(origin: &Origin) -> Result<(SendRequest<Full<Bytes>>, JoinSet<()>), String> {
    let stream = TcpStream::connect(&origin.address).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its end shows in the next request.
        drop(connection.await);
    });
    Ok((sender, driver))
}
