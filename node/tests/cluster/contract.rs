//! Every operation of the `OpenAPI` document, called through each of three nodes, its answer checked against the document.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Http, Receiver, TestNode, locked, three, until};

/// The document, and which of its operations were called.
struct Contract {
    http: Http,
    document: Value,
    called: Mutex<BTreeSet<String>>,
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    let same = wanted.by_ref().zip(found.by_ref()).all(|(want, have)| want == have || want.starts_with('{'));
    same && template.split('/').count() == path.split('/').count()
}

impl Contract {
    async fn read(http: &Http, url: &str) -> anyhow::Result<Self> {
        let (status, document) = http.get(&format!("{url}/openapi.json")).await?;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(Self { http: http.clone(), document, called: Mutex::default() })
    }

    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.document["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    /// The operation behind a call; a path without parameters goes before one with.
    fn operation(&self, method: &Method, path: &str) -> anyhow::Result<&Value> {
        let lower = method.as_str().to_ascii_lowercase();
        let mut fitting: Vec<_> =
            self.operations().filter(|(template, verb, _)| *verb == lower && fits(template, path)).collect();
        fitting.sort_by_key(|(template, ..)| template.matches('{').count());
        let (.., operation) =
            fitting.first().with_context(|| format!("{method} {path} is not in the document"))?;
        Ok(operation)
    }

    /// Calls and checks the answer: its status, its content type and its shape.
    async fn call(
        &self,
        method: Method,
        url: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let operation = self.operation(&method, path.split('?').next().unwrap_or_default())?;
        let id = operation["operationId"].as_str().context("no operation id")?.to_owned();
        let (status, kind, bytes) = self.http.exchange(method, &format!("{url}{path}"), body).await?;
        locked(&self.called).insert(id.clone());
        let what = || format!("{id} {path}: {status} {kind} {}", String::from_utf8_lossy(&bytes));
        ensure!(status != StatusCode::INTERNAL_SERVER_ERROR, what());
        let responses = &operation["responses"];
        let response = responses.get(status.as_str()).or_else(|| responses.get("default"));
        let response = response.with_context(|| format!("status is not in the document: {}", what()))?;
        let response = self.resolved(response);
        let Some(contents) = response.get("content").and_then(Value::as_object) else {
            ensure!(bytes.is_empty(), "a body that is not in the document: {}", what());
            return Ok((status, Value::Null));
        };
        let media = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
        let content = contents.iter().find(|(name, _)| media(name) == media(&kind));
        let (_, content) =
            content.with_context(|| format!("content type is not in the document: {}", what()))?;
        if !media(&kind).ends_with("json") {
            return Ok((status, Value::String(String::from_utf8_lossy(&bytes).into_owned())));
        }
        let value: Value = serde_json::from_slice(&bytes).with_context(what)?;
        let mut schema = content["schema"].clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema)?;
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        ensure!(errors.is_empty(), "{errors:?}: {}", what());
        Ok((status, value))
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
            Some(pointer) => self.document.pointer(pointer).unwrap_or(value),
            None => value,
        }
    }

    /// Calls and wants this status.
    async fn wants(
        &self,
        wanted: u16,
        method: Method,
        url: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (status, value) = self.call(method.clone(), url, path, body).await?;
        ensure!(status.as_u16() == wanted, "{method} {path}: {status} instead of {wanted}: {value}");
        Ok(value)
    }

    /// Waits until the message is in a state.
    async fn reaches(&self, url: &str, id: &str, state: &str) -> anyhow::Result<()> {
        until(state, || async {
            let message = self.wants(200, Method::GET, url, &format!("/api/v1/messages/{id}"), None).await?;
            ensure!(message["status"] == state, "{message}");
            Ok(())
        })
        .await
    }
}

fn message(target: &str) -> Value {
    json!({
        "sender_service": "tester", "target_service": target, "message_type": "contract.checked",
        "content": {"text": "ä", "list": [1, 2.5, null]}, "metadata": {"correlation_id": "contract"},
    })
}

async fn services(api: &Contract, url: &str, name: &str, receiver: &Receiver) -> anyhow::Result<()> {
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    let full = json!({
        "name": name, "version": "1.2", "instances": [{"id": "one", "url": receiver.url, "weight": 50}],
        "delivery": {"timeout_ms": 5000, "max_concurrency": 5, "headers": {"x-team": "blue"}},
        "retry": {"base_ms": 100, "max_retries": 2}, "health_check": {"kind": "http", "path": "/health"},
        "metadata": {"team": "blue"}, "tags": ["contract"],
    });
    let register = "/api/v1/services/register";
    api.wants(201, post.clone(), url, register, Some(full.clone())).await?;
    api.wants(200, post.clone(), url, register, Some(full)).await?;
    api.wants(422, post.clone(), url, register, Some(json!({"name": "Wrong Name", "unknown": 1}))).await?;
    for path in ["?tag=contract", "", "/health", &format!("/{name}"), &format!("/{name}/health")] {
        api.wants(200, get.clone(), url, &format!("/api/v1/services{path}"), None).await?;
    }
    for path in ["routes", "backlog"] {
        api.wants(200, get.clone(), url, &format!("/api/v1/services/{name}/{path}"), None).await?;
    }
    for path in ["pause", "resume"] {
        api.wants(200, put.clone(), url, &format!("/api/v1/services/{name}/{path}"), None).await?;
    }
    let instance = format!("/api/v1/services/{name}/instances/one");
    for on in [true, false] {
        let body = Some(json!({"maintenance": on}));
        api.wants(200, put.clone(), url, &format!("{instance}/maintenance"), body).await?;
    }
    api.wants(422, put, url, &format!("{instance}/heartbeat"), None).await?;
    api.wants(422, get, url, "/api/v1/services/watch", None).await?;
    api.wants(200, post.clone(), url, &format!("/api/v1/services/{name}/secret/rotate"), None).await?;
    api.wants(200, post, url, &format!("/api/v1/services/{name}/test"), None).await?;
    Ok(())
}

async fn messages(api: &Contract, url: &str, name: &str) -> anyhow::Result<()> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let sent = api.wants(202, post.clone(), url, "/api/v1/messages", Some(message(name))).await?;
    let id = sent["id"].as_str().context("no id")?;
    api.reaches(url, id, "delivered").await?;
    api.wants(404, post.clone(), url, "/api/v1/messages", Some(message("nobody"))).await?;
    api.wants(422, post.clone(), url, "/api/v1/messages", Some(json!({"target_service": 1}))).await?;
    api.wants(400, get.clone(), url, "/api/v1/messages/no-id", None).await?;
    api.wants(200, get, url, "/api/v1/messages?status=delivered&limit=2", None).await?;
    let mut later = message(name);
    later["delay_seconds"] = 3600.into();
    let sent = api.wants(202, post.clone(), url, "/api/v1/messages", Some(later)).await?;
    let path = format!("/api/v1/messages/{}", sent["id"].as_str().context("no id")?);
    api.wants(200, delete.clone(), url, &path, None).await?;
    api.wants(409, delete, url, &path, None).await?;
    let batch = json!({"messages": [message(name), {"target_service": "x"}, message("nobody")]});
    let results = api.wants(200, post, url, "/api/v1/messages/batch", Some(batch)).await?;
    ensure!(results["results"].as_array().map(Vec::len) == Some(3), "{results}");
    Ok(())
}

async fn dead_letters(api: &Contract, url: &str, name: &str, receiver: &Receiver) -> anyhow::Result<()> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let gone = json!({"name": name, "url": receiver.url, "delivery": {"path": "/gone"}});
    api.wants(201, post.clone(), url, "/api/v1/services/register", Some(gone)).await?;
    let sent = api.wants(202, post.clone(), url, "/api/v1/messages", Some(message(name))).await?;
    let id = sent["id"].as_str().context("no id")?;
    api.reaches(url, id, "dead_letter").await?;
    let path = format!("/api/v1/dead-letters/{id}");
    api.wants(200, get.clone(), url, &path, None).await?;
    api.wants(200, get, url, &format!("/api/v1/dead-letters?service={name}"), None).await?;
    api.wants(200, post.clone(), url, &format!("{path}/replay"), None).await?;
    api.reaches(url, id, "dead_letter").await?;
    api.wants(200, delete.clone(), url, &path, None).await?;
    api.wants(409, delete, url, &path, None).await?;
    api.wants(409, post, url, &format!("{path}/replay"), None).await?;
    Ok(())
}

async fn cluster(api: &Contract, url: &str, node: u64) -> anyhow::Result<()> {
    let (get, post) = (Method::GET, Method::POST);
    api.wants(200, get.clone(), url, "/api/v1/cluster", None).await?;
    api.wants(200, get.clone(), url, &format!("/api/v1/cluster/quorum?without={node}"), None).await?;
    api.wants(404, get.clone(), url, "/api/v1/cluster/quorum?without=999999", None).await?;
    let transfer = Some(json!({"group": "messages"}));
    api.wants(200, post.clone(), url, "/api/v1/cluster/transfer-leader", transfer).await?;
    api.wants(404, Method::DELETE, url, "/api/v1/cluster/members/999999", None).await?;
    for path in ["drain", "undrain"] {
        let body = Some(json!({"node_id": node}));
        api.wants(200, post.clone(), url, &format!("/api/v1/cluster/{path}"), body).await?;
    }
    for path in ["/livez", "/health", "/metrics"] {
        api.wants(200, get.clone(), url, path, None).await?;
    }
    until("ready", || api.wants(200, Method::GET, url, "/readyz?verbose", None)).await?;
    Ok(())
}

async fn removal(api: &Contract, url: &str, name: &str) -> anyhow::Result<()> {
    let delete = Method::DELETE;
    api.wants(204, delete.clone(), url, &format!("/api/v1/services/{name}/instances/one"), None).await?;
    api.wants(404, delete.clone(), url, &format!("/api/v1/services/{name}/instances/one"), None).await?;
    api.wants(204, delete, url, &format!("/api/v1/services/{name}"), None).await?;
    api.wants(404, Method::GET, url, &format!("/api/v1/services/{name}"), None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_documented_on_every_node() -> anyhow::Result<()> {
    let (folder, http, receiver) = (tempfile::tempdir()?, Http::new(), Receiver::start().await?);
    let mut nodes = three(folder.path(), &http).await?;
    for (number, node) in nodes.iter().enumerate() {
        let api = Contract::read(&http, &node.url).await?;
        let name = format!("contract-{number}");
        every_call(&api, node, &name, &receiver).await.with_context(|| format!("through node {number}"))?;
        let called = locked(&api.called).clone();
        let missing: Vec<&str> = api
            .operations()
            .filter_map(|(.., operation)| operation["operationId"].as_str())
            .filter(|id| !called.contains(*id))
            .collect();
        assert!(missing.is_empty(), "never called: {missing:?}");
    }
    for node in &mut nodes {
        node.stop().await;
    }
    Ok(())
}

async fn every_call(api: &Contract, node: &TestNode, name: &str, receiver: &Receiver) -> anyhow::Result<()> {
    services(api, &node.url, name, receiver).await?;
    messages(api, &node.url, name).await?;
    dead_letters(api, &node.url, &format!("{name}-gone"), receiver).await?;
    cluster(api, &node.url, node.id()).await?;
    removal(api, &node.url, name).await
}
