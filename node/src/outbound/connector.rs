//! Makes connections: resolve, check every address, connect to one that was checked. The name is never resolved a second
//! time, so it cannot point elsewhere between check and use.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use super::failure::ConnectFailure;
use super::{Guard, Resolver};

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, ConnectFailure>> + Send>>;

/// Plain TCP behind the guard.
#[derive(Clone)]
pub(super) struct Guarded {
    resolver: Arc<dyn Resolver>,
    guard: Arc<dyn Guard>,
    limit: Duration,
}

impl Guarded {
    /// `limit` is shared by the addresses of one name.
    pub(super) fn new(resolver: Arc<dyn Resolver>, guard: Arc<dyn Guard>, limit: Duration) -> Self {
        Self { resolver, guard, limit }
    }

    async fn connect(self, target: Uri) -> Result<TokioIo<TcpStream>, ConnectFailure> {
        let addresses = self.addresses(&target).await?;
        let share = self.limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failure = ConnectFailure::Guarded;
        for address in addresses.into_iter().filter(|address| self.guard.permits(*address)) {
            failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(ConnectFailure::Connect)?;
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => ConnectFailure::Connect(error),
                Err(_) => ConnectFailure::Timeout,
            };
        }
        Err(failure)
    }

    async fn addresses(&self, target: &Uri) -> Result<Vec<SocketAddr>, ConnectFailure> {
        let host = target.host().ok_or(ConnectFailure::NoHost)?;
        let default_port = if target.scheme_str() == Some("https") { 443 } else { 80 };
        let port = target.port_u16().unwrap_or(default_port);
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let found = self.resolver.resolve(host, port).await?;
        if found.is_empty() { Err(super::ResolveError::NotFound.into()) } else { Ok(found) }
    }
}

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectFailure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}

/// Bounds the whole of name, TCP and TLS, and keeps errors of TLS apart from the rest.
#[derive(Clone)]
pub(super) struct Bounded {
    inner: hyper_rustls::HttpsConnector<Guarded>,
    limit: Duration,
}

impl Bounded {
    pub(super) const fn new(inner: hyper_rustls::HttpsConnector<Guarded>, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

impl Service<Uri> for Bounded {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = ConnectFailure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.inner.call(target);
        let limit = self.limit;
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(match error.downcast::<ConnectFailure>() {
                    Ok(failure) => *failure,
                    Err(error) => ConnectFailure::Tls(error),
                }),
                Err(_) => Err(ConnectFailure::Timeout),
            }
        })
    }
}
