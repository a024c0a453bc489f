//! What openraft carries about as "the snapshot": usually only a mark, a file when a follower needs one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::{BoxFuture, Shared};
use hub_core::port::{SnapshotFile, StateMachineError};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// A copy that is being written, or is written; whoever waits for it drives it.
pub(crate) type Export = Shared<BoxFuture<'static, Result<Arc<CopyFile>, Arc<StateMachineError>>>>;

/// A snapshot's data.
#[derive(Clone)]
pub(crate) enum SnapshotSource {
    /// The state is durable where it lies up to here; there is no copy.
    Mark,
    /// A copy to be sent.
    Export(Export),
    /// A copy that arrived.
    Received(Arc<CopyFile>),
}

/// A file that goes when nobody needs it any more.
#[derive(Debug)]
pub(crate) struct CopyFile {
    pub(crate) file: SnapshotFile,
}

impl Drop for CopyFile {
    fn drop(&mut self) {
        // It may have been moved away by an install: then there is nothing to delete.
        match std::fs::remove_file(&self.file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.file.path.display(), %error, "snapshot copy was not deleted");
            }
            _ => {}
        }
    }
}

/// Deletes what a crash left behind in the folder of copies, and makes the folder.
pub(crate) fn clean_folder(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(dir)
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A snapshot that is being received.
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    bytes: u64,
    crc32c: u32,
}

impl Incoming {
    pub(crate) async fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("incoming-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { file: File::create(&path).await?, path, bytes: 0, crc32c: 0 })
    }

    pub(crate) async fn write(&mut self, part: &Bytes) -> io::Result<()> {
        self.bytes += part.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, part);
        self.file.write_all(part).await
    }

    /// Checks that all of it arrived as it was sent, and makes it durable.
    pub(crate) async fn finish(mut self, expected: SnapshotFile) -> io::Result<Arc<CopyFile>> {
        let copy = CopyFile { file: SnapshotFile { path: std::mem::take(&mut self.path), ..expected } };
        if (self.bytes, self.crc32c) != (copy.file.bytes, copy.file.crc32c) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("snapshot arrived damaged: {} of {} bytes", self.bytes, copy.file.bytes),
            ));
        }
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok(Arc::new(copy))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
