//! The broker's version: it stands in the first thing that the broker says, which the client library does not hand on.

use lapin::uri::AMQPScheme;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::options::Options;

/// How a client of AMQP 0-9-1 begins.
const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The name of the property, with its length before it and the type of a long string after it.
const KEY: &[u8] = b"\x07versionS";
/// The first thing that the broker says is far shorter.
const LONGEST: usize = 16 * 1024;

/// The version in the broker's greeting; `None` over TLS, or if it says none.
pub(super) async fn version(options: &Options) -> Option<String> {
    let uri = options.uri().ok()?;
    if uri.scheme != AMQPScheme::AMQP {
        return None;
    }
    let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.ok()?;
    stream.write_all(HELLO).await.ok()?;
    let mut heard = Vec::new();
    while heard.len() < LONGEST && stream.read_buf(&mut heard).await.ok()? > 0 {
        if let Some(version) = find(&heard) {
            return Some(version);
        }
    }
    None
}

fn find(heard: &[u8]) -> Option<String> {
    let at = heard.windows(KEY.len()).position(|window| window == KEY)?;
    let (length, rest) = heard.get(at + KEY.len()..)?.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_once_it_is_whole() {
        let heard = b"....\x08platformS\x00\x00\x00\x03OTP\x07versionS\x00\x00\x00\x054.0.5...";
        assert_eq!(find(heard), Some("4.0.5".to_owned()));
        for end in 0..heard.len() - 3 {
            assert_eq!(find(&heard[..end]), None, "{end}");
        }
        assert_eq!(find(b"\x07versionS\xff\xff\xff\xff4"), None);
    }
}
