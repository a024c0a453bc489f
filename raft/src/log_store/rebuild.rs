//! Rebuilding a group around one survivor: what its log still holds, and the entry that makes the survivor the only voter.
//!
//! Done while nothing runs. It may be repeated from the start whenever it was interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hub_core::id::NodeId;
use hub_core::port::AppliedMark;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::codec::{DiskLogId, DiskPayload, DiskVote};
use super::flush::Shared;
use super::open::{LogOptions, OpenError, open, salvage};
use crate::state_machine::read_mark;
use crate::type_config::{C, LogId, Membership, NodeAddr, Payload, Vote, log_id};

/// Terms rise to the next multiple of this: above any that the lost nodes can have reached.
const TERMS: u64 = 1 << 20;

/// What survives of a group in one node's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Who voted, as far as this node knew, and the address of each.
    pub voters: BTreeMap<NodeId, String>,
    /// The last entry that is left: in the log, or applied to the state.
    pub last_index: u64,
    /// What the log itself has lost, in words.
    pub lost: Option<String>,
}

/// A group whose majority is lost.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// Folder of its log.
    pub log_dir: PathBuf,
    /// How far the state in this folder has applied.
    pub applied: AppliedMark,
}

impl Rebuild {
    /// What is left, without changing anything. Blocks.
    ///
    /// # Errors
    /// The disk fails, or the folder is in use.
    pub fn survey(&self) -> Result<Remains, OpenError> {
        let lost = salvage(&self.log_dir, &LogOptions::default(), false)?;
        if lost.is_some() {
            // Only what is whole can be opened to look inside.
            let (applied, membership) = self.applied()?;
            let last_index = applied.map_or(0, |id| id.index());
            return Ok(Remains { voters: names(&membership), last_index, lost });
        }
        let (shared, _closed) = open(&self.log_dir, &LogOptions::default())?;
        let (last, membership) = self.read(&shared)?;
        Ok(Remains { voters: names(&membership), last_index: last.map_or(0, |id| id.index()), lost })
    }

    /// Cuts what cannot be read, and makes `node` the only voter of a later term than any. All that is left counts as
    /// committed. Ends when the log is closed.
    ///
    /// # Errors
    /// The disk fails, or the folder is in use.
    pub async fn rebuild(self, node: NodeId) -> Result<Remains, OpenError> {
        let lost = salvage(&self.log_dir, &LogOptions::default(), true)?;
        let (shared, closed) = open(&self.log_dir, &LogOptions::default())?;
        let (last, membership) = self.read(&shared)?;
        let (applied, _) = self.applied()?;
        let vote = shared.read().log_state().vote().copied().map(Vote::from);
        let term = |id: &LogId| id.committed_leader_id().term;
        let seen = [last.as_ref().map(term), vote.map(|vote| vote.leader_id().term)];
        let term = (seen.into_iter().flatten().max().unwrap_or(0) / TERMS + 1) * TERMS;
        let entry = log_id(term, node.0, last.as_ref().map_or(0, |id| id.index() + 1));
        let nodes = BTreeMap::from([(node.0, NodeAddr::default())]);
        let only = Membership::new(vec![BTreeSet::from([node.0])], nodes)
            .map_err(|error| OpenError::start(self.log_dir.display(), error))?;
        let (done, wait) = C::oneshot();
        let change = |log: &mut raft_log::RaftLog<super::flush::Types>| {
            log.save_vote(DiskVote::from(&Vote::new_committed(term, node.0)))?;
            // Entries that only the state still holds.
            let end = log.log_state().last().map(|last| last.index);
            if let Some(applied) = applied.filter(|applied| end.is_none_or(|end| end < applied.index())) {
                log.purge(DiskLogId::from(&applied))?;
            }
            log.append([(DiskLogId::from(&entry), DiskPayload(Payload::Membership(only)))])?;
            log.commit(DiskLogId::from(&entry)).map(drop)
        };
        let io_error = |source| OpenError::Io { path: self.log_dir.clone(), source };
        shared.write(change, Some(IOFlushed::signal(done))).map_err(io_error)?;
        wait.await.map_err(|error| OpenError::start(self.log_dir.display(), error))?.map_err(io_error)?;
        drop(shared);
        let _closed = closed.await;
        Ok(Remains { voters: names(&membership), last_index: last.map_or(0, |id| id.index()), lost })
    }

    fn applied(&self) -> Result<(Option<LogId>, Membership), OpenError> {
        let read = read_mark(&self.applied);
        let (applied, stored) =
            read.map_err(|source| OpenError::Io { path: self.log_dir.clone(), source })?;
        Ok((applied, stored.membership().clone()))
    }

    /// The last entry of log or state, and the last membership.
    fn read(&self, shared: &Shared) -> Result<(Option<LogId>, Membership), OpenError> {
        let (applied, mut membership) = self.applied()?;
        let log = shared.read();
        let state = log.log_state();
        let last = state.last().copied().map(LogId::from);
        if let Some(purged) = state.purged()
            && applied.as_ref().is_none_or(|applied| applied.index() < purged.index)
        {
            let detail = format!("it is older than the log, which begins after entry {}", purged.index);
            return Err(OpenError::Damaged { what: "state", path: self.log_dir.clone(), detail });
        }
        let first = state.purged().map_or(0, |id| id.index + 1);
        let end = last.as_ref().map_or(0, |id| id.index() + 1);
        for record in log.read(first, end.max(first)) {
            let (_, payload) =
                record.map_err(|source| OpenError::Io { path: self.log_dir.clone(), source })?;
            if let DiskPayload(Payload::Membership(found)) = payload {
                membership = found;
            }
        }
        let further =
            applied.filter(|applied| last.as_ref().is_none_or(|last| applied.index() > last.index()));
        Ok((further.or(last), membership))
    }
}

fn names(membership: &Membership) -> BTreeMap<NodeId, String> {
    let address = |node| membership.get_node(&node).map(|found| found.addr.clone()).unwrap_or_default();
    membership.voter_ids().map(|node| (NodeId(node), address(node))).collect()
}
