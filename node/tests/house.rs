//! House rules over the text of every Rust file that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest file outside tests, in lines.
const MAX_LINES: usize = 500;

/// What says that work was left undone. Put together here so that this file does not trip over itself.
const UNDONE: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("for ", "now,")];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn rust_files() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let crates = ["core", "raft", "storage", "api", "node", "chaos-tests", "test-servers"];
    let mut open: Vec<PathBuf> = crates.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    anyhow::ensure!(files.len() > 30, "the walk found only {} files", files.len());
    Ok(files)
}

/// Runs `rule` over every file; it answers what is wrong with one.
fn check(rule: impl Fn(&Path, &str) -> Option<String>) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for path in rust_files()? {
        let text = fs::read_to_string(&path)?;
        let name = path.strip_prefix(root()).unwrap_or(&path);
        wrong.extend(rule(name, &text).map(|what| format!("{}: {what}", name.display())));
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn every_file_opens_by_saying_what_it_owns() -> anyhow::Result<()> {
    check(|_, text| (!text.starts_with("//! ")).then(|| "does not open with `//! `".to_owned()))
}

#[test]
fn files_are_short() -> anyhow::Result<()> {
    check(|name, text| {
        let in_tests = name.components().any(|part| part.as_os_str() == "tests")
            || name.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        let lines = if in_tests { 0 } else { lines_of_program(text) };
        (lines > MAX_LINES).then(|| format!("{lines} lines, more than {MAX_LINES}"))
    })
}

/// The lines before the unit tests at the end of the file.
fn lines_of_program(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[test]
fn nothing_is_left_for_later() -> anyhow::Result<()> {
    check(|_, text| {
        let found: Vec<_> = UNDONE.iter().filter(|word| text.contains(**word)).collect();
        (!found.is_empty()).then(|| format!("says {found:?}"))
    })
}
