//! How every store lists: by keyset. A page walks one index from the cursor on and looks at a bounded number of rows: with a
//! filter that few rows meet, a page may come back short, or empty, with a cursor to go on from.

use std::sync::Arc;
use std::time::Duration;

use hub_core::id::{MessageId, ServiceName};
use hub_core::message::{Cursor, Filter, PAGE_BYTES, Status};
use hub_core::time::Timestamp;
use uuid::Uuid;

/// Rows that one statement looks at.
const STRIDE: u32 = 2_000;
/// Rows that one page looks at.
const REACH: u32 = 10_000;
/// Ids carry the time at which they were made; the time of acceptance is not further from it than this.
const SLACK: Duration = Duration::from_secs(60);

/// Which index a page walks.
#[derive(Clone, Debug)]
pub(crate) enum Walk {
    All,
    Target(ServiceName),
    Sender(ServiceName),
    Correlation(Arc<str>),
    /// One of the rare final states, or dead letters.
    Rare(Status),
    DeadOf(ServiceName),
    /// Waiting ones.
    Open,
    OpenOf(ServiceName),
    Claimed,
}

/// The indexes that together hold all matches: the narrowest there is.
pub(crate) fn walks(filter: &Filter) -> Vec<Walk> {
    let one = match (&filter.correlation_id, filter.status, &filter.target, &filter.sender) {
        (Some(correlation), ..) => Walk::Correlation(correlation.clone()),
        (_, Some(Status::DeadLetter), Some(target), _) => Walk::DeadOf(target.clone()),
        (_, Some(Status::Delivering), ..) => Walk::Claimed,
        (_, Some(status), Some(target), _) if status.is_open() => Walk::OpenOf(target.clone()),
        (_, Some(status), ..) if status.is_open() => Walk::Open,
        (_, Some(status), ..) if status != Status::Delivered => Walk::Rare(status),
        (_, _, Some(target), _) => Walk::Target(target.clone()),
        (_, _, _, Some(sender)) => Walk::Sender(sender.clone()),
        _ => match &filter.visible_to {
            Some(service) => return vec![Walk::Target(service.clone()), Walk::Sender(service.clone())],
            None => Walk::All,
        },
    };
    vec![one]
}

/// The smallest id made at or after a time.
fn id_at(time: Timestamp) -> MessageId {
    let millis = u128::try_from(time.as_millis().max(0)).unwrap_or(0).min((1 << 48) - 1);
    MessageId(Uuid::from_u128(millis << 80))
}

/// A walk under way.
pub(crate) struct Path {
    /// Ids below this one come next.
    pub(crate) from: Option<MessageId>,
    /// No id below this one can meet the filter.
    pub(crate) until: Option<MessageId>,
    /// Rows that the next statement looks at.
    pub(crate) stride: u32,
    wanted: usize,
    seen: u32,
    hits: Vec<MessageId>,
}

/// What a walk found.
pub(crate) struct Found {
    pub(crate) hits: Vec<MessageId>,
    /// Where it stopped before its end.
    pub(crate) stopped: Option<MessageId>,
}

impl Path {
    pub(crate) fn new(filter: &Filter, after: Option<Cursor>, limit: u32) -> Self {
        let mut from = after.map(|cursor| cursor.0);
        if let Some(before) = filter.created_before {
            let end = id_at(before.plus(SLACK));
            from = Some(from.map_or(end, |from| from.min(end)));
        }
        Self {
            from,
            until: filter.created_after.map(|after| id_at(after.minus(SLACK))),
            stride: limit.saturating_add(1).clamp(64, STRIDE),
            wanted: usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1),
            seen: 0,
            hits: Vec::new(),
        }
    }

    /// Takes what a statement gave: ids from `from` down, each with whether it meets the filter. What was found, once the walk
    /// is over.
    pub(crate) fn step(&mut self, rows: Vec<(MessageId, bool)>) -> Option<Found> {
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        for (id, hit) in rows {
            self.from = Some(id);
            if hit {
                self.hits.push(id);
            }
            if self.hits.len() >= self.wanted {
                return Some(self.end(Some(id)));
            }
        }
        if count < self.stride {
            return Some(self.end(None));
        }
        self.seen = self.seen.saturating_add(count);
        self.stride = STRIDE;
        (self.seen >= REACH).then(|| self.end(self.from))
    }

    fn end(&mut self, stopped: Option<MessageId>) -> Found {
        Found { hits: std::mem::take(&mut self.hits), stopped }
    }
}

/// The ids of a page, newest first, and where the walks stopped.
pub(crate) struct Ids {
    ids: Vec<MessageId>,
    frontier: Option<MessageId>,
    limit: usize,
}

impl Ids {
    /// Of what the walks found; at most `limit` go on the page.
    pub(crate) fn of(found: Vec<Found>, limit: u32) -> Self {
        let frontier = found.iter().map(|found| found.stopped).max().flatten();
        let mut ids: Vec<MessageId> = found.into_iter().flat_map(|found| found.hits).collect();
        // Below the frontier another walk may have missed some.
        ids.retain(|id| frontier.is_none_or(|frontier| *id >= frontier));
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        ids.dedup();
        Self { ids, frontier, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    /// Those that may go on the page.
    pub(crate) fn candidates(&self) -> &[MessageId] {
        self.ids.get(..self.limit).unwrap_or(&self.ids)
    }

    /// Those that do, by the bytes of each, and where the next page starts.
    pub(crate) fn fit(self, bytes: impl Fn(MessageId) -> usize) -> (Vec<MessageId>, Option<Cursor>) {
        let mut total = 0_usize;
        let fit = self.candidates().iter().take_while(|id| {
            total = total.saturating_add(bytes(**id));
            total <= PAGE_BYTES
        });
        let fit = fit.count().max(1).min(self.candidates().len());
        let full = fit < self.ids.len();
        let mut page = self.ids;
        page.truncate(fit);
        let next = if full { page.last().copied() } else { self.frontier };
        (page, next.map(Cursor))
    }
}
