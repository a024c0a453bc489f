//! Opening connections to other nodes.

use std::sync::Weak;
use std::time::Duration;

use hub_core::id::NodeId;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::ending::Ending;
use super::handshake::{self, HandshakeError, Hello, Purpose};
use super::key::ClusterKey;
use super::transport::Inner;

/// A node that does not take a connection within this is taken as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Kinds of traffic, each with its own connection, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Entries.
    Append,
    /// Heartbeats, votes and transfers.
    Heartbeat,
    /// Snapshots.
    Snapshot,
    /// Forwarded proposals, reads, and everything else.
    Calls,
}

/// Opens and proves a connection.
pub(crate) async fn dial(
    address: &str,
    key: &ClusterKey,
    hello: &Hello,
) -> Result<TcpStream, HandshakeError> {
    let connect = TcpStream::connect(address);
    let connected =
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| HandshakeError::Timeout)?;
    let mut stream = connected?;
    stream.set_nodelay(true)?;
    handshake::call(&mut stream, key, hello).await?;
    Ok(stream)
}

fn endpoint() -> Endpoint {
    // Names and paths mean nothing here: the connector knows where to go.
    Endpoint::from_static("http://node")
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .buffer_size(4_096)
}

/// A connection to a member that is opened when it is used. It asks the address book each time.
pub(super) fn channel(transport: Weak<Inner>, to: NodeId) -> Channel {
    endpoint().connect_with_connector_lazy(service_fn(move |_| {
        let transport = Weak::clone(&transport);
        async move {
            let gone = || std::io::Error::other("transport is closed");
            let transport = transport.upgrade().ok_or_else(gone)?;
            if transport.tasks.is_stopped() {
                return Err(gone().into());
            }
            let address = transport
                .address(to)
                .ok_or_else(|| std::io::Error::other(format!("no address of node {to} is known")))?;
            let hello = Hello {
                purpose: Purpose::Member,
                from: transport.node,
                to,
                boot: transport.boot,
                cluster: transport.cluster,
                generation: transport.generation,
            };
            match dial(&address, &transport.key, &hello).await {
                Ok(stream) => {
                    transport.refused(to, None);
                    Ok(TokioIo::new(Ending::new(stream, transport.tasks.ended(), ())))
                }
                Err(error) => {
                    if let HandshakeError::Refused(refusal) = &error {
                        transport.refused(to, Some(*refusal));
                    }
                    Err(error)
                }
            }
        }
    }))
}

/// A connection of a node that is not a member yet, or does not know whom it calls.
pub(crate) async fn joiner_channel(
    address: &str,
    key: &ClusterKey,
    from: NodeId,
    boot: u128,
    (cluster, generation): (u128, u64),
) -> Result<Channel, HandshakeError> {
    let hello = Hello { purpose: Purpose::Joiner, from, to: NodeId(0), boot, cluster, generation };
    let mut stream = Some(dial(address, key, &hello).await?);
    let connector = service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("connection is closed")) }
    });
    let connected = endpoint().connect_with_connector(connector).await;
    connected.map_err(|error| HandshakeError::Io(std::io::Error::other(error)))
}
