//! `message-hub doctor`, run as people do.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use serde::Deserialize;
use tokio::process::Command;

use crate::client::SECRET_KEY;
use crate::program;

/// One line of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    /// Which part it is about.
    pub part: String,
    /// `ok`, `degraded` or `failing`.
    pub status: String,
    /// What is the case.
    pub found: String,
    /// What to do about it.
    pub cure: Option<String>,
    /// The code that a start would be refused with.
    pub code: Option<String>,
}

impl Finding {
    /// Not as it should be.
    pub fn is_complaint(&self) -> bool {
        self.status != "ok"
    }
}

/// What it finds, with this data folder and this in its environment.
///
/// # Errors
/// It prints anything else than findings, its exit code does not fit them, or a complaint has no cure.
pub async fn examine(data: &Path, environment: &[(&'static str, String)]) -> anyhow::Result<Vec<Finding>> {
    let output = Command::new(program::message_hub()?)
        .args(["doctor", "--output", "json", "--data"])
        .arg(data)
        .env_clear()
        .env("SECRET_KEY", SECRET_KEY)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let (told, aside) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    anyhow::ensure!(aside.is_empty(), "it says beside its findings: {aside}");
    let findings: Vec<Finding> = serde_json::from_str(&told).with_context(|| told.clone())?;
    let failing = findings.iter().any(|finding| finding.status == "failing");
    anyhow::ensure!(output.status.code() == Some(i32::from(failing)), "{}: {told}", output.status);
    let helpless = findings.iter().find(|finding| finding.is_complaint() && finding.cure.is_none());
    anyhow::ensure!(helpless.is_none(), "no cure: {helpless:?}");
    Ok(findings)
}
