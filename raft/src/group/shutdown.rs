//! The end of a group on this node.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hub_core::port::StateMachine;

use super::core::Group;

/// Closing waits for writes and syncs under way, at most this long each.
const CLOSE: Duration = Duration::from_secs(5);

impl<M: StateMachine> Group<M> {
    /// Takes no more part, ends all tasks, and closes the log. Leadership is not handed over: do that before.
    pub async fn shutdown(self) {
        let core = self.core;
        core.stopping.store(true, Ordering::Release);
        core.transport.inner.unregister(&core.options.name);
        match tokio::time::timeout(CLOSE, core.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(group = %core.options.name, %error, "consensus layer did not end well");
            }
            Err(_) => tracing::warn!(group = %core.options.name, "consensus layer did not end in time"),
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
