//! Many senders that never give up: each repeats its request, with its key, at the next node until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::ledger::{Ledger, Promise};

/// A request is repeated at the next node after this, so that a node that stands still does not hold up all senders.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before a request is repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// Every so many messages, one is scheduled and then cancelled.
const CANCEL_EVERY: usize = 10;

/// Senders at work; they are cut off when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    senders: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    urls: Vec<String>,
    targets: Vec<String>,
    ledger: Arc<Ledger>,
    /// Before each message.
    pace: Duration,
    stopping: AtomicBool,
    next: AtomicUsize,
}

impl Load {
    /// Starts so many senders; they use all nodes and all targets in turn.
    pub fn start(
        client: &Client,
        urls: Vec<String>,
        targets: &[&str],
        senders: usize,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self::paced(client, urls, targets, (senders, Duration::ZERO), ledger)
    }

    /// The same; each sender rests for so long before each message, so that a long test does not end in a long queue.
    pub fn paced(
        client: &Client,
        urls: Vec<String>,
        targets: &[&str],
        (senders, pace): (usize, Duration),
        ledger: &Arc<Ledger>,
    ) -> Self {
        let shared = Arc::new(Shared {
            client: client.with_limit(PATIENCE),
            urls,
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            ledger: ledger.clone(),
            pace,
            stopping: AtomicBool::new(false),
            next: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        for sender in 0..senders {
            let shared = shared.clone();
            tasks.spawn(async move { shared.send_on_and_on(sender).await });
        }
        Self { shared, senders: tasks }
    }

    /// No sender begins another message; waits until each has the answer to its last.
    pub async fn finish(mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        while self.senders.join_next().await.is_some() {}
    }

    /// All senders stop where they are: what they wait for has no answer.
    pub async fn cut_off(mut self) {
        self.senders.shutdown().await;
    }
}

impl Shared {
    async fn send_on_and_on(&self, sender: usize) {
        while !self.stopping.load(Ordering::SeqCst) {
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let key = format!("load-{sender}-{number}");
            // Some are cancelled long before they are due, some at about that moment.
            let delay = match number % (2 * CANCEL_EVERY) {
                0 => Some(3600),
                CANCEL_EVERY => Some(1),
                _ => None,
            };
            let target = self.targets.get(number % self.targets.len().max(1)).map_or("", String::as_str);
            let mut body = json!({
                "target_service": target,
                "message_type": "chaos.load",
                "content": { "number": number, "filler": "x".repeat(100) },
            });
            if let (Some(delay), Some(fields)) = (delay, body.as_object_mut()) {
                fields.insert("delay_seconds".to_owned(), delay.into());
            }
            let Some(id) = self.send(number, &key, &body).await else { continue };
            // A scheduled one is not due within the test: until its cancellation is answered, both are right.
            let promise = if delay == Some(3600) { Promise::Either } else { Promise::Arrives };
            self.ledger.promise(&id, promise);
            if let Some(delay) = delay {
                if delay == 1 {
                    // So that the cancellation races with the delivery.
                    tokio::time::sleep(Duration::from_millis(900 + (number as u64 % 200))).await;
                }
                self.ledger.promise(&id, Promise::Either);
                if let Some(promise) = self.cancel(number, &id).await {
                    self.ledger.promise(&id, promise);
                }
            }
        }
    }

    /// Sends until it is accepted.
    async fn send(&self, number: usize, key: &str, body: &Value) -> Option<String> {
        let answer = self.answered(number, Method::POST, "/api/v1/messages", Some(key), Some(body)).await;
        match answer.text("id") {
            Ok(id) if answer.is_success() => Some(id.to_owned()),
            _ => {
                self.ledger.unexpected(format!("POST: {answer:?}"));
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    /// Cancels; `None` when the answer leaves both open.
    async fn cancel(&self, number: usize, id: &str) -> Option<Promise> {
        let answer =
            self.answered(number, Method::DELETE, &format!("/api/v1/messages/{id}"), None, None).await;
        let state = answer.body.get("message_status").and_then(Value::as_str).unwrap_or_default();
        match answer.status {
            200 => match answer.body.get("may_have_arrived").and_then(Value::as_bool) {
                Some(false) => Some(Promise::Never),
                Some(true) => None,
                None => {
                    self.ledger.unexpected(format!("DELETE: {answer:?}"));
                    None
                }
            },
            // An earlier request, whose answer was lost, had cancelled it.
            409 if state == "cancelled" => None,
            409 => Some(Promise::Arrives),
            _ => {
                self.ledger.unexpected(format!("DELETE: {answer:?}"));
                None
            }
        }
    }

    /// Repeats the request, at one node after the other, until there is an answer that is not "try again".
    async fn answered(
        &self,
        number: usize,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut node = number;
        loop {
            let url = self.urls.get(node % self.urls.len().max(1)).map_or("", String::as_str);
            let answer = {
                let _unanswered = self.ledger.request();
                self.client.call(method.clone(), &format!("{url}{path}"), key, body).await
            };
            match answer {
                Ok(answer) if !asks_to_repeat(&answer) => return answer,
                _ => {
                    self.ledger.repeated();
                    node += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Busy, without a leader, draining, unknown, or an earlier request with the same key still running.
fn asks_to_repeat(answer: &Answer) -> bool {
    matches!(answer.status, 429 | 503 | 504) || answer.code() == "HUB-1205"
}
