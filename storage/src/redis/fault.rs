//! Why Redis did not do its part, in words that name the cure.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No answer in time.
    #[error("it did not answer within {} ms", .0.as_millis())]
    Slow(Duration),
    /// It wants a password, or another one.
    #[error(
        "it wants a password, or another user or password: put them into REDIS_URL (redis://USER:PASSWORD@HOST)"
    )]
    Password,
    /// The user lacks a right.
    #[error(
        "its user may not do what is needed ({0}): allow EVALSHA, SCRIPT LOAD, TIME, GET and SET on keys of the prefix"
    )]
    Rights(String),
    /// It does not take writes.
    #[error("it is a read-only replica: name the primary in REDIS_URL")]
    ReadOnly,
    /// It has no memory left and evicts nothing.
    #[error("its memory is full: raise maxmemory, or set maxmemory-policy to one that evicts")]
    Full,
    /// It reads its data back after a start.
    #[error("it is still loading its data")]
    Loading,
    /// It cannot be reached, or the connection broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answered something else.
    #[error("it answered {0}")]
    Answer(String),
}

impl Fault {
    /// Another user, right or server is needed: it does not go away by waiting.
    #[must_use]
    pub const fn needs_somebody(&self) -> bool {
        matches!(self, Self::Password | Self::Rights(_) | Self::ReadOnly | Self::Full)
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        let detail = || error.detail().unwrap_or_else(|| error.category()).to_owned();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Password,
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::Rights(detail()),
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => Self::ReadOnly,
            (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => Self::Loading,
            (_, Some("OOM")) => Self::Full,
            (ErrorKind::Io, _) => Self::Unreachable(error.to_string()),
            _ => Self::by_text(error.to_string()),
        }
    }
}

impl Fault {
    /// Errors that come wrapped: in the error of a script, or of what a connection begins with.
    fn by_text(text: String) -> Self {
        let has = |word: &str| text.contains(word);
        if has("NOAUTH") || has("WRONGPASS") || has("Authentication") {
            Self::Password
        } else if has("NOPERM") || has("No permissions") || has("no permissions") {
            Self::Rights(text)
        } else if has("READONLY") || has("read only replica") {
            Self::ReadOnly
        } else if has("OOM") || has("maxmemory") {
            Self::Full
        } else {
            Self::Answer(text)
        }
    }
}
