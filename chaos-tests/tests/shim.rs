//! The shim itself: what was synced survives a loss of power, what was not does not, and faults arrive.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use hub_chaos_tests::folder::Folder;
use hub_chaos_tests::power::{self, Unsynced};
use hub_chaos_tests::shim::{self, Disk, Fault};

const EIO: &str = "5";
const ENOSPC: &str = "28";

struct Bench {
    folder: Folder,
    disk: Disk,
}

impl Bench {
    fn new(name: &str) -> anyhow::Result<Self> {
        let folder = Folder::new(name)?;
        let library = shim::compile(folder.path())?;
        let disk = Disk::new(&library, folder.path())?;
        Ok(Self { folder, disk })
    }

    /// One process that does the steps, in the disk's root, and is then killed.
    fn run(&self, steps: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_exercise-disk"))
            .current_dir(self.disk.root())
            .envs(self.disk.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = process.stdin.take().context("piped")?;
        let mut output = BufReader::new(process.stdout.take().context("piped")?).lines();
        let mut answers = Vec::new();
        for step in steps {
            writeln!(input, "{step}")?;
            answers.push(output.next().context("the process died")??);
        }
        process.kill()?;
        process.wait()?;
        Ok(answers)
    }

    fn run_well(&self, steps: &[&str]) -> anyhow::Result<()> {
        let answers = self.run(steps)?;
        let failed: Vec<_> = steps.iter().zip(&answers).filter(|(_, answer)| *answer != "ok").collect();
        anyhow::ensure!(failed.is_empty(), "{failed:?}");
        Ok(())
    }

    fn files(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(self.disk.root().join(&folder))? {
                let name = folder.join(entry?.file_name());
                let path = self.disk.root().join(&name);
                if path.is_dir() {
                    found.insert(format!("{}/", name.display()), String::new());
                    open.push(name);
                } else {
                    found.insert(name.display().to_string(), fs::read_to_string(path)?);
                }
            }
        }
        Ok(found)
    }

    /// The test is over and well.
    fn pass(self) -> anyhow::Result<()> {
        self.folder.pass();
        Ok(())
    }

    fn left_after_cut(&self) -> anyhow::Result<BTreeMap<String, String>> {
        power::cut(&self.disk, Unsynced::Lost)?;
        self.files()
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn synced_bytes_survive_and_others_vanish() -> anyhow::Result<()> {
    let bench = Bench::new("shim-bytes")?;
    bench.run_well(&[
        "write a one",
        "sync a",
        "append a -two",
        "sync-data a",
        "append a -three", // the last is lost
        "write b synced",
        "sync b",
        "patch b 2 XX",
        "sync b",
        "patch b 0 YY", // the last is lost
        "write c ",
        "gather c left right",
        "sync c",
        "write d 0123456789",
        "sync d",
        "length d 4",
        "append d ab",
        "sync d",
        "write e 0123456789",
        "sync e",
        "length e 2", // the cut is lost
        "write f kept",
        "sync f",
        "write f replaced", // a truncation that is lost
        "write g never",
        "copy a h",
        "sync h",
        "write i 0123456789",
        "sync i",
        "length i 0",
        "length i 8",
        "sync i", // zeros between
        "sync .",
    ])?;
    let zeros = "\0".repeat(8);
    assert_eq!(
        bench.left_after_cut()?,
        map(&[
            ("a", "one-two"),
            ("b", "syXXed"),
            ("c", "leftright"),
            ("d", "0123ab"),
            ("e", "0123456789"),
            ("f", "kept"),
            ("g", ""),
            ("h", "one-two-three"),
            ("i", &zeros),
        ])
    );
    bench.pass()
}

#[test]
fn names_wait_for_their_folder() -> anyhow::Result<()> {
    let bench = Bench::new("shim-names")?;
    bench.run_well(&[
        "write pointer old",
        "sync pointer",
        "write gone here",
        "sync gone",
        "mkdir inner",
        "sync .",
        // A replacement whose folder is synced, and one whose folder is not.
        "write pointer.new new",
        "sync pointer.new",
        "rename pointer.new pointer",
    ])?;
    assert_eq!(bench.left_after_cut()?, map(&[("pointer", "old"), ("gone", "here"), ("inner/", "")]));

    bench.run_well(&[
        "write pointer.new new",
        "sync pointer.new",
        "rename pointer.new pointer",
        "remove gone",
        "sync .",
        "write inner/x text",
        "sync inner/x",
        "write inner/y text",
        "sync inner/y",
        "sync inner",
        "write inner/z text",
        "mkdir lost",
        "write lost/x text",
        "sync lost/x",
        "sync lost",
    ])?;
    assert_eq!(
        bench.left_after_cut()?,
        map(&[("pointer", "new"), ("inner/", ""), ("inner/x", "text"), ("inner/y", "text")])
    );

    // A renamed folder takes its files along; a removed name comes back when its folder was not synced.
    bench.run_well(&["rename inner moved", "sync .", "remove moved/x", "link moved/y moved/w"])?;
    assert_eq!(
        bench.left_after_cut()?,
        map(&[("pointer", "new"), ("moved/", ""), ("moved/x", "text"), ("moved/y", "text")])
    );
    bench.pass()
}

#[test]
fn a_killed_process_loses_nothing_and_its_unsynced_bytes_stay_unsynced() -> anyhow::Result<()> {
    let bench = Bench::new("shim-restart")?;
    bench.run_well(&[
        "write a synced",
        "sync a",
        "write b synced",
        "sync b",
        "sync .",
        "append a -1",
        "append b -1",
    ])?;
    assert_eq!(bench.files()?, map(&[("a", "synced-1"), ("b", "synced-1")]));
    bench.run_well(&["append a -2", "sync a", "append b -2"])?;
    assert_eq!(bench.left_after_cut()?, map(&[("a", "synced-1-2"), ("b", "synced")]));
    bench.pass()
}

#[test]
fn inode_numbers_may_be_used_again() -> anyhow::Result<()> {
    let bench = Bench::new("shim-inodes")?;
    bench.run_well(&["write a first", "sync a", "sync .", "remove a", "sync ."])?;
    for round in 0..20 {
        let write = format!("write b{round} x");
        let sync = format!("sync b{round}");
        let remove = format!("remove b{round}");
        bench.run_well(&[
            &write,
            &sync,
            "sync .",
            &remove,
            "sync .",
            "write c never-synced",
            "sync .",
            "remove c",
        ])?;
    }
    bench.run_well(&["write c never-synced", "sync ."])?;
    assert_eq!(bench.left_after_cut()?, map(&[("c", "")]));
    bench.pass()
}

#[test]
fn some_unsynced_sectors_may_survive() -> anyhow::Result<()> {
    let (old, new) = ("o".repeat(8192), "n".repeat(8192));
    let mut seen = Vec::new();
    for seed in 1..=4 {
        let bench = Bench::new("shim-torn")?;
        let patch = format!("patch a 0 {new}");
        let write = format!("write a {old}");
        bench.run_well(&[&write, "sync a", "sync .", &patch])?;
        let loss = power::cut(&bench.disk, Unsynced::Torn { seed })?;
        let left = bench.files()?.remove("a").context("a is synced by name")?;
        assert_eq!(left.len(), 8192);
        assert_eq!(loss.sectors, left.matches('o').count() / 512);
        seen.push(left);
        bench.pass()?;
    }
    assert!(seen.iter().any(|left| left.contains('o') && left.contains('n')), "no seed tore the file");
    Ok(())
}

#[test]
fn faults_arrive_and_end() -> anyhow::Result<()> {
    let bench = Bench::new("shim-faults")?;
    bench.run_well(&["write a synced", "sync a", "sync ."])?;
    bench.disk.start(Fault::EioOnSync)?;
    assert_eq!(bench.run(&["append a -1", "sync a", "sync-data a", "sync ."])?, ["ok", EIO, EIO, EIO]);
    bench.disk.end(Fault::EioOnSync)?;
    bench.disk.start(Fault::NoSpace)?;
    assert_eq!(
        bench.run(&["append a -2", "patch a 0 x", "gather a x y", "sync a"])?,
        [ENOSPC, ENOSPC, ENOSPC, "ok"]
    );
    bench.disk.end(Fault::NoSpace)?;
    bench.disk.start(Fault::EioOnDatabase)?;
    assert_eq!(
        bench.run(&["write a.db old", "patch a.db 0 x", "write a.db-wal old", "patch a.db-wal 0 x"])?,
        ["ok", EIO, "ok", "ok"]
    );
    bench.run_well(&["remove a.db", "remove a.db-wal"])?;
    bench.disk.end(Fault::EioOnDatabase)?;
    bench.disk.start(Fault::IgnoreSync)?;
    bench.run_well(&["append a -3", "sync a", "write b new", "sync b", "sync ."])?;
    assert_eq!(bench.files()?, map(&[("a", "synced-1-3"), ("b", "new")]));
    assert_eq!(bench.left_after_cut()?, map(&[("a", "synced-1")]));
    bench.pass()
}

#[test]
fn files_outside_the_root_are_left_alone() -> anyhow::Result<()> {
    let bench = Bench::new("shim-outside")?;
    bench.disk.start(Fault::NoSpace)?;
    bench.disk.start(Fault::EioOnSync)?;
    let outside = bench.disk.root().with_file_name("outside");
    let (write, sync) = (format!("write {} x", outside.display()), format!("sync {}", outside.display()));
    bench.run_well(&[&write, &sync])?;
    assert!(Path::new(&outside).exists());
    bench.pass()
}
