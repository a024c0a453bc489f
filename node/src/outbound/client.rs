//! The client: pooled connections, one request, one answer read within limits, or a class of failure.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hub_core::delivery::TransportError;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::body::{self, Outgoing};
use super::connector::{Bounded, Guarded};
use super::failure::{BuildError, classify};
use super::{Departure, Guard, Resolver};

/// Settings of outgoing HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Until name, TCP and TLS must be done, in milliseconds; default 5,000.
    pub connect_timeout_ms: u32,
    /// How long an unused connection is kept, in milliseconds; default 60,000.
    pub idle_timeout_ms: u32,
    /// Unused connections kept for one target address; default 256.
    pub max_idle_per_target: usize,
    /// PEM file of certificate authorities trusted besides the public ones.
    pub ca_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect_timeout_ms: 5_000, idle_timeout_ms: 60_000, max_idle_per_target: 256, ca_file: None }
    }
}

impl Options {
    /// Builds the client. It needs no task of its own; it must be used inside a tokio runtime.
    ///
    /// # Errors
    /// If TLS cannot be set up or `ca_file` is not readable.
    pub fn build(self, guard: Arc<dyn Guard>, resolver: Arc<dyn Resolver>) -> Result<Outbound, BuildError> {
        let limit = Duration::from_millis(u64::from(self.connect_timeout_ms));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls()?)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(Guarded::new(resolver, guard, limit));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_millis(u64::from(self.idle_timeout_ms)))
            .pool_max_idle_per_host(self.max_idle_per_target)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(body::DRAINED)
            .build(Bounded::new(https, limit));
        Ok(Outbound { client })
    }

    fn tls(&self) -> Result<rustls::ClientConfig, BuildError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let Some(file) = &self.ca_file else {
            return Ok(config.with_webpki_roots().with_no_client_auth());
        };
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let public = roots.len();
        for certificate in CertificateDer::pem_file_iter(file).map_err(BuildError::Authorities)? {
            roots.add(certificate.map_err(BuildError::Authorities)?)?;
        }
        if roots.len() == public {
            return Err(BuildError::NoAuthority);
        }
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// One request.
#[derive(Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Absolute, `http` or `https`.
    pub uri: Uri,
    /// Its headers; `host` and `content-length` are added.
    pub headers: HeaderMap,
    /// Its body; none if empty.
    pub body: Bytes,
    /// Until the answer must have been read.
    pub timeout: Duration,
    /// How many bytes of the answer's body are kept; at most [`DRAINED`](super::DRAINED) are ever read.
    pub keep: usize,
    /// Tells whether the request may have left; keep a clone to ask after the call was dropped.
    pub departure: Departure,
}

/// What the target answered. Redirects are answers like others: they are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` as it came.
    pub retry_after: Option<String>,
    /// The first bytes of the body, as many as the call keeps.
    pub body: Bytes,
}

/// Makes guarded HTTP calls. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Outbound {
    client: Client<Bounded, Outgoing>,
}

impl Outbound {
    /// Makes one call. A pooled connection that turns out closed before anything was written is replaced once or more
    /// within the time; a request that may have left is never sent again.
    ///
    /// # Errors
    /// The class of what went wrong.
    pub async fn call(&self, call: Call) -> Result<Answer, TransportError> {
        let departure = call.departure.clone();
        let limit = call.timeout;
        match timeout(limit, self.exchange(call)).await {
            Ok(answer) => answer,
            Err(_) if departure.has_left() => Err(TransportError::Timeout),
            Err(_) => Err(TransportError::ConnectTimeout),
        }
    }

    async fn exchange(&self, call: Call) -> Result<Answer, TransportError> {
        let (departure, keep) = (call.departure, call.keep);
        let may_be_http2 = call.uri.scheme_str() == Some("https");
        let bodiless = call.body.is_empty();
        let mut request = Request::new(Outgoing::new(call.body, departure.clone()));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.uri;
        *request.headers_mut() = call.headers;
        if may_be_http2 || bodiless {
            departure.capture(capture_connection(&mut request));
        }
        let response = self.client.request(request).await.map_err(|error| classify(&error, &departure))?;
        let (head, incoming) = response.into_parts();
        let retry_after =
            head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = body::read(incoming, keep).await.map_err(|_| TransportError::Broken)?;
        Ok(Answer { status: head.status.as_u16(), retry_after, body })
    }
}
