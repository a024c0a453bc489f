//! Why a cluster on this machine does not start.

use std::path::PathBuf;
use std::time::Duration;

use hub_core::error::{Code, code};

/// Why a cluster on this machine does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder cannot be used.
    #[error("{}: the data folder cannot be used: {}", Code::of_io(source), path.display())]
    Folder {
        /// The folder, or what in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This binary cannot be started again.
    #[error("cannot start a node")]
    Spawn {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody listens there already.
    #[error(
        "{}: port {port} is in use; stop who uses it, or take other ports: --port BASE (0 for free ones)",
        code::PORT_IN_USE
    )]
    Port {
        /// The port.
        port: u16,
    },
    /// Ports run from 1 to 65535.
    #[error("--port {base} leaves no room for the ports of all nodes")]
    PortRange {
        /// The first port.
        base: u16,
    },
    /// A node ended before it was ready.
    #[error("node {number} ended at once ({status}); the end of {}:\n{tail}", log.display())]
    Ended {
        /// The node.
        number: usize,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// The cluster did not form in time.
    #[error("the nodes were not ready within {:.0} s: {last}; their logs are in {}", within.as_secs_f64(), data.display())]
    Late {
        /// The time they had.
        within: Duration,
        /// What was still missing.
        last: String,
        /// Where their logs are.
        data: PathBuf,
    },
    /// Its nodes would be looked for elsewhere by each other.
    #[error(
        "{}: its nodes know each other by the ports they had: --port 0 takes those again; or use another folder",
        path.display()
    )]
    Moved {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to a larger cluster.
    #[error("{}: the folder holds {found} nodes: start with --nodes {found}, or use another folder", path.display())]
    Nodes {
        /// The folder.
        path: PathBuf,
        /// How many nodes it holds.
        found: usize,
    },
    /// Making a key or token failed.
    #[error("cannot make a key: {0}")]
    Key(String),
    /// The live traffic cannot begin.
    #[error("the demo cannot begin: {0}")]
    Demo(String),
    /// A call to the cluster failed.
    #[error(transparent)]
    Call(#[from] crate::client::Error),
}

impl Error {
    pub(super) fn folder(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Folder { path, source }
    }
}
