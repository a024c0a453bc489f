//! Host names to addresses, telling "no such name" (the target's fault) from "no answer" (ours).

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name server answered that there is none.
    #[error("host name does not resolve")]
    NotFound,
    /// The name server could not be asked.
    #[error("name server is not available")]
    Unavailable(#[source] io::Error),
}

/// Looks names up.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of `host`, with `port`.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

/// What the C libraries say when the name server answered that there is no such name or no address for it. The code
/// itself (`EAI_NONAME`, `EAI_NODATA`) is not kept by the standard library.
const NOT_FOUND: [&str; 5] = [
    "Name or service not known",
    "No address associated with",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname provided",
];

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => Ok(addresses.collect()),
            Err(error) => Err(classify(error)),
        }
    }
}

fn classify(error: io::Error) -> ResolveError {
    let text = error.to_string();
    if NOT_FOUND.iter().any(|phrase| text.contains(phrase)) {
        ResolveError::NotFound
    } else {
        ResolveError::Unavailable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_no_such_name_from_no_name_server() {
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert!(matches!(classify(unknown), ResolveError::NotFound));
        let down =
            io::Error::other("failed to lookup address information: Temporary failure in name resolution");
        assert!(matches!(classify(down), ResolveError::Unavailable(_)));
    }
}
