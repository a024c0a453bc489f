//! Whole copies of the database: made for a node that the log can no longer bring up, and taken in by it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use hub_core::port::SnapshotFile;
use sqlx::{Connection, SqliteConnection};

use super::database;
use super::fault::Fault;
use super::folder::{Folder, sync_folder};

/// Writes a copy of `database` as it is now into `dir`. Entries may be applied meanwhile.
pub(super) async fn export(database: &Path, dir: &Path) -> Result<SnapshotFile, Fault> {
    let during = "copying the database";
    fs::create_dir_all(dir).map_err(Fault::file(during))?;
    let part = tempfile_in(dir)?;
    let target = part.to_str().ok_or_else(|| Fault::File {
        during,
        source: io::Error::new(io::ErrorKind::InvalidInput, "the folder's name is not UTF-8"),
    })?;
    let mut source = connect(database, false).await?;
    let copied = sqlx::query("VACUUM INTO ?").bind(target.to_owned()).execute(&mut source).await;
    source.close().await.map_err(Fault::sql(during))?;
    copied.map_err(Fault::sql(during))?;
    let mut copy = connect(&part, true).await?;
    let (mark, _) = database::read_state(&mut copy).await?;
    copy.close().await.map_err(Fault::sql(during))?;
    let path = dir.join(format!("messages-{}.snapshot", mark.index));
    let (from, to, folder) = (part, path.clone(), dir.to_owned());
    let (bytes, crc32c) = blocking(during, move || {
        let file = File::open(&from)?;
        file.sync_all()?;
        let sums = measure(file)?;
        fs::rename(&from, &to)?;
        Ok(sums)
    })
    .await?;
    sync_folder(&folder)?;
    Ok(SnapshotFile { path, mark, bytes, crc32c })
}

/// Checks a received copy and brings it into the folder, unused yet; the name it shall get.
pub(super) async fn receive(folder: &Folder, file: &SnapshotFile) -> Result<String, Fault> {
    let during = "taking in a copy of the database";
    let (from, part) = (file.path.clone(), folder.part());
    let (bytes, crc32c) = blocking(during, move || {
        // A move where it can be one, else a copy.
        if fs::rename(&from, &part).is_err() {
            fs::copy(&from, &part)?;
        }
        let file = File::open(&part)?;
        file.sync_all()?;
        measure(file)
    })
    .await?;
    if (bytes, crc32c) != (file.bytes, file.crc32c) {
        return Err(Fault::Corrupt("the received copy does not fit its checksum".to_owned()));
    }
    let mut copy = connect(&folder.part(), true).await?;
    database::check(&mut copy, &folder.part()).await?;
    let (mark, _) = database::read_state(&mut copy).await?;
    copy.close().await.map_err(Fault::sql(during))?;
    if mark != file.mark {
        return Err(Fault::Corrupt("the received copy holds another state than it was sent as".to_owned()));
    }
    Ok(folder.name_for(mark.index))
}

async fn connect(path: &Path, immutable: bool) -> Result<SqliteConnection, Fault> {
    let options = database::options(path).read_only(true).immutable(immutable);
    SqliteConnection::connect_with(&options).await.map_err(Fault::sql("opening a copy of the database"))
}

/// A name that nothing has yet.
fn tempfile_in(dir: &Path) -> Result<std::path::PathBuf, Fault> {
    let during = "naming a copy of the database";
    let free = (0..1_000).map(|n| dir.join(format!("export-{n}.part"))).find(|path| !path.exists());
    free.ok_or_else(|| Fault::File { during, source: io::Error::other("too many unfinished copies") })
}

fn measure(mut file: File) -> io::Result<(u64, u32)> {
    let (mut bytes, mut sum) = (0_u64, 0_u32);
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            return Ok((bytes, sum));
        };
        sum = crc32c::crc32c_append(sum, chunk);
        bytes += read as u64;
    }
}

async fn blocking<T: Send + 'static>(
    during: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::File { during, source: io::Error::other(error) })?
        .map_err(Fault::file(during))
}
