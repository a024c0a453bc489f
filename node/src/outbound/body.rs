//! Bodies: the outgoing one, which notes its departure, and the reading of the target's answer within limits.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::Departure;

/// A body that is whole in memory.
#[derive(Debug)]
pub(super) struct Outgoing {
    data: Option<Bytes>,
    departure: Departure,
}

impl Outgoing {
    pub(super) fn new(data: Bytes, departure: Departure) -> Self {
        Self { data: (!data.is_empty()).then_some(data), departure }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.departure.start();
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// How much of the body of a target's answer is kept.
pub const KEPT: usize = 1024;
/// How much of any body is read so that the connection can be used again; a longer one costs the connection.
pub const DRAINED: usize = 64 * 1024;

/// Reads the answer's body: its first `keep` bytes. What lies beyond [`DRAINED`] is not read.
pub(super) async fn read(mut body: Incoming, keep: usize) -> Result<Bytes, hyper::Error> {
    let mut kept = BytesMut::new();
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        let room = keep.saturating_sub(kept.len()).min(data.len());
        kept.extend_from_slice(data.get(..room).unwrap_or_default());
        if seen > DRAINED {
            break;
        }
    }
    Ok(kept.freeze())
}
