//! An operator's drain: while the control state says that this node drains, it leads no group.

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use hub_core::control::State;
use hub_core::id::NodeId;
use hub_core::port::Clock;
use tokio::sync::watch;
use tracing::info;

use crate::control_port::{LedGroups, hand_over};
use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind, Tasks};

/// How long one hand-over may take before the state is looked at again.
const HAND_OVER: Duration = Duration::from_secs(10);
/// The pause after a group could not be handed over.
const PAUSE: Duration = Duration::from_secs(1);

const KIND: TaskKind =
    TaskKind { name: "drain", stage: Stage::Base, on_error: OnError::Restart, on_cancel: OnCancel::Drop };

/// Whether a node answers.
pub type Live = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Watches from now on.
pub fn watch(
    tasks: &Tasks,
    node: NodeId,
    state: watch::Receiver<State>,
    groups: LedGroups,
    live: Live,
    clock: Arc<dyn Clock>,
) {
    tasks.restarting(KIND, move |_| {
        let (state, groups, live, clock) =
            (state.clone(), groups.clone(), Arc::clone(&live), Arc::clone(&clock));
        async move {
            keep_out(node, state, groups, &*live, &*clock).await;
            Ok(())
        }
    });
}

fn drains(state: &State, node: NodeId) -> bool {
    state.members.get(&node).is_some_and(|member| member.draining)
}

async fn keep_out(
    node: NodeId,
    mut state: watch::Receiver<State>,
    groups: LedGroups,
    live: &(dyn Fn(NodeId) -> bool + Send + Sync),
    clock: &dyn Clock,
) {
    let mut leaderships: Vec<_> = groups.iter().map(|led| led.followed.seen.clone()).collect();
    loop {
        if state.wait_for(|state| drains(state, node)).await.is_err() {
            return;
        }
        info!("draining: this node hands its leaderships over");
        while drains(&state.borrow_and_update(), node) {
            let mut out = true;
            for led in groups.iter() {
                let deadline = clock.instant() + HAND_OVER;
                out &= hand_over(led.group.as_str(), &*led.steered, node, live, clock, deadline).await;
            }
            let moved = select_all(leaderships.iter_mut().map(|seen| Box::pin(seen.changed())));
            // Until something changes; or a little, if a group is still led here.
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                _ = moved => {}
                () = tokio::time::sleep(PAUSE), if !out => {}
            }
        }
        info!("the drain has ended");
    }
}
