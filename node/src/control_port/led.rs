//! The replicated groups of a node, as they are followed and handed over.

use std::sync::Arc;

use hub_core::port::Group;

use super::follow::Followed;
use super::steer::Steered;

/// One group.
#[derive(Clone)]
pub struct Led {
    /// Which one.
    pub group: Group,
    /// What steers it.
    pub steered: Arc<dyn Steered>,
    /// Word of its leadership.
    pub followed: Followed,
}

/// All groups of a node.
#[derive(Clone)]
pub struct LedGroups {
    /// Members, services and settings.
    pub control: Led,
    /// The messages; `None` where a database keeps them.
    pub messages: Option<Led>,
}

impl LedGroups {
    /// The groups that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Led> {
        std::iter::once(&self.control).chain(&self.messages)
    }

    /// This one, if there is such a group.
    #[must_use]
    pub fn get(&self, group: Group) -> Option<&Led> {
        self.iter().find(|led| led.group == group)
    }
}
