//! The connection, and the commands that go over it.

use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hub_core::id::MessageId;
use hub_core::limit::{Ask, Demand, Fate, Key, MOST_PERMITS, Rate, Ruling, Verdict};
use hub_core::message::Record;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisResult, Script, TlsCertificates};

use super::fault::Fault;
use super::options::Options;

/// How long a new connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Commands that may wait to be written.
const WAITING: usize = 1_024;
/// Larger messages are not kept: they would push out what is asked for more often.
const MOST_BYTES: usize = 64 << 10;
/// The form in which messages are kept; part of their keys, so that versions do not read each other's.
const RECORD_FORM: u32 = 1;

/// One connection that many callers share, set up again when it breaks.
pub(super) struct Link {
    client: Client,
    config: ConnectionManagerConfig,
    manager: RwLock<ConnectionManager>,
    script: Script,
    namespace: String,
    generation: u64,
    timeout: Duration,
}

impl Link {
    pub(super) fn new(options: &Options) -> Result<Self, Fault> {
        let client = client(options)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT.max(options.timeout)))
            .set_pipeline_buffer_size(WAITING)
            // Who asks does not wait for a second try: the service tries again.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config.clone())?;
        Ok(Self {
            client,
            config,
            manager: RwLock::new(manager),
            script: Script::new(include_str!("take.lua")),
            namespace: options.namespace.clone(),
            generation: options.generation,
            timeout: options.timeout,
        })
    }

    /// Leaves the connection: what has broken unseen, or was refused once, does not mend by itself.
    pub(super) fn renew(&self) -> Result<(), Fault> {
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone())?;
        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = manager;
        Ok(())
    }

    /// Decides over all demands.
    pub(super) async fn take(&self, ask: &Ask) -> Result<Verdict, Fault> {
        self.decide(ask, self.timeout).await
    }

    /// Does what every request does, with a key of its own: only that shows that requests can be answered.
    pub(super) async fn prove(&self, limit: Duration) -> Result<(), Fault> {
        let rate = Rate::every(Duration::from_micros(1), MOST_PERMITS);
        let demand = Demand { key: Key::Caller("".into()), rate, permits: 1 };
        self.decide(&Ask { caller: Some(demand), ..Ask::default() }, limit).await.map(|_| ())
    }

    /// A message that was kept.
    pub(super) async fn ended(&self, id: MessageId) -> Result<Option<Record>, Fault> {
        let key = self.record_key(id);
        let kept: Option<Vec<u8>> = self
            .call(self.timeout, |mut manager| {
                let command = redis::cmd("GET").arg(&key).to_owned();
                async move { command.query_async(&mut manager).await }
            })
            .await?;
        // What cannot be read is not there.
        Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Keeps a message for a while.
    pub(super) async fn keep_ended(&self, record: &Record, time: Duration) -> Result<(), Fault> {
        let Ok(bytes) = serde_json::to_vec(record) else { return Ok(()) };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if bytes.len() > MOST_BYTES || millis == 0 {
            return Ok(());
        }
        let key = self.record_key(record.message.id);
        self.call(self.timeout, |mut manager| {
            let command = redis::cmd("SET").arg(&key).arg(&bytes).arg("PX").arg(millis).to_owned();
            async move { command.query_async(&mut manager).await }
        })
        .await
    }

    fn record_key(&self, id: MessageId) -> String {
        format!("{}:ended:{RECORD_FORM}:{}:{id}", self.namespace, self.generation)
    }

    async fn decide(&self, ask: &Ask, limit: Duration) -> Result<Verdict, Fault> {
        let numbers: Vec<i64> = self
            .call(limit, |mut manager| {
                let mut invocation = self.script.prepare_invoke();
                invocation.arg(u8::from(ask.whole)).arg(u8::from(ask.caller.is_some())).arg(MOST_PERMITS);
                for demand in ask.demands() {
                    invocation.key(rate_key(&self.namespace, &demand.key));
                    invocation.arg(micros(demand.rate)).arg(demand.rate.burst()).arg(demand.permits);
                }
                async move { invocation.invoke_async(&mut manager).await }
            })
            .await?;
        let rulings: Option<Vec<Ruling>> = numbers.chunks(4).map(ruling).collect();
        let strange = || Fault::Answer("something else than was asked".to_owned());
        Verdict::of(ask, rulings.ok_or_else(strange)?).ok_or_else(strange)
    }

    /// Runs a command within `limit`; once more when the connection was found closed, for a server that was restarted or
    /// that closes idle ones is no reason to stop asking it. A permit that is taken twice by that costs its caller one.
    async fn call<T, F>(&self, limit: Duration, command: impl Fn(ConnectionManager) -> F) -> Result<T, Fault>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let attempts = async {
            match command(self.manager()).await {
                Err(error) if error.is_connection_dropped() && !error.is_connection_refusal() => {
                    command(self.manager()).await
                }
                done => done,
            }
        };
        match tokio::time::timeout(limit, attempts).await {
            Ok(Err(error)) if error.is_timeout() => Err(Fault::Slow(limit)),
            Ok(done) => done.map_err(Fault::from),
            Err(_) => Err(Fault::Slow(limit)),
        }
    }

    fn manager(&self) -> ConnectionManager {
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A client for the endpoint; nothing is connected.
pub(super) fn client(options: &Options) -> Result<Client, Fault> {
    let info = options.endpoint.info();
    Ok(match &options.authorities {
        Some(pem) if options.endpoint.is_tls() => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
            Client::build_with_tls(info, certificates)?
        }
        _ => Client::open(info)?,
    })
}

/// The key of a meter.
fn rate_key(namespace: &str, key: &Key) -> String {
    match key {
        Key::Caller(subject) => format!("{namespace}:rate:caller:{subject}"),
        Key::Target(name) => format!("{namespace}:rate:target:{name}"),
    }
}

/// Microseconds between two permits, with nanoseconds behind the point.
fn micros(rate: Rate) -> String {
    let nanos = rate.interval_nanos();
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

/// The script's four numbers for one demand.
fn ruling(numbers: &[i64]) -> Option<Ruling> {
    let [fate, left, wait, full_in] = *numbers else { return None };
    let fate = match fate {
        0 => Fate::Taken,
        1 => Fate::Refused,
        2 => Fate::Spared,
        _ => return None,
    };
    let micros = |number: i64| u64::try_from(number).ok().map(Duration::from_micros);
    Some(Ruling { fate, left: u32::try_from(left).ok()?, wait: micros(wait)?, full_in: micros(full_in)? })
}
