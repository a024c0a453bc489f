//! The folder of the database: which file in it is the current one, and how that changes without a moment in between.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::fault::Fault;

const POINTER: &str = "current";
const POINTER_PART: &str = "current.part";
const FIRST: &str = "messages-0.db";

/// The folder, and the name of the current database in it. Its functions block.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    current: String,
}

impl Folder {
    /// Finds the current database; on the first start, names it. What a crash left over is removed.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        fs::create_dir_all(path).map_err(Fault::file("making the database folder"))?;
        let current = match fs::read_to_string(path.join(POINTER)) {
            Ok(text) => parse_pointer(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The pointer is written before the first database, so one without a pointer has lost it.
                if let Some(found) = databases(path)?.into_iter().next() {
                    return Err(Fault::Corrupt(format!(
                        "{found} lies there, but the file {POINTER} is missing"
                    )));
                }
                write_pointer(path, FIRST)?;
                FIRST.to_owned()
            }
            Err(error) => return Err(Fault::file("reading the pointer to the database")(error)),
        };
        let folder = Self { path: path.to_owned(), current };
        if folder.current != FIRST && !folder.database().exists() {
            return Err(Fault::Corrupt(format!("{} is missing", folder.current)));
        }
        folder.clean()?;
        Ok(folder)
    }

    /// The current database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(&self.current)
    }

    /// Where a copy is put before it is known to be whole.
    pub(super) fn part(&self) -> PathBuf {
        self.path.join("incoming.part")
    }

    /// A name for a copy of the state at `index` that no file in use has.
    pub(super) fn name_for(&self, index: u64) -> String {
        let name = format!("messages-{index}.db");
        if name == self.current { format!("messages-{index}-b.db") } else { name }
    }

    /// Gives the checked copy its name. A crash before [`Self::switch`] leaves it unused.
    pub(super) fn place(&self, name: &str) -> Result<(), Fault> {
        remove_database(&self.path, name)?;
        fs::rename(self.part(), self.path.join(name)).map_err(Fault::file("placing the copy"))?;
        sync_folder(&self.path)
    }

    /// From here on `name` is the current database, whatever happens.
    pub(super) fn switch(&mut self, name: &str) -> Result<(), Fault> {
        write_pointer(&self.path, name)?;
        name.clone_into(&mut self.current);
        Ok(())
    }

    /// Removes every database but the current one, and unfinished files.
    pub(super) fn clean(&self) -> Result<(), Fault> {
        for name in databases(&self.path)? {
            if name != self.current {
                remove_database(&self.path, &name)?;
            }
        }
        for part in [self.part(), self.path.join(POINTER_PART)] {
            remove_if_there(&part)?;
        }
        Ok(())
    }
}

fn parse_pointer(text: &str) -> Result<String, Fault> {
    let damaged = || Fault::Corrupt(format!("the file {POINTER} does not name a database"));
    let (name, checksum) = text.trim_end().split_once(' ').ok_or_else(damaged)?;
    let fits = u32::from_str_radix(checksum, 16).is_ok_and(|sum| sum == crc32c::crc32c(name.as_bytes()));
    if fits && is_database(name) { Ok(name.to_owned()) } else { Err(damaged()) }
}

fn write_pointer(folder: &Path, name: &str) -> Result<(), Fault> {
    let part = folder.join(POINTER_PART);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&part)?;
        writeln!(file, "{name} {:08x}", crc32c::crc32c(name.as_bytes()))?;
        file.sync_all()?;
        fs::rename(&part, folder.join(POINTER))
    };
    write().map_err(Fault::file("writing the pointer to the database"))?;
    sync_folder(folder)
}

/// Makes names in a folder survive a power loss.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Fault> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Fault::file("syncing the database folder"))
}

fn is_database(name: &str) -> bool {
    name.starts_with("messages-")
        && Path::new(name).extension().is_some_and(|extension| extension == "db")
        && !name.contains('/')
}

fn databases(folder: &Path) -> Result<Vec<String>, Fault> {
    let list = || -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_database(name)));
        }
        names.sort_unstable();
        Ok(names)
    };
    list().map_err(Fault::file("listing the database folder"))
}

fn remove_database(folder: &Path, name: &str) -> Result<(), Fault> {
    // The log first: a database without its log is only older, a log without its database would be read into another.
    for suffix in ["-wal", "-shm", ""] {
        remove_if_there(&folder.join(format!("{name}{suffix}")))?;
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::file("removing an old file")(error)),
        _ => Ok(()),
    }
}
