//! The program under test: the binary `message-hub`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Context;

/// Where the binary is: `MESSAGE_HUB_BIN`, or else it is built now, beside the test programs.
///
/// # Errors
/// It does not build.
pub fn message_hub() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let path = match std::env::var_os("MESSAGE_HUB_BIN") {
        Some(given) => PathBuf::from(given),
        None => build()?,
    };
    anyhow::ensure!(path.is_file(), "no program at {}", path.display());
    Ok(FOUND.get_or_init(|| path).clone())
}

fn build() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile =
        test.parent().and_then(Path::parent).context("a test program lies in target/<profile>/deps")?;
    let target = profile.parent().context("a test program lies in target/<profile>/deps")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bin", "message-hub", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let output = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile.join("message-hub"))
}
