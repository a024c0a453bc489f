//! Where the nodes keep their data: a temporary folder that goes with the cluster, or one that stays.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use secrecy::SecretString;
use tempfile::TempDir;

use super::Error;
use crate::client::source;

/// Where the ports of the nodes are kept.
const PORTS: &str = "ports.json";

/// Where the nodes keep their data.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Removed when this is dropped.
    temporary: Option<TempDir>,
}

impl Folder {
    /// Makes the folder, or takes the one of an earlier cluster of at most `nodes` nodes.
    pub(super) fn open(wanted: Option<&Path>, nodes: usize) -> Result<Self, Error> {
        let Some(path) = wanted else {
            let temporary = tempfile::Builder::new()
                .prefix("message-hub-")
                .tempdir()
                .map_err(Error::folder(std::env::temp_dir()))?;
            return Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        fs::create_dir_all(path).map_err(Error::folder(path))?;
        // The nodes run in their own folders: a relative path would lead them elsewhere.
        let path = path.canonicalize().map_err(Error::folder(path))?;
        let folder = Self { path, temporary: None };
        let found = (1..=99).rev().find(|number| folder.node(*number).exists()).unwrap_or(0);
        if found > nodes {
            return Err(Error::Nodes { path: folder.path, found });
        }
        Ok(folder)
    }

    /// The whole folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It goes with the cluster.
    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The data folder of a node, counted from 1.
    pub(super) fn node(&self, number: usize) -> PathBuf {
        self.path.join(format!("node-{number}"))
    }

    /// The log of a node.
    pub(super) fn log(&self, number: usize) -> PathBuf {
        self.path.join(format!("node-{number}.log"))
    }

    /// The ports that the nodes had last: REST, and for other nodes. None, if they never listened.
    pub(super) fn ports(&self) -> Vec<(u16, u16)> {
        let kept = fs::read(self.path.join(PORTS)).ok();
        kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps the ports of the nodes for the next time.
    pub(super) fn keep_ports(&self, ports: &[(u16, u16)]) -> Result<(), Error> {
        let path = self.path.join(PORTS);
        let text = serde_json::to_vec(ports).map_err(std::io::Error::from).map_err(Error::folder(&path))?;
        // Whole or not at all: a folder without them is one whose nodes never listened.
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(Error::folder(&path))
    }

    /// The cluster's key: made once, so that a kept cluster knows its tokens again.
    pub(super) fn key(&self) -> Result<SecretString, Error> {
        let path = self.path.join("secret.key");
        if let Ok(text) = fs::read_to_string(&path)
            && text.len() >= 32
        {
            return Ok(SecretString::from(text));
        }
        let mut bytes = [0_u8; 48];
        source::fill(&mut bytes).map_err(|error| Error::Key(error.to_string()))?;
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::folder(&path))?;
        file.write_all(text.as_bytes()).map_err(Error::folder(&path))?;
        Ok(SecretString::from(text))
    }

    /// Removes what is temporary.
    pub(super) fn close(self) -> Result<(), Error> {
        match self.temporary {
            Some(temporary) => temporary.close().map_err(Error::folder(self.path)),
            None => Ok(()),
        }
    }
}

/// The last lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.iter()
        .skip(all.len().saturating_sub(lines))
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_kept_folder_keeps_its_key() {
        let place = tempfile::tempdir().unwrap();
        let wanted = place.path().join("a/b");
        let first = Folder::open(Some(&wanted), 3).unwrap().key().unwrap();
        let second = Folder::open(Some(&wanted), 3).unwrap().key().unwrap();
        assert_eq!(first.expose_secret(), second.expose_secret());
        assert!(first.expose_secret().len() >= 32);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named_with_its_code() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let wanted = file.join("below");
        let error = Folder::open(Some(&wanted), 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("HUB-2013: the data folder cannot be used: {}", wanted.display())
        );
        let denied = Error::folder(&wanted)(std::io::ErrorKind::PermissionDenied.into());
        assert!(denied.to_string().starts_with("HUB-2015: "), "{denied}");
    }

    #[test]
    fn a_larger_cluster_is_not_cut() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("node-5")).unwrap();
        let error = Folder::open(Some(place.path()), 3).unwrap_err();
        assert!(error.to_string().contains("--nodes 5"), "{error}");
        assert!(Folder::open(Some(place.path()), 5).is_ok());
    }

    #[test]
    fn a_temporary_folder_goes() {
        let folder = Folder::open(None, 1).unwrap();
        let path = folder.path().to_owned();
        assert!(path.exists() && folder.is_temporary());
        folder.close().unwrap();
        assert!(!path.exists());
    }
}
