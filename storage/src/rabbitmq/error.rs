//! What can go wrong with the broker.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// A failure of the broker, or a refusal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none of a broker. It may hold a password, so it is not repeated.
    #[error("the url of the broker is not valid: {0}")]
    Url(String),
    /// Nobody answers there.
    #[error("the broker cannot be reached")]
    Unreachable(#[source] lapin::Error),
    /// The broker does not accept the user or the password.
    #[error("the broker refuses the user or the password")]
    Credentials(#[source] lapin::Error),
    /// The virtual host does not exist, or the user has no right to it.
    #[error("the broker refuses the virtual host")]
    VirtualHost(#[source] lapin::Error),
    /// The user may not do it there.
    #[error("the broker does not permit to {during} {queue}")]
    Rights {
        /// What was to be done.
        during: &'static str,
        /// With which queue.
        queue: String,
        /// What the broker said.
        #[source]
        source: lapin::Error,
    },
    /// The queue exists, but is another one than the hub needs.
    #[error("queue {queue} exists with other arguments")]
    Arguments {
        /// Which one.
        queue: String,
        /// What the broker said.
        #[source]
        source: lapin::Error,
    },
    /// No answer in time.
    #[error("the broker did not answer in time to {0}")]
    Timeout(&'static str),
    /// Anything else.
    #[error("the broker failed to {during}")]
    Broker {
        /// What was to be done.
        during: &'static str,
        /// Why not.
        #[source]
        source: lapin::Error,
    },
}

impl Error {
    /// Waiting does not help: somebody has to change something first.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Url(_)
            | Self::Credentials(_)
            | Self::VirtualHost(_)
            | Self::Rights { .. }
            | Self::Arguments { .. } => true,
            Self::Unreachable(_) | Self::Timeout(_) | Self::Broker { .. } => false,
        }
    }

    pub(super) fn connecting(source: lapin::Error) -> Self {
        match protocol_error(&source) {
            Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => Self::Credentials(source),
            Some(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH)) => {
                Self::VirtualHost(source)
            }
            _ => Self::Unreachable(source),
        }
    }

    pub(super) fn during(during: &'static str) -> impl FnOnce(lapin::Error) -> Self {
        move |source| Self::Broker { during, source }
    }

    /// What went wrong with one queue.
    pub(super) fn with_queue(during: &'static str, queue: &str, source: lapin::Error) -> Self {
        let queue = queue.to_owned();
        match protocol_error(&source) {
            Some(AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)) => Self::Arguments { queue, source },
            Some(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)) => Self::Rights { during, queue, source },
            _ => Self::Broker { during, source },
        }
    }

    /// There is no such queue.
    pub(super) fn is_missing_queue(&self) -> bool {
        let Self::Broker { source, .. } = self else { return false };
        matches!(protocol_error(source), Some(AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
    }
}

fn protocol_error(error: &lapin::Error) -> Option<AMQPErrorKind> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.kind().clone()),
        _ => None,
    }
}

/// The error and all that is behind it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        text.push_str(": ");
        text.push_str(&source.to_string());
        behind = source.source();
    }
    text
}
