//! The shape of a target's URL. A grammar of our own, narrow and in ASCII, because replicas of different versions must
//! agree on what they accept.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest URL that is accepted.
pub const MAX_URL: usize = 2_048;

/// Why a URL was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Too long.
    #[error("must be at most 2048 characters")]
    Length,
    /// Neither `http` nor `https`.
    #[error("must start with http:// or https://")]
    Scheme,
    /// `user:password@`.
    #[error("must not contain credentials")]
    Credentials,
    /// `?` or `#`.
    #[error("must not contain a query or a fragment")]
    Query,
    /// Not a host name (ASCII; an international name in its xn-- form) and not an IP address.
    #[error("must have a host: a name in ASCII, an IPv4 address or an IPv6 address in brackets")]
    Host,
    /// Not 1 to 65535.
    #[error("must have a port of 1 to 65535, or none")]
    Port,
    /// A character that a path cannot hold, or a `.` or `..` segment.
    #[error("must have a plain path: unreserved characters and %XX, without '.' or '..' segments")]
    Path,
}

/// Where a URL points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// An address literal.
    Ip(IpAddr),
}

/// A checked base URL: `http(s)`, host, port and path; no credentials, query, fragment or trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetUrl {
    /// TLS or not.
    pub https: bool,
    /// Where to.
    pub host: Host,
    /// As given, or the scheme's own.
    pub port: u16,
    /// Empty, or starting with a slash and not ending with one.
    pub path: String,
}

impl FromStr for TargetUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL {
            return Err(UrlError::Length);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(if https { 443 } else { 80 });
        let path = path.trim_end_matches('/');
        if !is_plain_path(path) {
            return Err(UrlError::Path);
        }
        Ok(Self { https, host: parse_host(host)?, port, path: path.to_owned() })
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.https { ("https", 443) } else { ("http", 80) };
        match &self.host {
            Host::Name(name) => write!(f, "{scheme}://{name}")?,
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{scheme}://{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]")?,
        }
        if self.port != default_port {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let host_end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end).ok_or(UrlError::Host)?;
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(UrlError::Host)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match digits.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(UrlError::Port),
    }
}

fn parse_host(host: &str) -> Result<Host, UrlError> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UrlError::Host)?;
        return inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())).map_err(|_| UrlError::Host);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let name = host.to_ascii_lowercase();
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(&name).split('.').collect();
    let is_label = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    // Other readers take `127.1`, `2130706433` or `0x7f000001` for addresses; a name may not end like one.
    let numeric_end = labels.last().is_some_and(|last| {
        last.bytes().all(|byte| byte.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    if name.len() <= 253 && labels.iter().all(is_label) && !numeric_end {
        Ok(Host::Name(name))
    } else {
        Err(UrlError::Host)
    }
}

/// A path as part of a URL: empty, or `/` and segments of unreserved characters, sub-delimiters, `:`, `@` and `%XX`.
pub(crate) fn is_plain_path(path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    let Some(rest) = path.strip_prefix('/') else { return false };
    rest.split('/').all(|segment| {
        let lower = segment.to_ascii_lowercase().replace("%2e", ".");
        lower != "." && lower != ".." && is_plain_segment(segment.as_bytes())
    })
}

fn is_plain_segment(mut bytes: &[u8]) -> bool {
    loop {
        bytes = match bytes {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte) => rest,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (text, normal) in [
            ("http://Example.COM", "http://example.com"),
            ("HTTPS://example.com:443/", "https://example.com"),
            ("http://example.com:443/a/b//", "http://example.com:443/a/b"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("http://[2001:DB8::1]:80/x%20y", "http://[2001:db8::1]/x%20y"),
            ("http://under_score.svc.cluster.local.", "http://under_score.svc.cluster.local."),
        ] {
            let url: TargetUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), normal);
            assert_eq!(normal.parse::<TargetUrl>().unwrap(), url);
        }
    }

    #[test]
    fn refusals() {
        for (text, error) in [
            ("ftp://a", UrlError::Scheme),
            ("example.com", UrlError::Scheme),
            ("http:/example.com", UrlError::Scheme),
            ("http://u:p@example.com", UrlError::Credentials),
            ("http://example.com?x=1", UrlError::Query),
            ("http://example.com/#", UrlError::Query),
            ("http://", UrlError::Host),
            ("http://.", UrlError::Host),
            ("http://a..b", UrlError::Host),
            ("http://-a", UrlError::Host),
            ("http://ex ample", UrlError::Host),
            ("http://münchen", UrlError::Host),
            ("http://127.1", UrlError::Host),
            ("http://2130706433", UrlError::Host),
            ("http://0x7f000001", UrlError::Host),
            ("http://127.0.0.1.", UrlError::Host),
            ("http://[::1", UrlError::Port),
            ("http://::1", UrlError::Port),
            ("http://[::1%25eth0]", UrlError::Host),
            ("http://a]b", UrlError::Host),
            ("http://a:0", UrlError::Port),
            ("http://a:", UrlError::Port),
            ("http://a:65536", UrlError::Port),
            ("http://a:+80", UrlError::Port),
            ("http://a/b c", UrlError::Path),
            ("http://a/../b", UrlError::Path),
            ("http://a/%2E%2e/b", UrlError::Path),
            ("http://a/%zz", UrlError::Path),
            ("http://a/\\b", UrlError::Path),
        ] {
            assert_eq!(text.parse::<TargetUrl>(), Err(error), "{text}");
        }
    }
}
