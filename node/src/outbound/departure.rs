//! Whether a request may have left this machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hyper_util::client::legacy::connect::CaptureConnection;

/// Watches one request. Before [`Self::has_left`] is true, nothing of it was written to any connection.
#[derive(Clone, Debug, Default)]
pub struct Departure(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// The connection asked for the body: the head is about to be written.
    started: AtomicBool,
    /// Where HTTP/2 may be spoken the head can leave before the body is asked for: there the request counts as gone as
    /// soon as a connection took it.
    captured: OnceLock<CaptureConnection>,
}

impl Departure {
    pub(super) fn start(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    pub(super) fn capture(&self, connection: CaptureConnection) {
        // A departure watches one request; a second capture would be the same connection's.
        let _ = self.0.captured.set(connection);
    }

    /// Some of the request may have been written.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
            || self.0.captured.get().is_some_and(|connection| connection.connection_metadata().is_some())
    }
}
