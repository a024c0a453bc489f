//! Connections that others opened: judged, counted, and handed to the server.

use std::io;
use std::sync::Arc;

use hub_core::id::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::WaitForCancellationFutureOwned;
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

/// Somebody who was let in: counted as present for as long as this lives.
pub(super) struct Entered {
    peer: Peer,
    transport: Arc<Inner>,
}

impl Entered {
    /// Lets a caller that has the key in, or not. What comes with it ends the connection.
    fn new(
        transport: &Arc<Inner>,
        hello: &handshake::Hello,
    ) -> Result<(Self, WaitForCancellationFutureOwned), handshake::Refusal> {
        let ended = transport.enter(hello)?;
        let peer = Peer { node: hello.from, purpose: hello.purpose };
        Ok((Self { peer, transport: Arc::clone(transport) }, ended))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.transport.left(&self.peer);
    }
}

/// A proven connection that another node opened.
pub(super) type PeerStream = Ending<Entered>;

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.guard().peer
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
        entered = Some(Entered::new(transport, hello)?);
        Ok(())
    };
    handshake::answer(&mut stream, &transport.key, judge).await?;
    let (guard, ended) = entered.ok_or(HandshakeError::Timeout)?;
    Ok(Ending::new(stream, ended, guard))
}
