//! Why a measurement cannot be made.

use std::path::PathBuf;

use crate::{client, dev_cluster};

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster does not start or answer.
    #[error(transparent)]
    Cluster(#[from] dev_cluster::Error),
    /// A call outside the measured ones failed.
    #[error(transparent)]
    Call(#[from] client::Error),
    /// The connection to a node failed.
    #[error("{0}")]
    Connection(String),
    /// The receiver cannot listen.
    #[error("the receiver cannot listen")]
    Receiver(#[source] std::io::Error),
    /// A file system in memory measures nothing that counts.
    #[error(
        "{} is a {kind}: nothing written there is on a disk, so the figures would mean nothing; name a folder on a disk \
         with --data",
        path.display()
    )]
    InMemory {
        /// The folder.
        path: PathBuf,
        /// The file system.
        kind: String,
    },
    /// The folder cannot be used.
    #[error("{}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// The histogram cannot be made.
    #[error("cannot count latencies")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The cluster did not reach a state in time.
    #[error("{0}")]
    Late(String),
}
