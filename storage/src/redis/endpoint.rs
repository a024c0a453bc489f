//! Where a Redis is, read out of its URL. The URL holds a password, so that nothing here repeats it.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Why a URL does not name a Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error("must start with redis:// or rediss:// (TLS)")]
    Scheme,
    /// The rest.
    #[error("must be redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]: {0}")]
    Shape(String),
}

/// A Redis: address, database, user and password.
#[derive(Clone)]
pub struct Endpoint(ConnectionInfo);

impl Endpoint {
    /// Reads `redis://` and `rediss://` URLs.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = url.split_once("://").ok_or(EndpointError::Scheme)?;
        if !matches!(scheme, "redis" | "rediss") {
            return Err(EndpointError::Scheme);
        }
        if rest.contains('#') {
            return Err(EndpointError::Shape(
                "a fragment has no meaning; write '#' in a password as %23".into(),
            ));
        }
        let info = url.into_connection_info().map_err(|error| EndpointError::Shape(error.to_string()))?;
        if info.redis_settings().db() < 0 {
            return Err(EndpointError::Shape("the database is a number from 0".into()));
        }
        // Small commands must not wait for the acknowledgement of those before.
        Ok(Self(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))))
    }

    /// It is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.0.addr(), ConnectionAddr::TcpTls { .. })
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        self.0.clone()
    }
}

/// `redis://host:port/database`, without user and password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.0.addr(), self.0.redis_settings().db())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_password() {
        for (url, shown) in [
            ("redis://cache", "redis://cache:6379/0"),
            ("redis://:hush@cache:7000/3", "redis://cache:7000/3"),
            ("rediss://user:hush@cache.example:6380", "rediss://cache.example:6380/0"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert!(!format!("{endpoint:?}").contains("hush"));
        }
    }

    #[test]
    fn what_names_no_redis_is_refused_without_its_password() {
        for url in [
            "",
            "cache:6379",
            "http://:hush@cache",
            "redis+unix:///hush",
            "unix:///hush",
            "redis://",
            "redis://:hush@cache/hush",
            "redis://:hush@cache/-1",
            "redis://:hush@cache:hush",
            "rediss://:hush@cache#insecure",
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
