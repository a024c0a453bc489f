//! PostgreSQL as the message store: brought up to date at the start, waited for while it does not answer, watched from then
//! on. No raft group has a part in it.

use std::sync::Arc;
use std::time::Duration;

use hub_core::control::State;
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Check, CheckStatus, Clock};
use hub_storage::copy::Origin;
use hub_storage::postgres::{self, Outbox, Ports, Prepared, Store, prepare};
use hub_storage::rabbitmq::Broker;
use secrecy::SecretString;
use tokio::sync::watch;
use tracing::{info, warn};

use super::base::Base;
use super::drained_queue::DrainedQueue;
use super::message_plane::MessagePlane;
use super::rabbitmq;
use crate::coded::CodedError;
use crate::config::Secret;
use crate::database::{refused, url_of};
use crate::identity::{DataFolder, Identity};
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind};
use crate::worker::delivery::Handle;

/// How long the start itself waits for the server. What takes longer goes on while the node runs.
const FIRST: Duration = Duration::from_secs(5);
/// One later attempt: migrations may take their time.
const ATTEMPT: Duration = Duration::from_secs(600);
/// The pause after an attempt that failed, and between two looks at a server that works.
const PAUSE: Duration = Duration::from_secs(1);
/// A server that does not answer for so long does not answer.
const ANSWER: Duration = Duration::from_secs(3);

const fn kind(name: &'static str, on_cancel: OnCancel) -> TaskKind {
    TaskKind { name, stage: Stage::Base, on_error: OnError::StopNode, on_cancel }
}

/// How the database fares.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// It was never reached since the start.
    Waited(String),
    /// It answers; its version.
    Answers(String),
    /// It answers, and takes no writes; its version.
    ReadOnly(String),
    /// It did before.
    Silent(String),
}

impl Standing {
    fn check(&self) -> Check {
        let (status, detail) = match self {
            Self::Waited(reason) => (CheckStatus::Failing, format!("waits for PostgreSQL: {reason}")),
            Self::Answers(version) => (CheckStatus::Ok, format!("PostgreSQL {version} answers")),
            Self::ReadOnly(version) => (
                CheckStatus::Failing,
                format!("PostgreSQL {version} takes no writes: it is a standby, or was made read-only"),
            ),
            Self::Silent(reason) => (CheckStatus::Failing, format!("PostgreSQL does not answer: {reason}")),
        };
        Check { name: "store", status, detail }
    }
}

/// Makes the store and starts what it needs.
///
/// # Errors
/// The database refuses this hub for good, with a code. One that does not answer is waited for, in the background.
pub async fn open(
    base: &Base,
    folder: &DataFolder,
    node: NodeId,
    state: watch::Receiver<State>,
    slots: &Handle,
    url: &Secret,
) -> Result<MessagePlane, CodedError> {
    let url = url_of(url);
    let origin = folder.identity().and_then(Identity::origin);
    let (standing, seen) = watch::channel(Standing::Waited("it was not asked yet".to_owned()));
    let found = first_look(base, &url, origin, &standing).await?;
    let broker = rabbitmq::open(base, node, &state).await?;
    let outlet = broker.as_ref().map(Broker::outlet);
    let ports = Ports {
        node,
        clock: base.time(),
        ids: Arc::clone(&base.ids),
        slots: Arc::new(slots.clone()),
        outbox: outlet.clone().map(|outlet| Arc::new(outlet) as Arc<dyn Outbox>),
    };
    let (service, store) = options(base, url.clone()).build(ports).map_err(refused)?;
    base.tasks.once(kind("message_store", OnCancel::Finish), |tokens| async move {
        Box::pin(service.run(tokens.soft)).await;
        Ok(())
    });
    let watcher = Watcher { clock: base.time(), url, origin, store: store.clone(), standing };
    base.tasks.once(kind("database", OnCancel::Drop), |_| async move { Ok(watcher.run(found).await?) });
    let store = Arc::new(store);
    let queue = match broker {
        Some(broker) => rabbitmq::attach(base, broker, &store),
        None => Arc::clone(&store) as _,
    };
    let queue = Arc::new(DrainedQueue::new(queue, node, state));
    let checks = move || {
        let broker = outlet.as_ref().map(rabbitmq::check);
        std::iter::once(seen.borrow().check()).chain(broker).collect()
    };
    Ok(MessagePlane { store, queue, group: None, checks: Arc::new(checks) })
}

/// The server's version, if it answers now.
async fn first_look(
    base: &Base,
    url: &SecretString,
    origin: Option<Origin>,
    standing: &watch::Sender<Standing>,
) -> Result<Option<String>, CodedError> {
    match prepare(url, base.clock.instant() + FIRST).await {
        Ok(prepared) => {
            holds(&prepared, origin)?;
            told(&prepared);
            standing.send_replace(Standing::Answers(prepared.server.clone()));
            Ok(Some(prepared.server))
        }
        Err(error) if error.is_final() => Err(refused(error)),
        Err(error) => {
            warn!(reason = %error, "the database is waited for; until it answers this node is not ready");
            standing.send_replace(Standing::Waited(error.to_string()));
            Ok(None)
        }
    }
}

/// Whether the messages that were copied out of this node's folder are in this database, and not in another one.
fn holds(prepared: &Prepared, origin: Option<Origin>) -> Result<(), CodedError> {
    match origin {
        Some(origin) if prepared.copy != Some(origin) => {
            let detail =
                "the messages of this node were copied into a database, and DATABASE_URL names another one";
            Err(CodedError::new(code::OTHER_STORE, detail))
        }
        _ => Ok(()),
    }
}

fn options(base: &Base, url: SecretString) -> postgres::Options {
    let mut options = postgres::Options::new(url);
    options.connections = base.config.postgres.connections;
    options.max_backlog = base.config.messages.backlog_limit;
    options
}

fn told(prepared: &Prepared) {
    info!(version = prepared.server, migrations_applied = prepared.applied, "the database is up to date");
}

/// Brings the database up to date as soon as it answers, and then sees whether it still does.
struct Watcher {
    clock: Arc<dyn Clock>,
    url: SecretString,
    /// What must have been copied into it.
    origin: Option<Origin>,
    store: Store,
    standing: watch::Sender<Standing>,
}

impl Watcher {
    /// Runs until the database turns out to refuse this hub for good.
    async fn run(self, found: Option<String>) -> Result<(), CodedError> {
        let version = match found {
            Some(version) => version,
            None => self.wait().await?,
        };
        loop {
            tokio::time::sleep(PAUSE).await;
            let deadline = self.clock.instant() + ANSWER;
            let now = match self.store.takes_writes(deadline).await {
                Ok(true) => Standing::Answers(version.clone()),
                Ok(false) => Standing::ReadOnly(version.clone()),
                Err(error) => Standing::Silent(error.to_string()),
            };
            self.tell(&now);
            self.note(now);
        }
    }

    async fn wait(&self) -> Result<String, CodedError> {
        loop {
            match prepare(&self.url, self.clock.instant() + ATTEMPT).await {
                Ok(prepared) => {
                    holds(&prepared, self.origin)?;
                    told(&prepared);
                    self.note(Standing::Answers(prepared.server.clone()));
                    return Ok(prepared.server);
                }
                Err(error) if error.is_final() => return Err(refused(error)),
                Err(error) => {
                    if self.note(Standing::Waited(error.to_string())) {
                        warn!(reason = %error, "the database is still waited for");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// One line for each change: not for each reason why it does not answer.
    fn tell(&self, now: &Standing) {
        let before = self.standing.borrow().check().status;
        let check = now.check();
        match (before, check.status) {
            (CheckStatus::Ok, CheckStatus::Failing) => {
                warn!(reason = check.detail, "messages are refused until the database is back")
            }
            (CheckStatus::Failing, CheckStatus::Ok) => {
                info!(found = check.detail, "messages are taken again")
            }
            _ => {}
        }
    }

    /// Whether that is news.
    fn note(&self, now: Standing) -> bool {
        self.standing.send_if_modified(|known| {
            let news = *known != now;
            if news {
                *known = now;
            }
            news
        })
    }
}
