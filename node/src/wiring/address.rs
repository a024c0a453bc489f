//! Addresses: the ports a node listens on, and the names under which others reach it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use hub_core::error::code;
use tokio::net::TcpListener;

use crate::coded::CodedError;
use crate::config::{Config, HostPort};

/// The two listeners of a node, bound.
pub struct Bound {
    /// For clients.
    pub rest: TcpListener,
    /// For other nodes.
    pub raft: TcpListener,
    /// Where others reach them.
    pub place: Place,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Base URL of the REST interface.
    pub rest_url: String,
    /// `host:port` for other nodes.
    pub raft_addr: String,
}

/// Binds both ports.
///
/// # Errors
/// A port is taken (`HUB-2003`), or the address is not one of this machine.
pub async fn bind(config: &Config) -> Result<Bound, CodedError> {
    let rest = listen("rest.listen", config.rest.listen).await?;
    let raft = listen("raft.listen", config.raft.listen).await?;
    let toward = config.raft.join.first().or_else(|| config.raft.peers.first());
    let rest_url = match &config.rest.advertise {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", reached(&rest, toward).await?),
    };
    let raft_addr = match &config.raft.advertise {
        Some(address) => address.to_string(),
        None => reached(&raft, toward).await?,
    };
    Ok(Bound { rest, raft, place: Place { rest_url, raft_addr } })
}

async fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, CodedError> {
    TcpListener::bind(address).await.map_err(|error| {
        let (code, detail) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                (code::PORT_IN_USE, format!("{address} ({setting}) is taken by another process"))
            }
            _ => (code::CONFIG, format!("cannot listen on {address} ({setting})")),
        };
        CodedError::new(code, detail).because(error)
    })
}

/// Where others reach a listener: its own address, or for one that listens everywhere, the address this machine uses
/// toward its peers.
async fn reached(listener: &TcpListener, toward: Option<&HostPort>) -> Result<String, CodedError> {
    let unknown = |error: io::Error| {
        CodedError::new(
            code::CONFIG,
            "this machine's address cannot be told; set rest.advertise and raft.advertise",
        )
        .because(error)
    };
    let local = listener.local_addr().map_err(unknown)?;
    if !local.ip().is_unspecified() {
        return Ok(local.to_string());
    }
    if let Some(peer) = toward {
        for peer in resolve(peer).await.unwrap_or_default() {
            if let Ok(ip) = source_toward(peer) {
                return Ok(SocketAddr::new(ip, local.port()).to_string());
            }
        }
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(unknown)?;
    Ok(HostPort { host: name.trim().to_ascii_lowercase(), port: local.port() }.to_string())
}

/// The address of this machine that packets to `peer` carry. Nothing is sent.
fn source_toward(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr =
        if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// All addresses of a name.
///
/// # Errors
/// The name cannot be resolved.
pub async fn resolve(peer: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host((peer.host.as_str(), peer.port)).await?.collect();
    Ok(found)
}

/// The nodes that form a new cluster, in the order all of them agree on, and which of them this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formation {
    /// `host:port` of every node, sorted.
    pub peers: Vec<String>,
    /// This node's place among them.
    pub me: usize,
}

impl Formation {
    /// Whether this node founds the cluster.
    #[must_use]
    pub const fn founds(&self) -> bool {
        self.me == 0
    }

    /// The others.
    pub fn others(&self) -> impl Iterator<Item = &String> {
        self.peers.iter().enumerate().filter(|(place, _)| *place != self.me).map(|(_, peer)| peer)
    }
}

/// Finds this node among the peers. A single name stands for all addresses it resolves to; `None` while it resolves to
/// fewer than `expect`.
///
/// # Errors
/// This node is not among them.
pub async fn formation(
    peers: &[HostPort],
    expect: usize,
    listen: SocketAddr,
    advertised: &str,
) -> Result<Option<Formation>, CodedError> {
    let mut known: Vec<(String, Vec<SocketAddr>)> = Vec::new();
    for peer in peers {
        let addresses = resolve(peer).await.unwrap_or_default();
        if peers.len() == 1 && expect > 1 {
            known.extend(addresses.into_iter().map(|address| (address.to_string(), vec![address])));
        } else {
            known.push((peer.to_string(), addresses));
        }
    }
    known.sort();
    known.dedup();
    if known.len() < expect {
        return Ok(None);
    }
    let is_me = |(name, addresses): &(String, Vec<SocketAddr>)| {
        name == advertised || addresses.iter().any(|address| is_local(*address, listen))
    };
    let me = known.iter().position(is_me).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        let detail = format!("raft.peers ({}) does not name this node, {advertised}", names.join(", "));
        CodedError::new(code::CONFIG, detail)
    })?;
    Ok(Some(Formation { peers: known.into_iter().map(|(name, _)| name).collect(), me }))
}

/// Whether `address` leads to the listener at `listen`.
fn is_local(address: SocketAddr, listen: SocketAddr) -> bool {
    let same_ip = || {
        if listen.ip().is_unspecified() {
            UdpSocket::bind((address.ip(), 0)).is_ok()
        } else {
            listen.ip() == address.ip()
        }
    };
    address.port() == listen.port() && same_ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(ports: &[u16]) -> Vec<HostPort> {
        ports.iter().map(|port| HostPort { host: "127.0.0.1".to_owned(), port: *port }).collect()
    }

    #[tokio::test]
    async fn all_nodes_agree_on_who_founds() {
        for (port, me) in [(8301, 0), (8302, 1), (8303, 2)] {
            let listen: SocketAddr = ([127, 0, 0, 1], port).into();
            let found = formation(&peers(&[8303, 8301, 8302]), 3, listen, &listen.to_string())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(found.me, me);
            assert_eq!(found.peers[0], "127.0.0.1:8301");
            assert_eq!(found.others().count(), 2);
        }
    }

    #[tokio::test]
    async fn a_node_that_is_not_named_is_told_so() {
        let listen: SocketAddr = ([127, 0, 0, 1], 9999).into();
        let refused = formation(&peers(&[8301, 8302]), 2, listen, "127.0.0.1:9999").await.unwrap_err();
        assert_eq!(refused.code, code::CONFIG);
    }

    #[tokio::test]
    async fn a_name_waits_until_it_resolves_to_all() {
        let listen: SocketAddr = ([127, 0, 0, 1], 8301).into();
        assert_eq!(formation(&peers(&[8301]), 3, listen, "127.0.0.1:8301").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_listener_everywhere_is_reached_by_the_address_used_toward_its_peers() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = HostPort { host: "127.0.0.1".to_owned(), port: 1 };
        assert_eq!(reached(&listener, Some(&peer)).await.unwrap(), format!("127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_taken_port_has_its_code() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = listen("rest.listen", taken.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(refused.code, code::PORT_IN_USE);
    }
}
