//! The first start after a recovery: the nodes that were left behind stop being members.

use std::time::Duration;

use hub_core::control::{Command, Refusal, Reply};
use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Clock, Replicator, Submitted};
use tracing::warn;

use super::base::Base;
use super::groups::Groups;
use crate::coded::CodedError;
use crate::identity::{DataFolder, Identity, Recovery, Register};

/// A node that votes alone leads within moments.
const LIMIT: Duration = Duration::from_secs(30);

/// A folder whose recovery stopped half way must not be used.
///
/// # Errors
/// It is one (`HUB-2006`).
pub fn check(folder: &DataFolder) -> Result<(), CodedError> {
    match folder.identity().and_then(|identity| identity.recovery) {
        Some(Recovery::Begun) => {
            let detail = "the recovery of this folder was begun, but not finished: run it again";
            Err(CodedError::new(code::DAMAGED, detail))
        }
        Some(Recovery::Rebuilt) | None => Ok(()),
    }
}

/// Removes all other members, if this is the first start after a recovery.
///
/// # Errors
/// The group did not come up, or the disk failed. The next start tries again.
pub async fn finish(
    base: &Base,
    groups: &Groups,
    identity: Identity,
    register: &Register,
) -> Result<Identity, CodedError> {
    if identity.recovery != Some(Recovery::Rebuilt) {
        return Ok(identity);
    }
    let failed = |error: &dyn std::fmt::Display| {
        CodedError::new(code::INTERNAL, format!("the recovery could not be finished: {error}"))
    };
    let deadline = base.clock.instant() + LIMIT;
    groups.control.read_barrier(deadline).await.map_err(|error| failed(&error))?;
    let state = groups.view.view();
    let others: Vec<NodeId> =
        state.members.keys().copied().filter(|node| Some(*node) != identity.node).collect();
    for node in others {
        let proposal = Submitted { request: base.ids.request_id(), command: Command::Remove { node } };
        let done = groups.control.propose(proposal, deadline).await.map_err(|error| failed(&error))?;
        match done.reply {
            Reply::Refused(Refusal::NoNode) => {}
            Reply::Refused(refusal) => return Err(failed(&refusal)),
            _ => warn!(%node, "the recovery leaves this node behind; it can only join as a new one"),
        }
    }
    let identity = identity.recovered();
    register.save(&identity)?;
    Ok(identity)
}
