//! Connections to the broker. They do not come back by themselves: the service makes new ones.

use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::{Channel, Connection, ConnectionProperties};

use super::error::Error;
use super::options::Options;

/// How long connecting may take, the handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one call on a connection may take.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// How long saying goodbye may take.
const CLOSE: Duration = Duration::from_secs(1);

/// Opens a connection that calls itself `name`.
pub(super) async fn open(options: &Options, name: String) -> Result<Connection, Error> {
    let uri = options.uri()?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(Error::during("connect"))?;
    let connecting = Connection::connector(
        uri,
        runtime,
        async |uri, runtime| {
            let tls = OwnedTLSConfig::default();
            let connecting = uri.connect_with_config_async(tls.as_ref(), &runtime);
            // The connection's own thread waits here: it must not outlive our patience.
            let connected = tokio::time::timeout(CONNECT, connecting).await;
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            Ok(connected.map_err(late)??)
        },
        properties,
    );
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(connection) => connection.map_err(Error::connecting),
        Err(_) => Err(Error::Timeout("connect")),
    }
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, Error> {
    in_time("open a channel", connection.create_channel()).await
}

/// Says goodbye; whether it was heard does not matter.
pub(super) async fn close(connection: &Connection) {
    let goodbye = connection.close(200, "the hub is done".into());
    drop(tokio::time::timeout(CLOSE, goodbye).await);
}

/// One call, with a deadline.
pub(super) async fn in_time<T>(
    during: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.map_err(Error::during(during)),
        Err(_) => Err(Error::Timeout(during)),
    }
}
