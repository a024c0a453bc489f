//! What can go wrong beneath the store, and what it means to the ports above.

use std::io;

use hub_core::port::{StateMachineError, StoreError};

/// A failure of the database or its files.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database refused or failed.
    #[error("database failed during {during}")]
    Sql {
        /// What was being done.
        during: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A file could not be read or written.
    #[error("file operation failed during {during}")]
    File {
        /// What was being done.
        during: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is stored contradicts itself or its checksum.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
}

impl Fault {
    pub(crate) fn sql(during: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let primary = match &source {
                sqlx::Error::Database(error) => {
                    // Without what extended codes add.
                    error.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
                }
                _ => None,
            };
            match primary {
                // SQLITE_FULL.
                Some(13) => Self::File { during, source: io::Error::new(io::ErrorKind::StorageFull, source) },
                // SQLITE_CORRUPT and SQLITE_NOTADB.
                Some(11 | 26) => Self::Corrupt(format!("{source} (during {during})")),
                _ => Self::Sql { during, source },
            }
        }
    }

    pub(crate) fn file(during: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { during, source }
    }

    pub(crate) fn column(name: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Corrupt(format!("column {name}: {source}"))
    }
}

impl From<Fault> for StateMachineError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql { during, source } => Self::Io { during, source: Box::new(source) },
            Fault::File { during, source } => Self::Io { during, source: Box::new(source) },
            Fault::Corrupt(reason) => Self::Corrupt(reason),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Corrupt(reason) => Self::Corrupt(reason),
            Fault::Sql { during, source } => {
                Self::Unavailable { reason: format!("{during}: {source}"), retryable: true }
            }
            Fault::File { during, source } => {
                Self::Unavailable { reason: format!("{during}: {source}"), retryable: true }
            }
        }
    }
}
