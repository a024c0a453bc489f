//! The interface over the fakes. Every answer is checked against the OpenAPI document.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hub_api::auth::{Access, Grant, KeySet, Requirements, Verifier, issue};
use hub_api::{Hub, Options, Ports, router};
use hub_core::access::Scope;
use hub_core::control::State;
use hub_core::time::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fakes::{FakeIds, Fakes, NOW_MS};

/// The cluster's key.
pub const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

pub struct Rig {
    pub router: Router,
    pub hub: Arc<Hub>,
    pub fakes: Fakes,
    pub verifier: Arc<Verifier>,
    document: Value,
}

/// A request in the making.
pub struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

/// A token of `service` with these scopes, good for an hour.
pub fn token(service: &str, scopes: &[Scope]) -> String {
    let grant = Grant {
        subject: service,
        scopes,
        issued_at: Timestamp::from_millis(NOW_MS),
        lifetime: Duration::from_secs(3_600),
        audience: None,
        issuer: None,
    };
    issue(SECRET, &grant).unwrap()
}

/// A token that may do everything.
pub fn admin() -> String {
    token("admin", &Scope::ALL)
}

impl Call {
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: HeaderMap::new(), body: Body::empty() }
    }

    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn put(path: &str) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Method, path, and whether there is a body.
    pub fn parts(&self) -> (Method, String, bool) {
        (self.method.clone(), self.path.clone(), self.headers.contains_key("content-type"))
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn admin(self) -> Self {
        let token = admin();
        self.token(&token)
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn text(self, text: impl Into<String>) -> Self {
        self.header("content-type", "application/json").body(text.into())
    }

    pub fn json(self, value: &Value) -> Self {
        self.text(value.to_string())
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.to_vec()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    #[track_caller]
    pub fn refused(self, code: hub_core::error::Code) -> Self {
        assert_eq!(self.code(), code.to_string(), "{} {}", self.status, self.text());
        self
    }

    pub fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let keys = KeySet::default().with_secret(SECRET).unwrap();
        let verifier = Arc::new(Verifier::new(keys, Requirements::default()));
        Self::build(change, Access::Tokens(Arc::clone(&verifier)), verifier)
    }

    /// Tokens are signed by an identity provider that `jwks` shows, and must be for `audience`.
    pub fn with_provider(jwks: &Value, audience: &str) -> Self {
        let keys = KeySet::default().with_jwks(&jwks.to_string()).unwrap();
        let demands = Requirements { audience: Some(audience.to_owned()), issuer: None };
        let verifier = Arc::new(Verifier::new(keys, demands));
        Self::build(|_| {}, Access::Tokens(Arc::clone(&verifier)), verifier)
    }

    /// Nobody needs a token.
    pub fn open() -> Self {
        let verifier = Arc::new(Verifier::new(KeySet::default(), Requirements::default()));
        Self::build(|_| {}, Access::open(), verifier)
    }

    fn build(change: impl FnOnce(&mut Options), access: Access, verifier: Arc<Verifier>) -> Self {
        let fakes = Fakes::default();
        let mut options = Options { deadline: Duration::from_millis(300), ..Options::default() };
        change(&mut options);
        let control = Arc::clone(&fakes.control);
        let view: hub_api::ControlView = Arc::new(move || -> State { control.view() });
        let urls: hub_api::UrlPolicy = Arc::new(|url| {
            if url.contains("169.254.") { Err("leads to a metadata address".into()) } else { Ok(()) }
        });
        let hub = Hub::new(Ports {
            store: fakes.store.clone(),
            cache: fakes.cache.clone(),
            control: fakes.control.clone(),
            view,
            cluster: fakes.cluster.clone(),
            health: fakes.health.clone(),
            clock: fakes.clock.clone(),
            ids: Arc::new(FakeIds::default()),
            urls,
            access,
            registry: prometheus::Registry::new(),
            options,
        })
        .unwrap();
        let document = serde_json::from_str(&hub_api::document("0.0.0")).unwrap();
        Self { router: router(Arc::clone(&hub)), hub, fakes, verifier, document }
    }

    /// Calls, and checks the answer against the document.
    pub async fn call(&self, call: Call) -> Answer {
        let (method, path) = (call.method.clone(), call.path.clone());
        let answer = self.raw(call).await;
        self.check(&method, &path, &answer);
        answer
    }

    /// Calls what the document does not know.
    pub async fn raw(&self, call: Call) -> Answer {
        let mut request = Request::builder().method(call.method).uri(&call.path).body(call.body).unwrap();
        *request.headers_mut() = call.headers;
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    /// Registers a service at a plain address.
    pub async fn register(&self, name: &str) {
        let body = json!({"name": name, "url": format!("http://{name}.test:9000")});
        let answer = self.call(Call::post("/api/v1/services/register").admin().json(&body)).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }

    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let operation = &self.template(path)[method.as_str().to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not documented");
        let status = answer.status.as_u16();
        let documented = &operation["responses"][status.to_string()];
        assert!(documented.is_object(), "{method} {path}: {status} is not documented: {}", answer.text());
        assert_eq!(answer.header("hub-node"), Some("1"));
        assert!(answer.header("x-request-id").is_some());
        if status >= 400 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            let problem = answer.json();
            assert_eq!(problem["status"], status);
            let code = problem["code"].as_str().unwrap();
            let codes = documented["description"].as_str().unwrap();
            assert!(codes.contains(code), "{method} {path}: {code} is not documented");
            assert_eq!(problem["type"], format!("urn:message-hub:problem:{code}"));
            assert_eq!(problem["instance"], path);
            assert_eq!(problem["trace_id"].as_str().unwrap().len(), 32);
        }
        let Some(content) = documented["content"].as_object() else {
            assert!(answer.bytes.is_empty(), "{method} {path}: a body is not documented");
            return;
        };
        let kind = answer.header("content-type").unwrap();
        let (_, media) = content
            .iter()
            .find(|(documented, _)| kind.starts_with(documented.as_str()))
            .unwrap_or_else(|| panic!("{method} {path}: {kind} is not documented"));
        if kind.contains("json") {
            let mut schema = media["schema"].clone();
            schema["components"] = self.document["components"].clone();
            let validator = jsonschema::validator_for(&schema).unwrap();
            if let Err(error) = validator.validate(&answer.json()) {
                panic!("{method} {path}: {error} at {}: {}", error.instance_path(), answer.text());
            }
        }
    }

    /// The document's item for a path; plain segments before parameters.
    fn template(&self, path: &str) -> &Value {
        let segments: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let parts: Vec<&str> = template.split('/').collect();
            parts.len() == segments.len()
                && parts.iter().zip(&segments).all(|(part, segment)| part.starts_with('{') || part == segment)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let best = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count());
        &paths[best.unwrap_or_else(|| panic!("{path} is not documented"))]
    }
}
