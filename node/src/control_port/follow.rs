//! What a node knows of its groups from one moment to the next: who leads, since when nobody does, and whether the node
//! was caught up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hub_core::codec::{Command, Reply};
use hub_core::port::{Clock, Group, Leadership, Replicator};
use tokio::sync::watch;

use crate::lifecycle::{OnCancel, OnError, Stage, TaskKind, Tasks};

/// How long one attempt to catch up may take.
const BARRIER: Duration = Duration::from_secs(5);
/// The pause after it failed.
const PAUSE: Duration = Duration::from_millis(100);

const fn kind(name: &'static str) -> TaskKind {
    TaskKind { name, stage: Stage::Base, on_error: OnError::Restart, on_cancel: OnCancel::Drop }
}

/// A group's leadership as it is seen here.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Who leads.
    pub leadership: Leadership,
    /// Since when nobody is known to.
    pub leaderless: Option<Instant>,
}

/// One group, followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Its leadership, and word of its changes.
    pub seen: watch::Receiver<Seen>,
    /// Whether this node held, once since its start, everything that was acknowledged then.
    pub caught_up: watch::Receiver<bool>,
}

impl Followed {
    /// Waits until the node is caught up.
    pub async fn wait_caught_up(&self) {
        let mut caught_up = self.caught_up.clone();
        if caught_up.wait_for(|done| *done).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Follows a group from now on.
pub fn follow<C: Command, R: Reply>(
    group: Group,
    replicator: &Arc<dyn Replicator<C, R>>,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Followed {
    let (leadership_name, barrier_name) = match group {
        Group::Control => ("control_leadership", "control_catch_up"),
        Group::Messages => ("messages_leadership", "messages_catch_up"),
    };
    let first = replicator.leadership();
    let leaderless = first.leader.is_none().then(|| clock.instant());
    let (seen, seen_by_all) = watch::channel(Seen { leadership: first, leaderless });
    let (watched, time) = (Arc::clone(replicator), Arc::clone(clock));
    tasks.once(kind(leadership_name), |_| async move {
        let mut last = first;
        loop {
            last = watched.leadership_changed(last).await;
            let since = seen.borrow().leaderless;
            let leaderless = last.leader.is_none().then(|| since.unwrap_or_else(|| time.instant()));
            seen.send_replace(Seen { leadership: last, leaderless });
        }
    });
    let (done, caught_up) = watch::channel(false);
    let (watched, time) = (Arc::clone(replicator), Arc::clone(clock));
    tasks.once(kind(barrier_name), |_| async move {
        while watched.read_barrier(time.instant() + BARRIER).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        done.send_replace(true);
        Ok(())
    });
    Followed { seen: seen_by_all, caught_up }
}
