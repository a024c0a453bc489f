//! Reading entries back: for followers, for apply, at start.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::entry::RaftEntry;
use openraft::storage::RaftLogReader;

use super::flush::Shared;
use crate::type_config::{C, Entry, Payload, Vote};

/// At most this much is read for one append message, and at once for apply; a single larger entry goes alone.
const READ_BYTES: usize = 2 << 20;

/// A view of the log for one reader.
#[derive(Clone)]
pub(crate) struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let log = self.shared.read();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for record in log.read(start, end) {
            let (id, payload) = record?;
            bytes += usize::try_from(payload.size()).unwrap_or(usize::MAX);
            if bytes > limit && !entries.is_empty() {
                break;
            }
            entries.push(Entry::new(id.into(), payload.0));
        }
        Ok(entries)
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}

impl RaftLogReader<C> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let pages = Pages { reader: self.clone(), next: start, end, page: VecDeque::new() };
        futures::stream::iter(pages)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.read().log_state().vote().copied().map(Vote::from))
    }
}

/// Entries one after the other, read a page at a time, so that a long backlog is never in memory as a whole.
struct Pages {
    reader: LogReader,
    next: u64,
    end: u64,
    page: VecDeque<Entry>,
}

impl Iterator for Pages {
    type Item = Result<Entry, io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && self.next < self.end {
            match self.reader.read(self.next, self.end, READ_BYTES) {
                Ok(page) => self.page = page.into(),
                Err(error) => {
                    self.end = self.next;
                    return Some(Err(error));
                }
            }
            match self.page.back() {
                Some(last) => self.next = last.log_id.index() + 1,
                None => self.end = self.next,
            }
        }
        self.page.pop_front().map(Ok)
    }
}

/// Bytes that an entry takes on the wire and in memory, about.
pub(crate) fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Normal(bytes) => bytes.0.len(),
        Payload::Blank | Payload::Membership(_) => 64,
    }
}
