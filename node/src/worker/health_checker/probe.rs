//! One health check over HTTP, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hub_core::delivery::TransportError;
use hub_core::registry::{Health, HealthCheck};
use hyper::header::{HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Uri};

use crate::outbound::{Answer, Call, Departure, KEPT, Outbound};

/// What one check saw; `health` is `None` when the fault was the hub's own and says nothing about the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) health: Option<Health>,
    pub(super) detail: Arc<str>,
}

/// Checks the instance at `url`.
pub(super) async fn probe(outbound: &Outbound, url: &str, check: &HealthCheck) -> Seen {
    let Ok(uri) = Uri::from_maybe_shared(Bytes::from(format!("{url}{}", check.path))) else {
        return Seen {
            health: Some(Health::Critical),
            detail: "the url and the path make no address".into(),
        };
    };
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("message-hub/", env!("CARGO_PKG_VERSION"))));
    let call = Call {
        method: Method::GET,
        uri,
        headers,
        body: Bytes::new(),
        timeout: Duration::from_secs(u64::from(check.timeout_s.max(1))),
        keep: KEPT,
        departure: Departure::default(),
    };
    read(&outbound.call(call).await)
}

fn read(answer: &Result<Answer, TransportError>) -> Seen {
    match answer {
        Ok(answer) => {
            let health = match answer.status {
                200..=299 => Health::Passing,
                429 => Health::Warning,
                _ => Health::Critical,
            };
            Seen { health: Some(health), detail: format!("answered {}", answer.status).into() }
        }
        Err(error @ (TransportError::Guarded | TransportError::Local)) => {
            Seen { health: None, detail: format!("not checked: {}", error.as_str()).into() }
        }
        Err(error) => {
            Seen { health: Some(Health::Critical), detail: format!("no answer: {}", error.as_str()).into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers_as_the_table_says() {
        let answer = |status| read(&Ok(Answer { status, retry_after: None, body: Bytes::new() })).health;
        assert_eq!(answer(204), Some(Health::Passing));
        assert_eq!(answer(429), Some(Health::Warning));
        for status in [302, 404, 500, 503] {
            assert_eq!(answer(status), Some(Health::Critical));
        }
        assert_eq!(read(&Err(TransportError::Timeout)).health, Some(Health::Critical));
        assert_eq!(read(&Err(TransportError::Guarded)).health, None);
        assert_eq!(read(&Err(TransportError::Local)).health, None);
    }
}
