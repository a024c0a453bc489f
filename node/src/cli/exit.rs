//! Exit codes, and which failure leads to which.

use std::process::ExitCode;

use crate::client;
use crate::coded::CodedError;

/// What the process says when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Tried and failed.
    Failed = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// The hub refused; nothing was done.
    Refused = 3,
    /// It may have been done or not.
    Unknown = 4,
    /// No node answered.
    Unreachable = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A call to the hub failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A local step failed.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// A node did not start, or could not go on.
    #[error(transparent)]
    Node(#[from] CodedError),
    /// Everything was said already; only the exit code remains.
    #[error("failed")]
    Told(Exit),
}

impl Failure {
    /// From any error of a local step.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// The exit code that goes with it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => of_client(error),
            Self::Usage(_) => Exit::Usage,
            Self::Failed(_) => Exit::Failed,
            Self::Node(error) => of_node(error),
            Self::Told(exit) => *exit,
        }
    }
}

fn of_node(error: &CodedError) -> Exit {
    match error.exit_code() {
        2 => Exit::Usage,
        3 => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn of_client(error: &client::Error) -> Exit {
    match error {
        client::Error::Address { .. } | client::Error::Request { .. } => Exit::Usage,
        // A 500 is a fault, not a refusal; 502 to 504 without "unknown" say that nothing was done.
        client::Error::Refused(problem) if problem.status == 500 => Exit::Failed,
        client::Error::Refused(_) => Exit::Refused,
        client::Error::Unknown { .. } => Exit::Unknown,
        client::Error::Unreachable { .. } => Exit::Unreachable,
        client::Error::Answer { .. } | client::Error::Tls { .. } | client::Error::Randomness(_) => {
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Error, Problem};

    fn refused(status: u16) -> Failure {
        Failure::Client(Error::Refused(Box::new(Problem { status, ..Problem::default() })))
    }

    #[test]
    fn each_failure_has_its_code() {
        let unknown = Error::Unknown { last: String::new(), key: String::new() };
        let unreachable = Error::Unreachable { last: String::new() };
        assert_eq!(refused(404).exit(), Exit::Refused);
        assert_eq!(refused(503).exit(), Exit::Refused);
        assert_eq!(refused(500).exit(), Exit::Failed);
        assert_eq!(Failure::Client(unknown).exit(), Exit::Unknown);
        assert_eq!(Failure::Client(unreachable).exit(), Exit::Unreachable);
        assert_eq!(Failure::Usage(String::new()).exit(), Exit::Usage);
        assert_eq!(Failure::failed(anyhow::anyhow!("x")).exit(), Exit::Failed);
        assert_eq!(Failure::Told(Exit::Refused).exit(), Exit::Refused);
    }
}
