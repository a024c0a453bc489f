//! Options of a group, and what they mean for openraft.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::log_store::LogOptions;

/// How fast a dead leader is noticed. The kill of a leader is followed by an election after the upper timeout and a random
/// part of the range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Heartbeats every 50 ms, election timeout 200-400 ms.
    #[default]
    Default,
    /// 50 ms, 150-250 ms: for quiet machines in one room.
    Fast,
    /// 500 ms, 2-4 s: between places.
    Wan,
}

impl Profile {
    /// Heartbeat interval, and the election timeout's ends, in ms.
    const fn timing(self) -> (u64, u64, u64) {
        match self {
            Self::Default => (50, 200, 400),
            Self::Fast => (50, 150, 250),
            Self::Wan => (500, 2_000, 4_000),
        }
    }

    /// About how long the cluster is without a leader when one dies.
    #[must_use]
    pub const fn failover(self) -> Duration {
        let (_, low, high) = self.timing();
        Duration::from_millis(high + u64::midpoint(low, high))
    }
}

/// Options of one group. The defaults are those of `control`.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Its name: `control` or `messages`. Part of every message between nodes and label of the metrics.
    pub name: Arc<str>,
    /// Folder of its log.
    pub log_dir: PathBuf,
    /// Folder for copies of the state that are sent or received; emptied at start.
    pub copies_dir: PathBuf,
    /// Sizes of the log.
    pub log: LogOptions,
    /// How fast elections are.
    pub profile: Profile,
    /// Entries between two checkpoints.
    pub checkpoint_every: u64,
    /// Entries that stay in the log behind the checkpoint, for followers that were away for a moment.
    pub keep_entries: u64,
    /// Most log entries submitted and not yet applied, on the leader; what comes meanwhile shares the next entry. Also
    /// the most forwarded batches without an answer, on a follower. With two, one is synced and replicated while the
    /// other is applied; more only make entries smaller, and each costs the same syncs, calls and transactions.
    pub entries_in_flight: usize,
    /// Most proposals without an answer in this node; more are refused as overloaded.
    pub max_waiting: usize,
    /// Most bytes of such proposals.
    pub max_waiting_bytes: usize,
    /// The machine knows repeats of a request: a proposal with unknown outcome is asked again until its deadline.
    pub repeat_unknown: bool,
}

impl GroupOptions {
    /// Options of a group with the defaults, its data below `dir`.
    #[must_use]
    pub fn new(name: &str, dir: PathBuf) -> Self {
        Self {
            name: name.into(),
            log_dir: dir.join("log"),
            copies_dir: dir.join("copies"),
            log: LogOptions::default(),
            profile: Profile::default(),
            checkpoint_every: 10_000,
            keep_entries: 10_000,
            entries_in_flight: 2,
            max_waiting: 32_768,
            max_waiting_bytes: 128 << 20,
            repeat_unknown: true,
        }
    }

    /// # Errors
    /// What openraft says against the combination.
    pub(crate) fn openraft(&self) -> Result<Arc<Config>, String> {
        let (heartbeat_interval, election_timeout_min, election_timeout_max) = self.profile.timing();
        let config = Config {
            cluster_name: self.name.to_string(),
            heartbeat_interval,
            election_timeout_min,
            election_timeout_max,
            install_snapshot_timeout: 30_000,
            max_payload_entries: 1_024,
            replication_lag_threshold: self.checkpoint_every.saturating_add(self.keep_entries),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.checkpoint_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: 1_024.min(self.checkpoint_every),
            api_channel_size: Some(4_096),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let config = config.validate().map_err(|error| error.to_string())?;
        Ok(Arc::new(config))
    }
}
