//! The licences and bans of `deny.toml`, checked over what is really built.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};
use serde::Deserialize;

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    wrappers: Option<BTreeSet<String>>,
    reason: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn deny() -> anyhow::Result<Deny> {
    Ok(toml::from_str(&std::fs::read_to_string(root().join("deny.toml"))?)?)
}

fn metadata() -> anyhow::Result<Metadata> {
    let options = ["--filter-platform", "x86_64-unknown-linux-gnu", "--locked"].map(String::from);
    Ok(MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec()?)
}

/// `name version` of every crate that is built; unlike the metadata, without optional ones that no feature turns on.
fn built() -> anyhow::Result<BTreeSet<(String, String)>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--edges", "normal,build,dev", "--prefix", "none"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--format", "{p}"])
        .current_dir(root())
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout)?;
    let pairs = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    });
    Ok(pairs.collect())
}

#[test]
fn only_allowed_licences_are_built_in() -> anyhow::Result<()> {
    let (allowed, built, metadata) = (deny()?.licenses.allow, built()?, metadata()?);
    let mut seen = 0;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if !built.contains(&(package.name.to_string(), package.version.to_string())) {
            continue;
        }
        seen += 1;
        let licence = package.license.as_deref().unwrap_or_default();
        if !permits(licence, &allowed) {
            wrong.push(format!("{} {}: {licence:?}", package.name, package.version));
        }
    }
    assert!(seen > 100, "the walk found the dependencies");
    assert!(wrong.is_empty(), "not allowed by deny.toml: {wrong:#?}");
    Ok(())
}

#[test]
fn banned_crates_are_absent_or_behind_their_wrappers() -> anyhow::Result<()> {
    let (bans, built, metadata) = (deny()?.bans.deny, built()?, metadata()?);
    let mut wrong = Vec::new();
    for ban in &bans {
        if !built.iter().any(|(name, _)| *name == ban.name) {
            continue;
        }
        let Some(wrappers) = &ban.wrappers else {
            wrong.push(format!("{} is built in: {}", ban.name, ban.reason));
            continue;
        };
        let namers = namers(&metadata, &ban.name)?;
        let outside =
            namers.difference(wrappers).map(|name| format!("{name} names {}: {}", ban.name, ban.reason));
        wrong.extend(outside);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// What only generated code names.
const GENERATED: [(&str, &str); 1] = [("hub-raft", "tonic-prost")];

#[test]
fn every_dependency_is_named_by_its_crate() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let mut unused = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().context("a manifest without a folder")?;
        let mut words = BTreeSet::new();
        for part in ["src", "tests", "build.rs"] {
            gather_words(folder.join(part).as_std_path(), &mut words)?;
        }
        let named = |name: &str| {
            words.contains(&name.replace('-', "_")) || GENERATED.contains(&(package.name.as_str(), name))
        };
        let dependencies = package.dependencies.iter().map(|one| one.rename.as_ref().unwrap_or(&one.name));
        unused
            .extend(dependencies.filter(|name| !named(name)).map(|name| format!("{} {name}", package.name)));
    }
    assert!(unused.is_empty(), "nothing uses {unused:?}");
    Ok(())
}

/// Every word of the Rust files at and under `path`.
fn gather_words(path: &Path, words: &mut BTreeSet<String>) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            gather_words(&entry?.path(), words)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
        let text = std::fs::read_to_string(path)?;
        words.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(ToOwned::to_owned));
    }
    Ok(())
}

/// The crates that name `banned` directly.
fn namers(metadata: &Metadata, banned: &str) -> anyhow::Result<BTreeSet<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata answered without a graph")?;
    let names: std::collections::BTreeMap<_, _> =
        metadata.packages.iter().map(|p| (&p.id, &p.name)).collect();
    let is_banned = |id| names.get(id).is_some_and(|name| name.as_str() == banned);
    let naming =
        resolve.nodes.iter().filter(|node| node.deps.iter().any(|dependency| is_banned(&dependency.pkg)));
    Ok(naming.filter_map(|node| names.get(&node.id)).map(|name| name.to_string()).collect())
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old way to write `OR`.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim();
    for (operator, all) in [(" AND ", true), (" OR ", false), ("/", false)] {
        // AND binds tighter than OR, so OR is split first where both stand outside brackets.
        if operator == " AND " && split(expression, " OR ").len() > 1 {
            continue;
        }
        let parts = split(expression, operator);
        if parts.len() > 1 {
            let mut parts = parts.into_iter();
            return if all { parts.all(|p| permits(p, allowed)) } else { parts.any(|p| permits(p, allowed)) };
        }
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => permits(inner, allowed),
        None => allowed.contains(expression.trim_end_matches('+')),
    }
}

/// The parts between occurrences of `operator` that stand outside brackets.
fn split<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0i32, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && expression[at..].starts_with(operator) => {
                parts.push(&expression[start..at]);
                start = at + operator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Zlib".to_owned(), "MPL-2.0".to_owned()]);
    for met in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND Zlib",
        "GPL-3.0 AND ISC OR MIT",
        "MPL-2.0+",
    ] {
        assert!(permits(met, &allowed), "{met}");
    }
    for unmet in ["", "GPL-3.0", "GPL-3.0 AND MIT", "MIT AND (GPL-3.0 OR ISC)", "GPL-3.0 OR ISC AND MIT"] {
        assert!(!permits(unmet, &allowed), "{unmet}");
    }
}
