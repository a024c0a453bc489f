//! One log line a request, and fewer while many fail for the same reason.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode, Uri};
use hub_core::error::Code;

use crate::extract::Trace;
use crate::problem::Problem;

/// Between two lines about failures of the same code.
const REST: Duration = Duration::from_secs(10);

/// Failures of ours as warnings, refusals as information; what went well as information only for who asked for it, since a line
/// a message costs more than the message. While a server is away each request fails in the same way: then one line in ten
/// seconds for each code, unless every request shall have its own. A fault of the hub itself is always told.
pub(crate) struct RequestLog {
    all: bool,
    failures: Mutex<HashMap<Code, Told>>,
}

/// When a failure was told, and how many were not since.
struct Told {
    at: Instant,
    unsaid: u64,
}

/// A request that was answered.
pub(crate) struct Answered<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) trace: &'a Trace,
    pub(crate) status: StatusCode,
    pub(crate) problem: Option<&'a Problem>,
    pub(crate) elapsed: Duration,
    /// It came from a probe: these come every second, and say what they say to who asks.
    pub(crate) is_probe: bool,
}

impl RequestLog {
    /// With `all`, every request has its line.
    pub(crate) fn new(all: bool) -> Self {
        Self { all, failures: Mutex::default() }
    }

    /// Writes the line of a request that was answered at `now`.
    pub(crate) fn write(&self, request: &Answered<'_>, now: Instant) {
        let code = request.problem.map(Problem::code);
        let failed = request.status.is_server_error();
        let passing = failed && request.status != StatusCode::INTERNAL_SERVER_ERROR;
        let unsaid = if passing && !request.is_probe { self.may_tell(code, now) } else { Some(0) };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "hub_api::request",
                    method = %request.method,
                    path = request.uri.path(),
                    status = request.status.as_u16(),
                    code = code.map(tracing::field::display),
                    reason = request.problem.filter(|_| failed).map(Problem::reason),
                    ms = request.elapsed.as_secs_f64() * 1_000.0,
                    trace_id = &*request.trace.id,
                    request_id = request.trace.echo.to_str().ok(),
                    unsaid = unsaid.filter(|count| *count > 0),
                    "request"
                )
            };
        }
        if request.is_probe || unsaid.is_none() {
            line!(debug);
        } else if failed {
            line!(warn);
        } else if self.all || request.status.is_client_error() {
            line!(info);
        } else {
            line!(debug);
        }
    }

    /// Whether a failure of this code is to be told, and how many were not told since the last one that was.
    fn may_tell(&self, code: Option<Code>, now: Instant) -> Option<u64> {
        let Some(code) = code.filter(|_| !self.all) else { return Some(0) };
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get_mut(&code) {
            Some(told) if now.saturating_duration_since(told.at) < REST => {
                told.unsaid += 1;
                None
            }
            before => {
                let unsaid = before.map_or(0, |told| told.unsaid);
                failures.insert(code, Told { at: now, unsaid: 0 });
                Some(unsaid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hub_core::error::code;

    use super::*;

    #[test]
    fn a_failure_is_told_and_those_like_it_are_counted() {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let log = RequestLog::new(false);
        let (away, unknown) = (Some(code::STORE_UNAVAILABLE), Some(code::UNKNOWN_OUTCOME));
        assert_eq!(log.may_tell(away, at(0)), Some(0));
        assert_eq!(log.may_tell(away, at(1)), None);
        assert_eq!(log.may_tell(unknown, at(2)), Some(0), "another code has its own line");
        assert_eq!(log.may_tell(away, at(9)), None);
        assert_eq!(log.may_tell(away, at(10)), Some(2));
        assert_eq!(log.may_tell(away, at(60)), Some(0));
        assert_eq!((log.may_tell(None, at(60)), log.may_tell(None, at(60))), (Some(0), Some(0)));

        let every = RequestLog::new(true);
        assert_eq!((every.may_tell(away, at(0)), every.may_tell(away, at(0))), (Some(0), Some(0)));
    }
}
