//! The data folder: who may use it, whose it is, and how it is set aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use hub_core::error::{Code, code};
use hub_core::id::NodeId;
use hub_core::port::Group;
use hub_core::time::Timestamp;
use hub_storage::copy::Origin;
use serde::{Deserialize, Serialize};

use crate::coded::CodedError;
use crate::store_kind::StoreKind;

/// The version of `identity.json` that this version writes.
const VERSION: u32 = 1;
const IDENTITY: &str = "identity.json";
const ENDPOINTS: &str = "endpoints.json";
const LOCK: &str = "lock";

/// Who a node is. It outlives the process and every address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Format of this file.
    version: u32,
    /// The cluster it belongs to; `None` until it was admitted.
    #[serde(with = "hex_id")]
    pub cluster: Option<u128>,
    /// Its id; `None` until it was admitted.
    pub node: Option<NodeId>,
    /// Random, made once: tells a copy of the folder from a restart.
    #[serde(with = "hex_id")]
    incarnation: Option<u128>,
    /// It founds the cluster: its log starts with the first membership.
    pub founder: bool,
    /// The cluster knows it, and so its logs hold something: never again may they be found empty.
    pub established: bool,
    /// How often its cluster was rebuilt: 1, and one more for each recovery; 0 before it belongs to one.
    pub generation: u64,
    /// How far a recovery has come, if one is under way.
    pub recovery: Option<Recovery>,
    /// Where its messages are.
    #[serde(default, skip_serializing_if = "StoreKind::is_embedded")]
    pub store: StoreKind,
    /// Its messages were copied from its folder into a database, up to this log entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<u64>,
}

/// How far a recovery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// The logs may be rebuilt in part: it must be done again.
    Begun,
    /// The logs are rebuilt; the nodes left behind are still members.
    Rebuilt,
}

impl Identity {
    /// Of a node that joins: no id yet.
    #[must_use]
    pub const fn joiner(incarnation: u128, store: StoreKind) -> Self {
        Self {
            version: VERSION,
            cluster: None,
            node: None,
            incarnation: Some(incarnation),
            founder: false,
            established: false,
            generation: 0,
            recovery: None,
            store,
            copied: None,
        }
    }

    /// The same node, as the first of a new cluster.
    #[must_use]
    pub fn founding(&self, cluster: u128) -> Self {
        Self { founder: true, ..self.admitted(cluster, NodeId(1), 1) }
    }

    /// The same node, let into a cluster of this generation.
    #[must_use]
    pub fn admitted(&self, cluster: u128, node: NodeId, generation: u64) -> Self {
        Self { cluster: Some(cluster), node: Some(node), generation, ..self.clone() }
    }

    /// The same node, about to become a cluster of one: of a generation of its own from now on.
    #[must_use]
    pub fn recovering(&self) -> Self {
        let begun = self.recovery == Some(Recovery::Begun);
        let generation = if begun { self.generation } else { self.generation + 1 };
        Self { generation, recovery: Some(Recovery::Begun), ..self.clone() }
    }

    /// The same node with its logs rebuilt. Without the control state it founds its cluster again.
    #[must_use]
    pub fn rebuilt(&self, control_lost: bool) -> Self {
        let (founder, established) = (self.founder || control_lost, self.established && !control_lost);
        Self { recovery: Some(Recovery::Rebuilt), founder, established, ..self.clone() }
    }

    /// The same node, its recovery done.
    #[must_use]
    pub fn recovered(&self) -> Self {
        Self { recovery: None, ..self.clone() }
    }

    /// The same node, known by its cluster.
    #[must_use]
    pub fn established(&self) -> Self {
        Self { established: true, ..self.clone() }
    }

    /// The same node with its messages there.
    #[must_use]
    pub fn keeping(&self, store: StoreKind) -> Self {
        Self { store, ..self.clone() }
    }

    /// The same node with its messages in a database, copied up to this log entry.
    #[must_use]
    pub fn moved(&self, entry: u64) -> Self {
        Self { store: StoreKind::Database, copied: Some(entry), ..self.clone() }
    }

    /// What was copied from its folder into a database.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        Some(Origin { cluster: self.cluster?, node: self.node?.0, entry: self.copied? })
    }

    /// See the field of a member's card.
    #[must_use]
    pub fn incarnation(&self) -> u128 {
        self.incarnation.unwrap_or_default()
    }
}

/// Ids of 128 bits as 32 hexadecimal digits.
mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the shape that serde asks for")]
    pub(super) fn serialize<S: Serializer>(id: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(&format_args!("{id:032x}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u128>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)).transpose()
    }
}

/// Where a running node is reached: written when it has bound its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Its process.
    pub pid: u32,
    /// Its id.
    pub node_id: NodeId,
    /// Base URL of its REST interface.
    pub rest_url: String,
    /// `host:port` for other nodes.
    pub raft_addr: String,
}

/// A data folder that this process, and no other, uses.
pub struct DataFolder {
    path: PathBuf,
    identity: Option<Identity>,
    /// Held for as long as this lives; the system lets go of it when the process ends in any way.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if need be, takes it for this process, and reads who it belongs to.
    ///
    /// # Errors
    /// In use (`HUB-2005`), not writable (`HUB-2015`), full (`HUB-2007`), damaged (`HUB-2006`), of a newer version (`HUB-2012`).
    pub fn open(path: &Path) -> Result<Self, CodedError> {
        let failed = |what: &str, error: io::Error| {
            CodedError::new(Code::of_io(&error), format!("{what} {}", path.display())).because(error)
        };
        make_folder(path).map_err(|error| failed("cannot make the data folder", error))?;
        let path = path.canonicalize().map_err(|error| failed("cannot find the data folder", error))?;
        let lock = lock(&path)?;
        let mut folder = Self { identity: None, path, _lock: lock };
        folder.probe()?;
        folder.identity = folder.read_identity()?;
        if folder.identity.is_none() && folder.has_data() {
            let detail = format!("{} holds data, but no {IDENTITY}", folder.path.display());
            return Err(CodedError::new(code::DAMAGED, detail));
        }
        Ok(folder)
    }

    /// Moves what the folder holds into `set-aside-…` within it, so that the node can join anew.
    ///
    /// # Errors
    /// In use, or not writable.
    pub fn set_aside(path: &Path, now: Timestamp) -> Result<Option<PathBuf>, CodedError> {
        let failed = |error: io::Error| {
            CodedError::new(Code::of_io(&error), format!("cannot set aside {}", path.display()))
                .because(error)
        };
        if !path.join(IDENTITY).exists() && !path.join("control").exists() && !path.join("messages").exists()
        {
            return Ok(None);
        }
        let _lock = lock(path)?;
        let aside = path.join(format!("set-aside-{}", now.as_millis()));
        fs::create_dir(&aside).map_err(failed)?;
        // The identity goes first: a crash half way leaves data without an identity, which no start accepts.
        for name in [IDENTITY, ENDPOINTS, "control", "messages"] {
            match fs::rename(path.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => sync_folder(path).and_then(|()| sync_folder(&aside)).map_err(failed)?,
            }
        }
        Ok(Some(aside))
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who it belongs to; `None` for a fresh one.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Keeps an identity, durably.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&mut self, identity: Identity) -> Result<(), CodedError> {
        write(&self.path, IDENTITY, &identity)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Makes the folders of the logs, the snapshots and the database, so that a loss of power cannot take them.
    ///
    /// # Errors
    /// The disk.
    pub fn make_folders(&self) -> Result<(), CodedError> {
        let store = self.identity.as_ref().map(|identity| identity.store).unwrap_or_default();
        let names = store.groups().iter().flat_map(|group| match group {
            Group::Control => ["control/log", "control/snapshot", "control/copies"],
            Group::Messages => ["messages/log", "messages/db", "messages/copies"],
        });
        for name in names {
            let path = self.path.join(name);
            make_folder(&path).map_err(|error| {
                CodedError::new(Code::of_io(&error), format!("cannot make {}", path.display())).because(error)
            })?;
        }
        Ok(())
    }

    /// The data of a group lies in it.
    #[must_use]
    pub fn holds(&self, group: Group) -> bool {
        self.path.join(group.as_str()).is_dir()
    }

    /// Moves the data of one group into `set-aside-…` and makes its folders anew.
    ///
    /// # Errors
    /// The disk.
    pub fn set_group_aside(&self, group: &str, now: Timestamp) -> Result<PathBuf, CodedError> {
        let aside = self.path.join(format!("set-aside-{}", now.as_millis()));
        let moved = make_folder(&aside)
            .and_then(|()| fs::rename(self.path.join(group), aside.join(group)))
            .and_then(|()| sync_folder(&aside))
            .and_then(|()| sync_folder(&self.path));
        moved.map_err(|error| {
            CodedError::new(
                Code::of_io(&error),
                format!("cannot set aside {group} in {}", self.path.display()),
            )
            .because(error)
        })?;
        self.make_folders()?;
        Ok(aside.join(group))
    }

    /// Another handle that can keep the identity.
    #[must_use]
    pub fn register(&self) -> Register {
        Register(self.path.clone())
    }

    /// Says where the node is reached.
    ///
    /// # Errors
    /// The disk.
    pub fn announce(&self, endpoints: &Endpoints) -> Result<(), CodedError> {
        write(&self.path, ENDPOINTS, endpoints)
    }

    /// Where the node was reached no longer holds.
    pub fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.path.join(ENDPOINTS))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove {ENDPOINTS}");
        }
    }

    fn has_data(&self) -> bool {
        let filled =
            |name: &str| fs::read_dir(self.path.join(name)).is_ok_and(|mut entries| entries.next().is_some());
        filled("control") || filled("messages")
    }

    /// Writes and syncs a small file, so that a full or read-only disk is found before anything is promised.
    fn probe(&self) -> Result<(), CodedError> {
        let path = self.path.join(".probe");
        let outcome = write_synced(&path, &[0; 4096]);
        let removed = fs::remove_file(&path);
        outcome.and(removed).map_err(|error| {
            CodedError::new(Code::of_io(&error), format!("cannot write to {}", self.path.display()))
                .because(error)
        })
    }

    fn read_identity(&self) -> Result<Option<Identity>, CodedError> {
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        let path = self.path.join(IDENTITY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(CodedError::new(Code::of_io(&error), format!("cannot read {}", path.display()))
                    .because(error));
            }
        };
        let damaged = |error: serde_json::Error| {
            CodedError::new(code::DAMAGED, format!("{} cannot be read", path.display())).because(error)
        };
        let found: OnlyVersion = serde_json::from_str(&text).map_err(damaged)?;
        if found.version > VERSION {
            let detail =
                format!("{} has format {}, this version knows {VERSION}", path.display(), found.version);
            return Err(CodedError::new(code::NEWER_DATA, detail));
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }
}

/// Keeps the identity from wherever the node is.
#[derive(Clone, Debug)]
pub struct Register(PathBuf);

impl Register {
    /// Keeps an identity, durably.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self, identity: &Identity) -> Result<(), CodedError> {
        write(&self.0, IDENTITY, identity)
    }
}

/// Replaces a file as a whole, also in a power loss.
fn write(folder: &Path, name: &str, content: &impl Serialize) -> Result<(), CodedError> {
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.new"));
    let written = serde_json::to_vec_pretty(content)
        .map_err(io::Error::from)
        .and_then(|bytes| write_synced(&temporary, &bytes))
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| sync_folder(folder));
    written.map_err(|error| {
        CodedError::new(Code::of_io(&error), format!("cannot write {}", path.display())).because(error)
    })
}

/// Makes a folder and those above it, each durable in the one that holds it.
fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            make_folder(above)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // The folder above may belong to someone else; then it was there before, too.
    match sync_folder(above) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Takes the folder for this process. The file tells people which process holds it.
fn lock(folder: &Path) -> Result<File, CodedError> {
    let path = folder.join(LOCK);
    let failed = |error: io::Error| {
        CodedError::new(Code::of_io(&error), format!("cannot lock {}", path.display())).because(error)
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let detail = format!("process {} runs with the data folder {}", holder.trim(), folder.display());
            return Err(CodedError::new(code::IDENTITY_TAKEN, detail));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let refused = DataFolder::open(folder.path()).err().unwrap();
        assert_eq!(refused.code, code::IDENTITY_TAKEN);
        assert!(refused.detail.contains(&std::process::id().to_string()));
        drop(first);
        DataFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn an_identity_is_kept_and_endpoints_are_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::joiner(7, StoreKind::Embedded).founding(u128::MAX - 3);
        let mut open = DataFolder::open(folder.path()).unwrap();
        assert_eq!(open.identity(), None);
        open.save(identity.clone()).unwrap();
        let endpoints = Endpoints {
            pid: 1,
            node_id: NodeId(1),
            rest_url: "http://127.0.0.1:1".to_owned(),
            raft_addr: "127.0.0.1:2".to_owned(),
        };
        open.announce(&endpoints).unwrap();
        let text = fs::read_to_string(folder.path().join(ENDPOINTS)).unwrap();
        assert_eq!(serde_json::from_str::<Endpoints>(&text).unwrap(), endpoints);
        open.withdraw();
        assert!(!folder.path().join(ENDPOINTS).exists());
        drop(open);
        assert_eq!(DataFolder::open(folder.path()).unwrap().identity(), Some(&identity));
    }

    #[test]
    fn a_folder_that_is_set_aside_starts_empty_and_keeps_the_old_data() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(DataFolder::set_aside(folder.path(), Timestamp::EPOCH).unwrap(), None);
        let mut open = DataFolder::open(folder.path()).unwrap();
        open.save(Identity::joiner(1, StoreKind::Database)).unwrap();
        fs::create_dir(folder.path().join("control")).unwrap();
        fs::write(folder.path().join("control/log"), b"x").unwrap();
        assert_eq!(
            DataFolder::set_aside(folder.path(), Timestamp::EPOCH).err().unwrap().code,
            code::IDENTITY_TAKEN
        );
        drop(open);
        let aside = DataFolder::set_aside(folder.path(), Timestamp::EPOCH).unwrap().unwrap();
        assert!(aside.join("control/log").exists());
        assert_eq!(DataFolder::open(folder.path()).unwrap().identity(), None);
    }

    #[test]
    fn data_without_an_identity_and_unreadable_identities_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("messages")).unwrap();
        fs::write(folder.path().join("messages/log"), b"x").unwrap();
        assert_eq!(DataFolder::open(folder.path()).err().unwrap().code, code::DAMAGED);
        fs::write(folder.path().join(IDENTITY), b"{").unwrap();
        assert_eq!(DataFolder::open(folder.path()).err().unwrap().code, code::DAMAGED);
        fs::write(folder.path().join(IDENTITY), br#"{"version": 2, "shape": "other"}"#).unwrap();
        assert_eq!(DataFolder::open(folder.path()).err().unwrap().code, code::NEWER_DATA);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_refused() {
        let refused = DataFolder::open(Path::new("/proc/message-hub")).err().unwrap();
        assert!(matches!(refused.code, code::NOT_WRITABLE | code::IO), "{refused}");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(DataFolder::open(&file.path().join("below")).err().unwrap().code, code::IO);
    }
}
