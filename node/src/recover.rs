//! `cluster recover`: makes the survivor of a lost majority, or of damage, a cluster of one. Nothing may run meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_core::control::Machine;
use hub_core::error::code;
use hub_core::id::{NodeId, ServiceName};
use hub_core::port::{AppliedMark, Group, Slots, StateMachine};
use hub_core::time::Timestamp;
use hub_raft::{MemoryOptions, OpenError, Rebuild, Remains};
use hub_storage::sqlite::{self, Feed};
use tokio::net::TcpStream;

use crate::coded::CodedError;
use crate::identity::DataFolder;

/// How long a voter has to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// What a recovery finds, or has done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// The generation that the cluster is of then.
    pub generation: u64,
    /// Each group of the node.
    pub groups: Vec<(Group, Found)>,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say what there is.
    Look,
    /// Make the node a cluster of one, unless another voter answers.
    Recover,
    /// Make it one although others answer.
    RecoverBesideOthers,
}

/// What is left of a group.
#[derive(Clone, Debug)]
pub enum Found {
    /// State and log up to an entry.
    Kept(Remains),
    /// The state cannot be read: the group starts empty. Where its data was moved, once it was.
    Gone {
        /// What is wrong with it.
        damage: String,
        /// Where the old data is now.
        aside: Option<PathBuf>,
    },
}

/// No delivery starts while a folder is looked at.
struct NoSlots;

impl Slots for NoSlots {
    fn try_reserve(&self, _: &ServiceName) -> Option<Duration> {
        None
    }

    fn give_back(&self, _: &ServiceName) {}
}

/// Looks at the folder; if that is wanted also makes its node the only one of a cluster of a new generation. Interrupted,
/// it must be run again: until then the folder does not start.
///
/// # Errors
/// The folder is in use, belongs to no cluster, another voter answers, or the disk fails.
pub async fn recover(data: &Path, now: Timestamp, action: Action) -> Result<Report, CodedError> {
    let nothing = || CodedError::new(code::CONFIG, format!("{} holds no node of a cluster", data.display()));
    if !data.is_dir() {
        return Err(nothing());
    }
    let mut folder = DataFolder::open(data)?;
    let identity =
        folder.identity().filter(|identity| identity.cluster.is_some()).cloned().ok_or_else(nothing)?;
    let node = identity.node.ok_or_else(nothing)?;
    let begun = identity.recovering();
    folder.make_folders()?;
    let mut states = Vec::new();
    for group in begun.store.groups().iter().copied() {
        states.push((group, applied(&folder, group, node).await?));
    }
    let mut report = Report { node, generation: begun.generation, groups: Vec::new() };
    for (group, state) in &states {
        report.groups.push((*group, look(&folder, *group, state).await?));
    }
    if action == Action::Look {
        return Ok(report);
    }
    if action == Action::Recover {
        nobody_answers(&report).await?;
    }
    report.groups.clear();
    folder.save(begun.clone())?;
    for (group, state) in states {
        report.groups.push((group, salvage(&folder, group, state, node, now).await?));
    }
    let lost =
        |(group, found): &(Group, Found)| *group == Group::Control && matches!(found, Found::Gone { .. });
    folder.save(begun.rebuilt(report.groups.iter().any(lost)))?;
    Ok(report)
}

/// A voter that answers may be part of a majority that goes on, or be recovered by itself: then there would be two clusters
/// of one identity, and whichever meets the other ends it.
async fn nobody_answers(report: &Report) -> Result<(), CodedError> {
    let kept = report.groups.iter().filter_map(|(_, found)| match found {
        Found::Kept(remains) => Some(&remains.voters),
        Found::Gone { .. } => None,
    });
    let others: BTreeSet<_> = kept.flatten().filter(|(node, _)| **node != report.node).collect();
    let asked = others.into_iter().map(|(node, address)| async move {
        let connected = tokio::time::timeout(ANSWER, TcpStream::connect(address.as_str())).await;
        matches!(connected, Ok(Ok(_))).then(|| format!("node {node} at {address}"))
    });
    let answered: Vec<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    if answered.is_empty() {
        return Ok(());
    }
    let detail = format!("{} answers: a majority may still be there", answered.join(", "));
    Err(CodedError::new(code::OTHERS_ANSWER, detail))
}

async fn look(folder: &DataFolder, group: Group, state: &State) -> Result<Found, CodedError> {
    let damage = match state {
        State::Readable(applied) => {
            let rebuild = rebuild(folder, group, applied.clone());
            let surveyed = tokio::task::spawn_blocking(move || rebuild.survey()).await;
            match surveyed.map_err(|error| CodedError::new(code::INTERNAL, error.to_string()))? {
                Ok(remains) => return Ok(Found::Kept(remains)),
                Err(error @ OpenError::Damaged { .. }) => error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
        State::Damaged(damage) => damage.clone(),
    };
    Ok(Found::Gone { damage, aside: None })
}

/// Rebuilds a group from what is left of it; from nothing, if that does not fit together.
async fn salvage(
    folder: &DataFolder,
    group: Group,
    state: State,
    node: NodeId,
    now: Timestamp,
) -> Result<Found, CodedError> {
    let damage = match state {
        State::Readable(applied) => match rebuild(folder, group, applied).rebuild(node).await {
            Ok(remains) => return Ok(Found::Kept(remains)),
            Err(error @ OpenError::Damaged { .. }) => error.to_string(),
            Err(error) => return Err(error.into()),
        },
        State::Damaged(damage) => damage,
    };
    let aside = Some(folder.set_group_aside(group.as_str(), now)?);
    rebuild(folder, group, AppliedMark::default()).rebuild(node).await?;
    Ok(Found::Gone { damage, aside })
}

enum State {
    Readable(AppliedMark),
    Damaged(String),
}

fn rebuild(folder: &DataFolder, group: Group, applied: AppliedMark) -> Rebuild {
    Rebuild { log_dir: folder.path().join(group.as_str()).join("log"), applied }
}

/// How far the state of a group has applied.
async fn applied(folder: &DataFolder, group: Group, node: NodeId) -> Result<State, CodedError> {
    let dir = folder.path().join(group.as_str());
    match group {
        Group::Control => match (MemoryOptions { dir: dir.join("snapshot") }).build::<Machine>() {
            Ok((machine, _)) => Ok(State::Readable(machine.applied())),
            Err(error @ OpenError::Damaged { .. }) => Ok(State::Damaged(error.to_string())),
            Err(error) => Err(error.into()),
        },
        Group::Messages => {
            let options = sqlite::Options { folder: dir.join("db"), readers: 1 };
            match options.open(Feed::new(node, Arc::new(NoSlots))).await {
                Ok(machine) => Ok(State::Readable(machine.applied())),
                Err(sqlite::Fault::Corrupt(damage)) => Ok(State::Damaged(damage)),
                Err(fault) => Err(fault.into()),
            }
        }
    }
}
