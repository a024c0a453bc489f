//! The client itself: sends a call to one node after another until one gives a definite answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hub_core::error::chain;
use hyper::Request;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, IF_MATCH};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Answer, Call, Error, Problem, source};

/// Largest answer that is read: a page of 500 large messages fits.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base URLs of nodes, in the order in which they are tried.
    pub urls: Vec<Url>,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// For the whole call, all nodes together.
    pub timeout: Duration,
}

type Connector = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Asks the hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    urls: Vec<Url>,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    connector: Connector,
}

/// What one node made of a call.
enum Step {
    Done(Answer),
    Problem(Box<Problem>),
    /// Nothing was sent.
    NotSent(String),
    /// Sent, and no answer came.
    Lost(String),
}

impl Options {
    /// Makes the client.
    ///
    /// # Errors
    /// When an address or the token cannot be used.
    pub fn build(self) -> Result<Client, Error> {
        for url in &self.urls {
            let fits = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
            if !fits || url.cannot_be_a_base() || url.query().is_some() {
                let reason = "must be http://host:port or https://host:port".to_owned();
                return Err(Error::Address { url: url.to_string(), reason });
            }
        }
        let authorization = match &self.token {
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                    .map_err(|error| Error::Request { source: error.into() })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(3)));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|source| Error::Tls { source })?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connector = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
        Ok(Client { urls: self.urls, authorization, timeout: self.timeout, connector })
    }
}

impl Client {
    /// The same client, asking only the node at `url`.
    #[must_use]
    pub fn only(&self, url: Url) -> Self {
        Self { urls: vec![url], ..self.clone() }
    }

    /// The same client with another deadline for each call.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Sends a call: to the next node when one cannot be reached, is too busy, or does not answer. A write keeps
    /// its key over all of them, so that it is done at most once.
    ///
    /// # Errors
    /// When no node answered with 2xx; see [`Error`].
    pub async fn send(&self, call: Call) -> Result<Answer, Error> {
        let deadline = source::instant() + self.timeout;
        let mut call = call;
        let key = match call.idempotency_key.take() {
            Some(key) => key,
            None if call.is_write() => source::request_key()?,
            None => String::new(),
        };
        let mut lost = None;
        let mut refused = None;
        let mut unreached = None;
        for (tried, url) in self.urls.iter().enumerate() {
            let left = self.urls.len().saturating_sub(tried);
            let step = self.step(&call, url, &key, deadline, left).await?;
            match step {
                Step::Done(answer) => return Ok(answer),
                Step::Problem(problem) if problem.is_unknown() => lost = Some(problem.to_string()),
                Step::Problem(problem) if problem.is_passing() => refused = Some(problem),
                Step::Problem(problem) => return Err(Error::Refused(problem)),
                Step::NotSent(last) => unreached = Some(last),
                Step::Lost(last) if call.is_write() => lost = Some(last),
                Step::Lost(last) => unreached = Some(last),
            }
        }
        match (lost, refused, unreached) {
            (Some(last), ..) => Err(Error::Unknown { last, key }),
            (None, Some(problem), _) => Err(Error::Refused(problem)),
            (None, None, Some(last)) => Err(Error::Unreachable { last }),
            (None, None, None) => Err(Error::Unreachable { last: "no address given".to_owned() }),
        }
    }

    /// One node; it may use its share of the time that is left.
    async fn step(
        &self,
        call: &Call,
        url: &Url,
        key: &str,
        deadline: Instant,
        nodes_left: usize,
    ) -> Result<Step, Error> {
        let left = deadline.saturating_duration_since(source::instant());
        if left.is_zero() {
            return Ok(Step::NotSent("the time is over".to_owned()));
        }
        let share = left.div_f64(nodes_left.max(1) as f64);
        let request = self.request(call, url, key)?;
        let exchange = async {
            let response = match self.connector.request(request).await {
                Ok(response) => response,
                Err(error) if error.is_connect() => {
                    return Step::NotSent(format!("{url}: {}", chain(&error)));
                }
                Err(error) => return Step::Lost(format!("{url}: {}", chain(&error))),
            };
            let (head, body) = response.into_parts();
            let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => return Step::Lost(format!("{url}: {}", chain(&*error))),
            };
            if head.status.is_success() {
                Step::Done(Answer { status: head.status, headers: head.headers, body })
            } else {
                Step::Problem(Box::new(Problem::parse(head.status.as_u16(), &body)))
            }
        };
        let late = || Step::Lost(format!("{url}: no answer within {:.1} s", share.as_secs_f64()));
        Ok(tokio::time::timeout(share, exchange).await.unwrap_or_else(|_| late()))
    }

    fn request(&self, call: &Call, url: &Url, key: &str) -> Result<Request<Full<Bytes>>, Error> {
        let target = format!("{}{}", url.as_str().trim_end_matches('/'), call.path);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(target)
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(revision) = &call.if_match {
            request = request.header(IF_MATCH, revision);
        }
        request
            .body(Full::new(call.body.clone().unwrap_or_default()))
            .map_err(|source| Error::Request { source })
    }
}
