//! Waits for changes in a folder, told by the kernel.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Waits for changes in a folder.
pub(super) struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Changes from now on are seen.
    #[expect(deprecated, reason = "its successor is unsafe; an owned descriptor keeps its promise by itself")]
    pub(super) fn on(folder: &Path) -> std::io::Result<Self> {
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let wanted =
            inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE;
        inotify::add_watch(&events, folder, wanted)?;
        Ok(Self { events: AsyncFd::new(events)? })
    }

    /// Returns after at least one change since the last call.
    pub(super) async fn changed(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.events.readable().await?;
            let mut seen = false;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(self.events.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(_) => seen = true,
                    Err(Errno::WOULDBLOCK) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn sees_a_file_that_is_moved_in() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        let watch = Watch::on(folder.path()).unwrap();
        std::fs::rename(other.path(), folder.path().join("there")).unwrap();
        tokio::time::timeout(Duration::from_secs(60), watch.changed()).await.unwrap().unwrap();
    }
}
