//! Commands about nodes.

use super::requests::Told;
use super::{Command, Member, Refusal, State, breakers};
use crate::id::NodeId;
use crate::registry::{TargetUrl, is_short_text};

/// Most nodes that are known at a time, voters and learners.
const MAX_MEMBERS: usize = 1_000;

fn invalid(field: &str, problem: &str) -> Refusal {
    Refusal::Invalid { field: field.into(), problem: problem.into() }
}

/// The id after `last`, from the log index if that is not taken: several admissions can share an entry, and the founder
/// had its id before there was a log. Ids only rise, so none is used twice, also after a removal.
const fn next_id(last: u64, index: u64) -> u64 {
    let next = last.saturating_add(1);
    if index > next { index } else { next }
}

fn check_address(raft_addr: &str, rest_url: &str, version: &str) -> Result<(), Refusal> {
    let has_port = raft_addr.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let raft = format!("http://{raft_addr}").parse::<TargetUrl>();
    if raft_addr.len() > 300 || !has_port || !raft.is_ok_and(|url| url.path.is_empty()) {
        return Err(invalid("/raft_addr", "must be host:port"));
    }
    if rest_url.parse::<TargetUrl>().is_err() {
        return Err(invalid("/rest_url", "must be an http or https URL"));
    }
    if is_short_text(version) { Ok(()) } else { Err(invalid("/version", "must be 1 to 100 characters")) }
}

/// `Admit`. A node without an id whose incarnation is known gets its id again. One with an id must be known under it,
/// with the same incarnation; only the first node of all brings an id of its own.
pub(super) fn admit(state: &mut State, index: u64, command: &Command) -> Result<Told, Refusal> {
    let Command::Admit { node, incarnation, raft_addr, rest_url, version } = command else {
        return Ok(Told::Done);
    };
    check_address(raft_addr, rest_url, version)?;
    let known = |member: &&Member| member.incarnation == *incarnation;
    let (id, old) = match node {
        Some(id) => match state.members.get(id) {
            Some(member) if member.incarnation != *incarnation => return Err(Refusal::IdentityTaken),
            Some(member) => (*id, Some(member.clone())),
            None if state.last_node == NodeId(0) && id.0 > 0 && id.0 < u64::MAX => (*id, None),
            None => return Err(Refusal::NoNode),
        },
        None => match state.members.values().find(known) {
            Some(member) => (member.id, Some(member.clone())),
            None => (NodeId(next_id(state.last_node.0, index)), None),
        },
    };
    let (draining, joined_at) = match &old {
        Some(member) => (member.draining, member.joined_at),
        None if state.members.len() >= MAX_MEMBERS => return Err(Refusal::RegistryFull),
        None => (false, state.clock),
    };
    let member = Member {
        id,
        incarnation: *incarnation,
        raft_addr: raft_addr.clone(),
        rest_url: rest_url.clone(),
        version: version.clone(),
        draining,
        joined_at,
    };
    state.members.insert(id, member);
    state.last_node = state.last_node.max(id);
    Ok(Told::Admitted(id))
}

/// `Remove`.
pub(super) fn remove(state: &mut State, node: NodeId) -> Result<Told, Refusal> {
    state.members.remove(&node).ok_or(Refusal::NoNode)?;
    breakers::forget_node(state, node);
    Ok(Told::Done)
}

/// `SetDraining`.
pub(super) fn set_draining(state: &mut State, node: NodeId, draining: bool) -> Result<Told, Refusal> {
    let member = state.members.get_mut(&node).ok_or(Refusal::NoNode)?;
    member.draining = draining;
    Ok(Told::Done)
}
