//! Who leads, as openraft and the applied log say, and as far as it is still heard of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hub_core::codec::encode_batch;
use hub_core::id::NodeId;
use hub_core::port::{Leadership, StateMachine};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use super::core::Core;
use crate::type_config::{EntryBytes, OnComplete};

/// When the leader was last heard, and whether that is too long ago.
pub(super) struct Heard {
    begin: Instant,
    millis: AtomicU64,
    lost: AtomicBool,
    /// An entry is on its way that a lost leader asks with.
    asking: AtomicBool,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begin: now,
            millis: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            asking: AtomicBool::new(false),
        }
    }

    /// The leader was heard now.
    pub(super) fn note(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.begin).as_millis();
        self.millis.fetch_max(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The leader, this node or another, has lost its majority or is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn at(&self) -> Instant {
        self.begin + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// An entry that a lost leader asks with. However it ends, the next may go.
struct Asked(Arc<Heard>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::Release);
    }
}

impl<M: StateMachine> Core<M> {
    /// As openraft has it. A leader is ready when it has applied an entry of its own term.
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

    /// When the leader was last certain: heard from here, or on the leader itself confirmed by a quorum.
    fn certain_at(&self) -> Option<Instant> {
        if self.leading().is_none() {
            return Some(self.heard.at());
        }
        let servers = self.raft.server_metrics();
        // One that votes alone needs nobody.
        if servers.borrow_watched().membership_config.membership().voter_ids().count() < 2 {
            return None;
        }
        let data = self.raft.data_metrics();
        let ago = data.borrow_watched().last_quorum_acked.map(|at| at.elapsed());
        let acked = ago.and_then(|ago| self.clock.instant().checked_sub(ago));
        Some(acked.unwrap_or(self.heard.begin))
    }

    /// Appends an entry without commands. A lost leader appends nothing else, and where answers to heartbeats come too late
    /// only the answer to an append can show that the majority is still there.
    async fn ask_majority(self: &Arc<Self>) {
        let entry = EntryBytes(encode_batch::<M::Command>(self.clock.now(), &[]));
        let asked = Asked(Arc::clone(&self.heard));
        let ended = OnComplete::new(move |_| drop(asked));
        if let Err(fatal) = self.raft.write(entry).responder(ended).await {
            tracing::debug!(%fatal, "the majority was not asked");
        }
    }

    /// Whether openraft itself has given up.
    fn fatal(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }
}

/// Keeps `told` up to date until the group ends.
///
/// openraft keeps the last leader for as long as no other is elected, and without a majority none ever is: so a leader that
/// has long been silent is told as none. Silence is no event, so it is looked for at times.
pub(super) async fn watch<M: StateMachine>(core: Arc<Core<M>>, told: watch::Sender<Leadership>) {
    // Long after an election would have replaced it.
    let silent = core.options.profile.failover() * 4;
    let mut servers = core.raft.server_metrics();
    let mut applied = core.applied.clone();
    let (mut seen, mut since) = (Leadership::default(), core.clock.instant());
    loop {
        let mut now = core.leadership_now();
        let instant = core.clock.instant();
        if (now.term, now.leader) != (seen.term, seen.leader) {
            (seen, since) = (now, instant);
        }
        let led_not_ready = now.leader == Some(core.transport.node()) && !now.ready;
        let certain = core.certain_at().map_or(instant, |at| at.max(since));
        let lost = instant.saturating_duration_since(certain) >= silent;
        core.heard.lost.store(lost, Ordering::Relaxed);
        if lost {
            now = Leadership { term: now.term, ..Leadership::default() };
        }
        tell(&core, &told, now);
        if lost && core.leading().is_some() && !core.heard.asking.swap(true, Ordering::AcqRel) {
            core.ask_majority().await;
        }
        let alive = tokio::select! {
            changed = servers.changed() => changed.is_ok(),
            changed = applied.changed(), if led_not_ready => changed.is_ok(),
            () = tokio::time::sleep(if lost { silent / 32 } else { silent / 4 }) => true,
        };
        // What openraft tells of a failure comes before the end of its channels.
        if let Some(reason) = core.fatal() {
            core.fail(reason);
            return;
        }
        if !alive {
            core.fail("consensus layer ended".to_owned());
            return;
        }
    }
}

fn tell<M: StateMachine>(core: &Core<M>, told: &watch::Sender<Leadership>, now: Leadership) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs some instant")]
    fn what_was_heard_last_counts() {
        let begin = Instant::now();
        let heard = Heard::new(begin);
        assert_eq!(heard.at(), begin);
        heard.note(begin + Duration::from_secs(2));
        heard.note(begin + Duration::from_secs(1));
        assert_eq!(heard.at(), begin + Duration::from_secs(2));
    }
}
