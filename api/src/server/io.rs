//! A connection that knows how long it may take: a header to arrive, and to wait for the next request.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hub_core::error::code;
use hub_core::port::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::{ServerOptions, raw};
use crate::problem::Problem;

/// What the requests of one connection tell its I/O.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    at_work: AtomicUsize,
    begun: AtomicUsize,
    idle_since_ms: AtomicU64,
    expired: AtomicUsize,
}

const EXPIRED: [&str; 3] = ["", "header_timeout", "idle_timeout"];
const HEADER: usize = 1;
const IDLE: usize = 2;

/// One request at work.
pub(super) struct Busy {
    activity: Arc<Activity>,
}

impl Activity {
    pub(super) const fn new(opened: Instant) -> Self {
        Self {
            opened,
            at_work: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
            expired: AtomicUsize::new(0),
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.at_work.fetch_add(1, Ordering::Relaxed);
        Busy { activity: Arc::clone(self) }
    }

    /// Why the connection was ended for taking too long, if it was.
    pub(super) fn expired(&self) -> Option<&'static str> {
        EXPIRED.get(self.expired.load(Ordering::Relaxed)).copied().filter(|reason| !reason.is_empty())
    }

    fn idle_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed))
    }
}

impl Busy {
    /// The request has its answer.
    pub(super) fn end(self, now: Instant) {
        let since = now.saturating_duration_since(self.activity.opened);
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.activity.idle_since_ms.store(since, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream of one connection under watch.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    clock: Arc<dyn Clock>,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// When the header that is arriving began, and how many requests had begun by then.
    header: Option<(Instant, usize)>,
    /// It speaks HTTP/2, whose frames come between requests too. Known with the first bytes.
    http2: Option<bool>,
    timer: Option<(Pin<Box<Sleep>>, Instant)>,
    /// Output of our own that comes before anything else.
    own: Vec<u8>,
}

impl Watched {
    pub(super) fn new(
        stream: TcpStream,
        activity: Arc<Activity>,
        clock: Arc<dyn Clock>,
        options: &ServerOptions,
    ) -> Self {
        Self {
            stream,
            activity,
            clock,
            header_timeout: options.header_timeout,
            idle_timeout: options.idle_timeout,
            header: None,
            http2: None,
            timer: None,
            own: Vec::new(),
        }
    }

    fn arrived(&mut self, bytes: &[u8]) {
        let http2 = *self.http2.get_or_insert_with(|| bytes.starts_with(b"PRI"));
        let begun = self.activity.begun.load(Ordering::Relaxed);
        let same_header = self.header.is_some_and(|(_, then)| then == begun);
        if !http2 && !same_header && self.activity.at_work.load(Ordering::Relaxed) == 0 {
            self.header = Some((self.clock.instant(), begun));
        }
    }

    /// When the connection has taken too long, and for what. `None` while a request is at work: it has its own deadline.
    fn deadline(&mut self) -> Option<(Instant, usize)> {
        if self.activity.at_work.load(Ordering::Relaxed) > 0 {
            self.header = None;
            return None;
        }
        let begun = self.activity.begun.load(Ordering::Relaxed);
        match self.header {
            Some((since, then)) if then == begun => return Some((since + self.header_timeout, HEADER)),
            _ => self.header = None,
        }
        if begun == 0 {
            return Some((self.activity.opened + self.header_timeout, HEADER));
        }
        Some((self.activity.idle_since() + self.idle_timeout, IDLE))
    }

    /// Nothing is there to read: ready once that has lasted too long. The timer is moved only when it fires or comes too
    /// late, not with every request.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some((deadline, reason)) = self.deadline() else { return Poll::Pending };
            let now = self.clock.instant();
            if now >= deadline {
                self.expire(reason);
                return Poll::Ready(());
            }
            let late = match &mut self.timer {
                None => true,
                Some((_, armed)) => *armed > deadline || *armed <= now,
            };
            if late {
                let at = tokio::time::Instant::from_std(deadline);
                match &mut self.timer {
                    Some((sleep, armed)) => {
                        sleep.as_mut().reset(at);
                        *armed = deadline;
                    }
                    None => self.timer = Some((Box::pin(tokio::time::sleep_until(at)), deadline)),
                }
            }
            let Some((sleep, _)) = &mut self.timer else { return Poll::Pending };
            ready!(sleep.as_mut().poll(cx));
        }
    }

    fn expire(&self, reason: usize) {
        self.activity.expired.store(reason, Ordering::Relaxed);
        if reason == HEADER && self.http2 != Some(true) {
            let seconds = self.header_timeout.as_secs_f32();
            let detail = format!("the request's header did not arrive within {seconds} s");
            let answer = raw::answer(&Problem::new(code::HEADER_TIMEOUT, detail));
            // A peer that sends nothing may not read either: what it does not take is lost with the connection.
            let _best_effort = self.stream.try_write(&answer);
        }
    }

    /// Puts what takes the place of `output`, if anything does, before all other output: it replaces the library's own
    /// answer to a header that never became a request.
    fn replace(&mut self, output: &[u8]) -> bool {
        let begun = self.activity.begun.load(Ordering::Relaxed);
        if self.http2 == Some(true)
            || self.activity.at_work.load(Ordering::Relaxed) > 0
            || self.header.is_none_or(|(_, then)| then != begun)
        {
            return false;
        }
        let Some(answer) = raw::in_place_of(output) else { return false };
        self.own = answer;
        true
    }

    /// Writes our own output.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.own))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.own.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if let Some(new) = buf.filled().get(before..).filter(|new| !new.is_empty()) {
                    self.arrived(new);
                }
                Poll::Ready(result)
            }
            // To the layer above a connection that took too long has simply ended.
            Poll::Pending => self.poll_overdue(cx).map(Ok),
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(cx))?;
        if self.replace(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(cx))?;
        if bufs.first().is_some_and(|first| self.replace(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
