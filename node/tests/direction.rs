//! The one direction of the workspace: core at the bottom, node on top, no arrow between api, raft and storage.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which workspace crates a crate may name, for any purpose.
const ARROWS: &[(&str, &[&str])] = &[
    ("hub-core", &[]),
    ("hub-raft", &["hub-core"]),
    ("hub-storage", &["hub-core", "hub-test-servers"]),
    ("hub-api", &["hub-core"]),
    ("hub-node", &["hub-core", "hub-raft", "hub-storage", "hub-api", "hub-test-servers"]),
    // These stand outside: they know programs, not their code.
    ("hub-chaos-tests", &["hub-test-servers"]),
    ("hub-test-servers", &[]),
];

/// What core must not reach, however indirectly: no I/O, no clock, no async runtime.
const NOT_IN_CORE: &[&str] =
    &["tokio", "mio", "async-std", "hyper", "axum", "tonic", "openraft", "sqlx", "reqwest", "rustix", "rand"];

fn metadata() -> anyhow::Result<Metadata> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let options = ["--filter-platform", "x86_64-unknown-linux-gnu", "--locked"].map(String::from);
    Ok(MetadataCommand::new().manifest_path(root).other_options(options).exec()?)
}

#[test]
fn workspace_crates_name_only_what_lies_below() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let members: BTreeSet<String> =
        metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let known: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, known, "a new crate needs its place in ARROWS");
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let allowed =
            ARROWS.iter().find(|(name, _)| *name == package.name.as_str()).map_or(&[][..], |(_, to)| to);
        for dependency in &package.dependencies {
            if members.contains(&dependency.name) && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows in the wrong direction: {wrong:?}");
    Ok(())
}

#[test]
fn core_reaches_no_io_and_no_runtime() -> anyhow::Result<()> {
    let reached = reachable(&metadata()?, "hub-core");
    assert!(reached.contains("serde"), "the walk found core's own dependencies");
    let wrong: Vec<_> = NOT_IN_CORE.iter().filter(|name| reached.contains(**name)).collect();
    assert!(wrong.is_empty(), "hub-core reaches {wrong:?}");
    Ok(())
}

/// The names of all crates that `from` is built with, itself left out; what only its tests use is not counted.
fn reachable(metadata: &Metadata, from: &str) -> BTreeSet<String> {
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let nodes: BTreeMap<_, _> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| (&node.id, node)).collect();
    let mut open: Vec<_> =
        nodes.keys().copied().filter(|id| names.get(id).is_some_and(|n| n == from)).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        for dependency in nodes.get(id).map(|node| &node.deps[..]).unwrap_or_default() {
            let normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter().filter_map(|id| names.get(id).cloned()).collect()
}
