//! The data folder.

use hub_core::error::code;

use super::Finding;
use crate::config::Config;
use crate::identity::DataFolder;
use crate::store_kind::StoreKind;

const PART: &str = "data folder";

/// It can be used, by a node with this configuration.
pub(super) fn folder(config: &Config) -> Finding {
    let path = &config.node.data;
    if !path.exists() {
        return Finding::ok(PART, format!("{} is made by the first start", path.display()));
    }
    let opened = DataFolder::open(path).and_then(|folder| {
        StoreKind::of(config).check(&folder)?;
        Ok(folder.identity().and_then(|identity| identity.node))
    });
    match opened {
        Ok(Some(node)) => {
            Finding::ok(PART, format!("{} holds node {node}, which does not run", path.display()))
        }
        Ok(None) => Finding::ok(PART, format!("{} holds no node yet", path.display())),
        // That it is in use is how it should be.
        Err(error) if error.code == code::IDENTITY_TAKEN => Finding::ok(PART, error.detail),
        Err(error) => Finding::failing(PART, error.code, error.detail),
    }
}
