//! Who leads, as openraft and the applied log say.

use std::sync::Arc;

use hub_core::id::NodeId;
use hub_core::port::{Leadership, StateMachine};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use super::core::Core;

impl<M: StateMachine> Core<M> {
    /// As of now. A leader is ready when it has applied an entry of its own term.
    fn leadership_now(&self) -> Leadership {
        let metrics = self.raft.server_metrics();
        let (state, vote, leader) = {
            let metrics = metrics.borrow_watched();
            (metrics.state, metrics.vote, metrics.current_leader)
        };
        let term = vote.leader_id().term;
        let applied = self.applied.borrow().as_ref().map(|id| id.committed_leader_id().term);
        let leads = state.is_leader() && leader == Some(self.transport.node().0);
        Leadership { term, leader: leader.map(NodeId), ready: leads && applied == Some(term) }
    }

    /// Whether openraft itself has given up.
    fn fatal(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }
}

/// Keeps `told` up to date until the group ends.
pub(super) async fn watch<M: StateMachine>(core: Arc<Core<M>>, told: watch::Sender<Leadership>) {
    let mut servers = core.raft.server_metrics();
    let mut metrics = core.raft.metrics();
    let mut applied = core.applied.clone();
    loop {
        let now = core.leadership_now();
        let changed = told.send_if_modified(|known| {
            let changed = *known != now;
            if changed && known.leader != now.leader {
                core.metrics.leader_changes.inc();
            }
            *known = now;
            changed
        });
        if changed {
            tracing::debug!(group = %core.options.name, ?now, "leadership");
        }
        if let Some(reason) = core.fatal() {
            core.fail(reason);
            return;
        }
        let led_not_ready = now.leader == Some(core.transport.node()) && !now.ready;
        let alive = tokio::select! {
            changed = servers.changed() => changed.is_ok(),
            changed = applied.changed(), if led_not_ready => changed.is_ok(),
            // Tells of a failure, too.
            changed = metrics.changed() => changed.is_ok(),
        };
        if !alive {
            core.fail(core.fatal().unwrap_or_else(|| "consensus layer ended".to_owned()));
            return;
        }
    }
}
