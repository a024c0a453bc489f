//! The end of a group on this node.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hub_core::port::StateMachine;

use super::core::Group;

/// Closing the log waits for a sync under way, at most this long.
const CLOSE: Duration = Duration::from_secs(5);

impl<M: StateMachine> Group<M> {
    /// Takes no more part, ends all tasks, and closes the log. Leadership is not handed over: do that before.
    pub async fn shutdown(self) {
        let core = self.core;
        core.stopping.store(true, Ordering::Release);
        core.transport.inner.unregister(&core.options.name);
        if let Err(error) = core.raft.shutdown().await {
            tracing::warn!(group = %core.options.name, %error, "consensus layer did not end well");
        }
        core.tasks.stop().await;
        let closed = core.log_closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let name = core.options.name.clone();
        drop(core);
        if let Some(closed) = closed
            && tokio::time::timeout(CLOSE, closed).await.is_err()
        {
            tracing::debug!(group = %name, "the log is still open somewhere");
        }
    }
}
