//! `doctor`: looks at everything a node needs, before it needs it. Nothing that stays is changed by it.

mod broker;
mod cache;
mod database;
mod local;
mod peers;

use std::fmt::Display;

use hub_core::error::{CATALOGUE, Code};
use hub_core::port::CheckStatus;
use serde::Serialize;

use crate::config::Config;

/// What was found out about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which part.
    pub part: &'static str,
    /// How it fares: `ok`, `degraded` or `failing`.
    pub status: &'static str,
    /// What is the case.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// The code that a start would be refused with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Finding {
    fn ok(part: &'static str, found: impl Into<String>) -> Self {
        Self { part, status: CheckStatus::Ok.as_str(), found: found.into(), cure: None, code: None }
    }

    /// Works, with less than it should.
    fn degraded(part: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        let (found, cure) = (found.into(), Some(cure.into()));
        Self { part, status: CheckStatus::Degraded.as_str(), found, cure, code: None }
    }

    /// As the catalogue explains it.
    pub(crate) fn failing(part: &'static str, code: Code, found: impl Display) -> Self {
        let explained = CATALOGUE.iter().find(|explanation| explanation.code == code);
        Self {
            part,
            status: CheckStatus::Failing.as_str(),
            found: found.to_string(),
            cure: explained.map(|explanation| explanation.cure.to_owned()),
            code: Some(code.to_string()),
        }
    }

    /// A node could not work so.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.status == CheckStatus::Failing.as_str()
    }
}

/// Looks at every part that is configured, one line or more each.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("configuration", "is valid")];
    findings.push(local::folder(config));
    findings.extend(peers::examine(config).await);
    let ((database, targets), cache) = tokio::join!(database::examine(config), cache::examine(config));
    findings.extend(database);
    findings.extend(broker::examine(config, &targets).await);
    findings.extend(cache);
    findings
}
