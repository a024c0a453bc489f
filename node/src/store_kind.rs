//! Where a node's messages are. It is part of a node's identity: changed between two starts, messages would seem lost.

use hub_core::error::code;
use hub_core::port::Group;
use serde::{Deserialize, Serialize};

use crate::coded::CodedError;
use crate::config::Config;
use crate::identity::DataFolder;

/// Where a node's messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// In the data folders of the nodes, as the group `messages`.
    #[default]
    Embedded,
    /// In a database that all nodes share.
    Database,
}

impl StoreKind {
    /// As it is configured.
    #[must_use]
    pub const fn of(config: &Config) -> Self {
        if config.postgres.url.is_some() { Self::Database } else { Self::Embedded }
    }

    /// The groups that a node has then.
    #[must_use]
    pub const fn groups(self) -> &'static [Group] {
        match self {
            Self::Embedded => &Group::ALL,
            Self::Database => &[Group::Control],
        }
    }

    /// Whether it is what folders are without saying so.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }

    /// For people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Embedded => "in the data folders of the nodes",
            Self::Database => "in a database",
        }
    }

    /// A node that was let into a cluster stays with the store it had then.
    ///
    /// # Errors
    /// The folder says otherwise (`HUB-2022`).
    pub fn check(self, folder: &DataFolder) -> Result<(), CodedError> {
        let known = folder.identity().filter(|identity| identity.node.is_some());
        match known.map(|identity| identity.store) {
            Some(before) if before != self => {
                let (folder, before, now) = (folder.path().display(), before.describe(), self.describe());
                let detail = format!(
                    "the node of {folder} has its messages {before}; by this configuration they would be {now}"
                );
                Err(CodedError::new(code::OTHER_STORE, detail))
            }
            _ => Ok(()),
        }
    }
}
