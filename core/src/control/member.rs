//! A node of the cluster, as the control group knows it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::time::Timestamp;

/// A node's card. Its id never changes; its addresses may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, from the log index of the entry that admitted it.
    pub id: NodeId,
    /// Random, made once in its data folder: tells a copy of a folder from the original's restart.
    pub incarnation: u128,
    /// `host:port` for other nodes.
    pub raft_addr: Arc<str>,
    /// Base URL of its REST interface.
    pub rest_url: Arc<str>,
    /// Its software version.
    pub version: Arc<str>,
    /// It said that it is draining.
    pub draining: bool,
    /// When it was admitted.
    pub joined_at: Timestamp,
}
