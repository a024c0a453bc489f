//! Connections to the server: made when they are needed, kept while they are whole, and given up at once when they are not.
//!
//! A connection is kept only after a statement that ran to its end, so nothing half done is ever found on one. While the server
//! cannot be reached, callers are told so at once, and one of them tries again every quarter of a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hub_core::port::Clock;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Executor, PgConnection, Postgres};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::fault::{Fault, within};
use super::setup::{self, SetupError};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long others are told that there is no connection, after making one failed.
const GIVEN_UP: Duration = Duration::from_millis(250);
/// Kept connections are thrown away no more often than this.
const PURGE: Duration = Duration::from_secs(1);

/// What every session is set to. All statements walk indexes, and small tables grow under plans that were made for them: plans
/// that walk whole tables are ruled out, and each statement is planned once. A commit is a durable one whatever the server's
/// default; what is stricter than that stays.
pub(super) const SESSION: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
     SET plan_cache_mode = force_generic_plan; SET statement_timeout = '30s'; \
     SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = warning; SET timezone = 'UTC'; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// Whether this session may not write: on a standby, on a server that was made read-only, for a role or a database that was.
const READ_ONLY: &str = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'";

/// A bounded set of connections. See the module.
pub(super) struct Link {
    options: PgConnectOptions,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<PgConnection>,
    /// When and why making a connection failed last, if none was made since.
    trouble: Option<(Instant, String)>,
    purged: Option<Instant>,
}

/// A connection in use. Dropped without [`Self::close`], it is not used again.
pub(super) struct Lease<'a> {
    link: &'a Link,
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Link {
    pub(super) fn new(options: PgConnectOptions, connections: u32, clock: Arc<dyn Clock>) -> Self {
        let permits = Semaphore::new(usize::try_from(connections.max(1)).unwrap_or(1));
        Self { options, clock, permits, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be sent at the moment, if that was found out just now.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let now = self.clock.instant();
        let state = self.state();
        let (at, reason) = state.trouble.as_ref()?;
        let fresh = now.saturating_duration_since(*at) < GIVEN_UP && state.idle.is_empty();
        fresh.then(|| Fault::Unreachable(reason.clone()))
    }

    /// Whether the server takes writes, asked over a connection that nobody uses; `None` when all are in use.
    pub(super) async fn takes_writes_now(&self, deadline: Instant) -> Option<Result<bool, Fault>> {
        let permit = self.permits.try_acquire().ok()?;
        let lease = self.lease(permit, deadline).await;
        let asked = match lease {
            Ok(lease) => self.takes_writes_by(lease, deadline).await,
            Err(fault) => Err(fault),
        };
        match asked {
            // The connection was dead, which says nothing about the server.
            Err(Fault::Lost { .. }) if self.clock.instant() < deadline => {
                Some(self.takes_writes(deadline).await)
            }
            other => Some(other),
        }
    }

    /// Whether the server takes writes.
    pub(super) async fn takes_writes(&self, deadline: Instant) -> Result<bool, Fault> {
        let lease = self.acquire(deadline).await?;
        self.takes_writes_by(lease, deadline).await
    }

    async fn takes_writes_by(&self, mut lease: Lease<'_>, deadline: Instant) -> Result<bool, Fault> {
        let asked = sqlx::query_scalar(READ_ONLY).fetch_one(lease.connection());
        match within("asking whether it takes writes", deadline, asked).await {
            Ok(true) => {
                // The next connection may lead to another server, or be made under other settings.
                self.purge();
                Ok(false)
            }
            other => lease.close(other).map(|read_only: bool| !read_only),
        }
    }

    /// A connection: a kept one, or a new one.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<Lease<'_>, Fault> {
        let permit = tokio::time::timeout_at(deadline.into(), self.permits.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Fault::Unreachable("all connections were busy until the deadline".to_owned()));
        };
        self.lease(permit, deadline).await
    }

    async fn lease<'a>(&'a self, permit: SemaphorePermit<'a>, deadline: Instant) -> Result<Lease<'a>, Fault> {
        let kept = self.state().idle.pop();
        let connection = match kept {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        Ok(Lease { link: self, connection, _permit: permit })
    }

    async fn connect(&self, deadline: Instant) -> Result<PgConnection, Fault> {
        if let Some(fault) = self.refusal() {
            return Err(fault);
        }
        let until = deadline.min(self.clock.instant() + CONNECT);
        let made = within("connecting", until, async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            connection.execute(SESSION).await?;
            let half = setup::is_half_copied(&mut connection).await?;
            Ok((connection, half))
        });
        let made = match made.await {
            // Also where the hub was started while the database was away.
            Ok((_, true)) => Err(Fault::Unreachable(SetupError::HalfCopied.to_string())),
            Ok((connection, false)) => Ok(connection),
            Err(fault) => Err(fault),
        };
        let mut state = self.state();
        match made {
            Ok(connection) => {
                state.trouble = None;
                Ok(connection)
            }
            Err(fault) => {
                let reason = match fault {
                    Fault::Lost { reason, .. } | Fault::Refused { reason, .. } => reason,
                    other => other.to_string(),
                };
                state.trouble = Some((self.clock.instant(), reason.clone()));
                Err(Fault::Unreachable(reason))
            }
        }
    }

    /// The server went away, or writes no longer: what is kept is of no use either. New connections may lead to another server.
    fn purge(&self) {
        let now = self.clock.instant();
        let mut state = self.state();
        if state.purged.is_none_or(|at| now.saturating_duration_since(at) >= PURGE) {
            state.purged = Some(now);
            state.idle.clear();
        }
    }

    /// Rows of one statement that changes something.
    pub(super) async fn write(
        &self,
        during: &'static str,
        deadline: Instant,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Fault> {
        let mut lease = self.acquire(deadline).await?;
        let rows = within(during, deadline, query.fetch_all(lease.connection())).await;
        lease.close(rows)
    }

    /// Rows of one statement that changes nothing: asked once more if the connection turns out to be dead.
    pub(super) async fn read<'q>(
        &self,
        during: &'static str,
        deadline: Instant,
        query: impl Fn() -> Query<'q, Postgres, PgArguments> + Send,
    ) -> Result<Vec<PgRow>, Fault> {
        match self.write(during, deadline, query()).await {
            Err(Fault::Lost { .. }) if self.clock.instant() < deadline => {
                self.write(during, deadline, query()).await
            }
            other => other,
        }
    }
}

impl Lease<'_> {
    pub(super) const fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The end of its use. It is kept for others if the server answered, be it with a refusal; not inside a transaction.
    pub(super) fn close<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        match &result {
            Ok(_) => self.link.state().idle.push(self.connection),
            Err(fault @ Fault::Refused { .. }) if !fault.is_read_only() => {
                self.link.state().idle.push(self.connection);
            }
            Err(Fault::Refused { .. } | Fault::Lost { .. }) => self.link.purge(),
            Err(Fault::Unreachable(_) | Fault::Corrupt(_)) => {}
        }
        result
    }

    /// The same after a transaction: it is kept only if all went well.
    pub(super) fn close_transaction<T>(self, result: Result<T, Fault>) -> Result<T, Fault> {
        match &result {
            Ok(_) => self.link.state().idle.push(self.connection),
            Err(Fault::Lost { .. }) => self.link.purge(),
            Err(fault) if fault.is_read_only() => self.link.purge(),
            Err(_) => {}
        }
        result
    }
}
