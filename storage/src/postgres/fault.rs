//! What can go wrong between here and the server, sorted by what is certain afterwards.

use std::time::Instant;

use hub_core::port::StoreError;
use sqlx::{Executor, PgConnection};

/// A failure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// Nothing was sent: there is no connection.
    #[error("no connection to Postgres: {0}")]
    Unreachable(String),
    /// The server refused; nothing was done.
    #[error("Postgres refused {during}: {reason} ({code})")]
    Refused {
        /// What was being done.
        during: &'static str,
        /// SQLSTATE.
        code: String,
        /// The server's words.
        reason: String,
    },
    /// The connection broke, or time ran out, after the statement was sent: done or not.
    #[error("the connection was lost during {during}: {reason}")]
    Lost {
        /// What was being done.
        during: &'static str,
        /// Why.
        reason: String,
    },
    /// What came back makes no sense.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
}

/// The server is going away, or it was told to end this session: what it had begun may still be there.
const ENDING: [&str; 4] = ["57P01", "57P02", "57P05", "08006"];
/// Refusals that last until somebody changes something.
const LASTING: [&str; 3] = ["42", "28", "3D"];
/// Written to a standby, or to a server that was made read-only.
const READ_ONLY: &str = "25006";

impl Fault {
    /// What an error of the driver means.
    pub(super) fn of(during: &'static str, error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default().into_owned();
                if ENDING.contains(&code.as_str()) {
                    return Self::Lost { during, reason: refusal.message().to_owned() };
                }
                Self::Refused { during, code, reason: refusal.message().to_owned() }
            }
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
                Self::Corrupt(format!("{error} (during {during})"))
            }
            _ => Self::Lost { during, reason: error.to_string() },
        }
    }

    /// The server's SQLSTATE, if it refused.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The statement lost against another one and may simply be repeated: deadlock or serialization failure.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self.code(), Some("40001" | "40P01"))
    }

    /// The server does not write: it became a standby, or was made read-only.
    pub(super) fn is_read_only(&self) -> bool {
        self.code() == Some(READ_ONLY)
    }

    /// A value that the server cannot hold: only the rows that were sent are to blame.
    pub(super) fn is_of_the_data(&self) -> bool {
        self.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
    }

    /// No partition takes the row's day yet.
    pub(super) fn is_missing_partition(&self) -> bool {
        matches!(self, Self::Refused { code, reason, .. } if code == "23514" && reason.contains("partition"))
    }

    /// For a read, of which nothing can be half done.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::Lost { .. } => StoreError::Unavailable { reason: self.to_string(), retryable: true },
            other => other.into(),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        let reason = fault.to_string();
        match fault {
            Fault::Unreachable(_) => Self::Unavailable { reason, retryable: true },
            Fault::Refused { code, .. } => {
                let lasting = LASTING.iter().any(|class| code.starts_with(class));
                Self::Unavailable { reason, retryable: !lasting }
            }
            Fault::Lost { .. } => Self::Unknown(reason),
            Fault::Corrupt(reason) => Self::Corrupt(reason),
        }
    }
}

/// Waits for an answer of the server until `deadline`.
pub(super) async fn within<T>(
    during: &'static str,
    deadline: Instant,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(done) => done.map_err(|error| Fault::of(during, &error)),
        Err(_) => Err(Fault::Lost { during, reason: "no answer in time".to_owned() }),
    }
}

/// Runs a command without arguments or rows, such as `BEGIN`.
pub(super) async fn command(
    connection: &mut PgConnection,
    during: &'static str,
    deadline: Instant,
    text: &'static str,
) -> Result<(), Fault> {
    within(during, deadline, connection.execute(text)).await.map(drop)
}
