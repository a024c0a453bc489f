//! `endpoints.json`: what a node says about itself once it listens.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use url::Url;

/// Where a running node listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Endpoints {
    /// Its process.
    pub pid: u32,
    /// Base URL of its REST interface.
    #[serde(deserialize_with = "url")]
    pub rest_url: Url,
    /// `host:port` for other nodes.
    pub raft_addr: String,
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

impl Endpoints {
    /// The file's name in the data folder.
    pub(super) const FILE: &'static str = "endpoints.json";

    /// What the node of this process wrote; `None` while it has not, or if the file is of an earlier process.
    pub(super) fn read(folder: &Path, pid: u32) -> Option<Self> {
        let text = std::fs::read(folder.join(Self::FILE)).ok()?;
        serde_json::from_slice::<Self>(&text).ok().filter(|found| found.pid == pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_process_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Endpoints::read(folder.path(), 7), None);
        let text = r#"{"pid":7,"node_id":1,"rest_url":"http://127.0.0.1:1","raft_addr":"127.0.0.1:2"}"#;
        std::fs::write(folder.path().join(Endpoints::FILE), text).unwrap();
        assert_eq!(Endpoints::read(folder.path(), 7).unwrap().raft_addr, "127.0.0.1:2");
        assert_eq!(Endpoints::read(folder.path(), 8), None);
    }
}
