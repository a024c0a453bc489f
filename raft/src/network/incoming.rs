//! Connections that others opened: judged, counted, and handed to the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hub_core::id::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::server::Connected;

use super::ending::Ending;
use super::handshake::{self, HandshakeError, Purpose};
use super::transport::Inner;

/// Connections that may be proving themselves at the same time; more are closed at once.
const MAX_UNPROVEN: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) purpose: Purpose,
}

/// A proven connection.
pub(super) struct PeerStream {
    stream: Ending,
    peer: Peer,
    transport: Arc<Inner>,
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        self.transport.left(&self.peer);
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts until cancelled. Every connection proves itself in a task of its own.
pub(super) async fn accept(
    transport: Arc<Inner>,
    listener: TcpListener,
    proven: mpsc::Sender<io::Result<PeerStream>>,
) {
    let places = Arc::new(Semaphore::new(MAX_UNPROVEN));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "connection of a node was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections that have not proven themselves, one is closed");
            continue;
        };
        let (transport, proven) = (Arc::clone(&transport), proven.clone());
        transport.tasks.clone().spawn(async move {
            match prove(&transport, stream).await {
                Ok(stream) => drop(proven.send(Ok(stream)).await),
                Err(error) => tracing::warn!(%error, "connection of a node was refused"),
            }
            drop(place);
        });
    }
}

async fn prove(transport: &Arc<Inner>, mut stream: TcpStream) -> Result<PeerStream, HandshakeError> {
    stream.set_nodelay(true)?;
    let mut entered = None;
    let judge = |hello: &handshake::Hello| {
        let ended = transport.enter(hello)?;
        entered = Some((Peer { node: hello.from, purpose: hello.purpose }, ended));
        Ok(())
    };
    let answered = handshake::answer(&mut stream, &transport.key, judge).await;
    match (answered, entered) {
        (Ok(_), Some((peer, ended))) => {
            let stream = Ending::new(stream, ended);
            Ok(PeerStream { stream, peer, transport: Arc::clone(transport) })
        }
        (answered, entered) => {
            if let Some((peer, _)) = entered {
                transport.left(&peer);
            }
            Err(answered.err().unwrap_or(HandshakeError::Timeout))
        }
    }
}
