//! Why there was no answer, sorted into the domain's classes.

use std::io;

use hub_core::delivery::TransportError;
use hub_core::error::find_cause;
use rustix::io::Errno;

use super::{Departure, ResolveError};

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// TLS cannot be set up.
    #[error("tls cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A certificate authority was not readable.
    #[error("certificate authorities are not readable")]
    Authorities(#[source] rustls::pki_types::pem::Error),
    /// The file of certificate authorities holds none.
    #[error("file of certificate authorities holds no certificate")]
    NoAuthority,
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("host name was not resolved")]
    Resolve(#[from] ResolveError),
    #[error("address is not allowed")]
    Guarded,
    #[error("url has no host")]
    NoHost,
    #[error("connection failed")]
    Connect(#[source] io::Error),
    #[error("connection was not made in time")]
    Timeout,
    #[error("tls handshake failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ConnectFailure {
    fn class(&self) -> TransportError {
        match self {
            Self::Resolve(ResolveError::NotFound) | Self::NoHost => TransportError::NameNotFound,
            Self::Resolve(ResolveError::Unavailable(_)) => TransportError::Local,
            Self::Guarded => TransportError::Guarded,
            Self::Connect(error) if is_ours(error) => TransportError::Local,
            Self::Connect(_) => TransportError::Connect,
            Self::Timeout => TransportError::ConnectTimeout,
            Self::Tls(_) => TransportError::Tls,
        }
    }
}

/// Errors of this machine, not of the target: out of files, buffers, memory or local ports.
fn is_ours(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

/// Sorts an error of the HTTP client.
pub(super) fn classify(error: &hyper_util::client::legacy::Error, departure: &Departure) -> TransportError {
    if let Some(failure) = find_cause::<ConnectFailure>(error) {
        return failure.class();
    }
    if error.is_connect() || !departure.has_left() {
        // The connection broke before anything of the request was written to it.
        return TransportError::Connect;
    }
    TransportError::Broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_files_is_our_fault() {
        let out_of_files = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert_eq!(ConnectFailure::Connect(out_of_files).class(), TransportError::Local);
        let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
        assert_eq!(ConnectFailure::Connect(refused).class(), TransportError::Connect);
    }

    #[test]
    fn a_name_server_that_is_down_is_our_fault_and_a_missing_name_is_not() {
        let down = ResolveError::Unavailable(io::Error::other("down"));
        assert_eq!(ConnectFailure::Resolve(down).class(), TransportError::Local);
        assert_eq!(ConnectFailure::Resolve(ResolveError::NotFound).class(), TransportError::NameNotFound);
    }
}
