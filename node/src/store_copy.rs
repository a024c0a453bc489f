//! `store copy`: moves the messages of a stopped node's folder into a database, and the node with them.
//!
//! The order makes every moment a safe one to die in: the rows, in parts that a next run goes on from; then the folder says
//! that its messages are elsewhere, and starts no more on its own; then the database lets hubs in; then the old data is set
//! aside. Between the first and the third step neither side starts, and the same command, run again, goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hub_core::error::code;
use hub_core::id::NodeId;
use hub_core::port::{Clock, Group};
use hub_core::time::Timestamp;
use hub_raft::{Rebuild, Remains};
use hub_storage::copy::{self, Done, Origin, Totals};
use hub_storage::postgres::{Import, ImportError, Standing};
use hub_storage::sqlite::Walk;
use secrecy::SecretString;

use crate::coded::CodedError;
use crate::database;
use crate::identity::{DataFolder, Identity};
use crate::store_kind::StoreKind;
use crate::wiring::recovery;

/// From where to where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's data folder.
    pub data: PathBuf,
    /// The database.
    pub url: SecretString,
    /// What an unfinished copy left in the database is thrown away first.
    pub start_over: bool,
}

/// What a copy would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What would be copied.
    pub origin: Origin,
    /// What there is to copy; `None` once the old data was set aside.
    pub totals: Option<Totals>,
    /// How the database stands to it.
    pub standing: Standing,
}

/// What a copy did.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was copied.
    pub origin: Origin,
    /// How much.
    pub done: Done,
    /// It was all there already: only the end, if anything, was missing.
    pub before: bool,
    /// Where the old data is now, if it was still in its place.
    pub aside: Option<PathBuf>,
}

/// A folder that messages can be copied from, and what is in it.
struct Source {
    folder: DataFolder,
    identity: Identity,
    origin: Origin,
    /// `None` once the old data was set aside.
    walk: Option<Walk>,
}

/// Looks at both sides and changes nothing.
///
/// # Errors
/// The copy cannot begin: the source (`HUB-2028`), the database (`HUB-2029`), or as for a start of the node.
pub async fn look(options: &Options, clock: &dyn Clock) -> Result<Plan, CodedError> {
    let source = Source::open(&options.data).await?;
    let standing = Import::look(&options.url, source.origin, clock).await.map_err(refused)?;
    source.check(standing, options.start_over)?;
    Ok(Plan { origin: source.origin, totals: source.walk.map(|walk| walk.totals()), standing })
}

/// Copies what is still missing, then hands the messages over to the database. `tell` hears how far it is.
///
/// # Errors
/// As [`look`]; or it was interrupted (`HUB-2031`), and goes on when it is run again.
pub async fn run(
    options: &Options,
    clock: Arc<dyn Clock>,
    wall: Timestamp,
    mut tell: impl FnMut(&Done, &Totals) + Send,
) -> Result<Report, CodedError> {
    let mut source = Source::open(&options.data).await?;
    let standing = Import::look(&options.url, source.origin, &*clock).await.map_err(refused)?;
    source.check(standing, options.start_over)?;
    let Some(mut walk) = source.walk.take() else {
        let done = match standing {
            Standing::Finished(done) => done,
            other => return Err(refused(ImportError::Refused(other))),
        };
        return Ok(Report { origin: source.origin, done, before: true, aside: None });
    };
    let begun = Import::begin(&options.url, source.origin, clock, options.start_over).await;
    let (mut import, standing) = begun.map_err(refused)?;
    let before = matches!(standing, Standing::Finished(_));
    let done = if before {
        import.done()
    } else {
        let totals = walk.totals();
        copy::run(&mut walk, &mut import, |done| tell(done, &totals)).await.map_err(stopped)?
    };
    walk.close().await?;
    source.folder.save(source.identity.moved(source.origin.entry))?;
    import.finish().await.map_err(refused)?;
    let aside = source.folder.set_group_aside(Group::Messages.as_str(), wall)?;
    Ok(Report { origin: source.origin, done, before, aside: Some(aside) })
}

impl Source {
    async fn open(data: &Path) -> Result<Self, CodedError> {
        let nothing =
            || CodedError::new(code::COPY_SOURCE, format!("{} holds no node of a cluster", data.display()));
        if !data.is_dir() {
            return Err(nothing());
        }
        let folder = DataFolder::open(data)?;
        recovery::check(&folder)?;
        let identity = folder.identity().cloned().ok_or_else(nothing)?;
        let (Some(cluster), Some(node)) = (identity.cluster, identity.node) else { return Err(nothing()) };
        let origin = |entry| Origin { cluster, node: node.0, entry };
        match (identity.store, identity.copied) {
            (StoreKind::Database, None) => {
                let detail = format!("the node of {} has its messages in a database", data.display());
                return Err(CodedError::new(code::COPY_SOURCE, detail));
            }
            (StoreKind::Database, Some(entry)) if !folder.holds(Group::Messages) => {
                return Ok(Self { origin: origin(entry), folder, identity, walk: None });
            }
            _ => folder.make_folders()?,
        }
        let dir = folder.path().join(Group::Messages.as_str());
        let walk = Walk::open(&dir.join("db")).await?;
        let rebuild = Rebuild { log_dir: dir.join("log"), applied: walk.applied().clone() };
        let surveyed = tokio::task::spawn_blocking(move || rebuild.survey()).await;
        let remains = surveyed.map_err(|error| CodedError::new(code::INTERNAL, error.to_string()))??;
        holds_everything(&remains, node, walk.applied().index)?;
        Ok(Self { origin: origin(walk.applied().index), folder, identity, walk: Some(walk) })
    }

    /// Messages that were handed over to one database go to no other: both would deliver them.
    fn check(&self, standing: Standing, start_over: bool) -> Result<(), CodedError> {
        match standing {
            Standing::Occupied | Standing::Other(_) => return Err(refused(ImportError::Refused(standing))),
            Standing::Outdated(_) | Standing::Foreign(_) if !start_over => {
                return Err(refused(ImportError::Refused(standing)));
            }
            _ => {}
        }
        let known = matches!(standing, Standing::Part(_) | Standing::Finished(_));
        if self.identity.copied.is_none() || known || (start_over && self.walk.is_some()) {
            return Ok(());
        }
        let first = if self.walk.is_some() {
            ""
        } else {
            "move `messages` back out of set-aside-… in the folder and "
        };
        let detail = format!(
            "the messages of {} were copied into another database; if that one is lost and no node ever worked with \
             it, {first}repeat this with --start-over",
            self.folder.path().display()
        );
        Err(CodedError::new(code::COPY_SOURCE, detail))
    }
}

/// Only a node that votes alone has certainly got everything that was accepted, and only what is applied can be copied.
fn holds_everything(remains: &Remains, node: NodeId, applied: u64) -> Result<(), CodedError> {
    if let Some(lost) = &remains.lost {
        return Err(CodedError::new(code::DAMAGED, format!("the log of the messages is damaged: {lost}")));
    }
    let voters: BTreeSet<NodeId> = remains.voters.keys().copied().collect();
    let names = || voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let detail = if !voters.contains(&node) {
        format!("node {node} does not vote in its cluster, but {}: copy from there", names())
    } else if voters.len() > 1 {
        format!(
            "the voters of the cluster are {}: another one may hold messages that node {node} does not have yet. Start \
             the nodes, remove the others (`message-hub cluster remove ID`), wait until `message-hub cluster status` \
             shows node {node} as the only voter, stop it and copy. The others come back with `serve --rejoin`",
            names()
        )
    } else if remains.last_index > applied {
        format!(
            "the log of node {node} reaches to entry {}, its database only to {applied}: start the node once without \
             a database, stop it with SIGTERM when it is ready, and copy then",
            remains.last_index
        )
    } else {
        return Ok(());
    };
    Err(CodedError::new(code::COPY_SOURCE, detail))
}

fn refused(error: ImportError) -> CodedError {
    let code = match &error {
        ImportError::Setup(_) => code::DATABASE_SILENT,
        ImportError::Refused(_) | ImportError::InUse(_) | ImportError::Wrong(_) => code::COPY_TARGET,
        ImportError::Interrupted(_) => code::COPY_INTERRUPTED,
    };
    match error {
        ImportError::Setup(error) => database::refused(error),
        other => CodedError::new(code, other.to_string()),
    }
}

fn stopped(error: copy::Error) -> CodedError {
    match error {
        copy::Error::Source(fault) => fault.into(),
        copy::Error::Target(error) => refused(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remains(voters: &[u64], last_index: u64, lost: Option<&str>) -> Remains {
        let voters = voters.iter().map(|id| (NodeId(*id), String::new())).collect();
        Remains { voters, last_index, lost: lost.map(str::to_owned) }
    }

    #[test]
    fn only_the_whole_state_of_a_lone_voter_is_copied() {
        holds_everything(&remains(&[4], 9, None), NodeId(4), 9).unwrap();
        let refused = |remains: &Remains, applied| holds_everything(remains, NodeId(4), applied).unwrap_err();
        let others = refused(&remains(&[1, 4], 9, None), 9);
        assert!(others.code == code::COPY_SOURCE && others.detail.contains("cluster remove"), "{others}");
        let removed = refused(&remains(&[1, 2], 9, None), 9);
        assert!(removed.detail.contains("does not vote"), "{removed}");
        let behind = refused(&remains(&[4], 10, None), 9);
        assert!(behind.detail.contains("start the node once"), "{behind}");
        assert_eq!(refused(&remains(&[4], 9, Some("a hole")), 9).code, code::DAMAGED);
    }
}
