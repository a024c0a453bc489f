//! Which addresses the hub calls: the configured networks, never the hub itself.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use hub_core::control::State;
use hub_core::registry::{AddressPolicy, Host, TargetUrl};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::outbound::Guard;

/// The one decision, for URLs that are registered and for every connection.
#[derive(Clone)]
pub struct Targets {
    allowed: Vec<IpNet>,
    own_ports: [u16; 2],
    members: watch::Receiver<State>,
}

impl Targets {
    /// `allowed` as configured (empty: everything but loopback); `own_ports` are this node's, those of the others are
    /// in the control state.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, own_ports: [u16; 2], members: watch::Receiver<State>) -> Self {
        let allowed = if allowed.is_empty() { AddressPolicy::default().allowed } else { allowed };
        Self { allowed, own_ports, members }
    }

    /// What can be said of a URL without resolving its name.
    ///
    /// # Errors
    /// Why it is not called, for people.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        let url: TargetUrl = url.parse().map_err(|error: hub_core::registry::UrlError| error.to_string())?;
        let address = match &url.host {
            Host::Ip(ip) => *ip,
            Host::Name(name) if name.trim_end_matches('.') == "localhost" => IpAddr::from([127, 0, 0, 1]),
            Host::Name(_) => return Ok(()),
        };
        let address = SocketAddr::new(address, url.port);
        self.policy(address).check(address).map_err(|refused| refused.to_string())
    }

    /// The policy as far as it matters for `address`.
    fn policy(&self, address: SocketAddr) -> AddressPolicy {
        let mut policy = AddressPolicy { allowed: self.allowed.clone(), ..AddressPolicy::default() };
        policy.hub_ports.extend(self.own_ports);
        for member in self.members.borrow().members.values() {
            let rest = member.rest_url.parse::<TargetUrl>();
            let raft = format!("http://{}", member.raft_addr).parse::<TargetUrl>();
            for url in [rest, raft].into_iter().flatten() {
                policy.hub_ports.push(url.port);
                if let Host::Ip(ip) = url.host {
                    policy.hub_addresses.push(ip);
                }
            }
        }
        // Any address of this machine leads to this node; asked only when the port is one of the hub's.
        if policy.hub_ports.contains(&address.port()) && UdpSocket::bind((address.ip(), 0)).is_ok() {
            policy.hub_addresses.push(address.ip());
        }
        policy
    }
}

impl Guard for Targets {
    fn permits(&self, address: SocketAddr) -> bool {
        self.policy(address).check(address).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hub_core::control::Member;
    use hub_core::id::NodeId;
    use hub_core::time::Timestamp;

    use super::*;

    fn targets(allowed: &[&str]) -> Targets {
        let mut state = State::default();
        let member = Member {
            id: NodeId(2),
            incarnation: 1,
            raft_addr: Arc::from("10.1.2.3:8300"),
            rest_url: Arc::from("http://10.1.2.3:8200"),
            version: Arc::from("1"),
            draining: false,
            joined_at: Timestamp::EPOCH,
        };
        state.members.insert(NodeId(2), member);
        let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
        Targets::new(allowed, [8210, 8310], watch::channel(state).1)
    }

    #[test]
    fn loopback_metadata_and_the_hub_itself_are_refused() {
        let default = targets(&[]);
        for refused in [
            "http://127.0.0.1:9000",
            "http://localhost:9000",
            "http://169.254.169.254/latest",
            "http://10.1.2.3:8200",
            "http://10.1.2.3:8300",
            "ftp://example.org",
        ] {
            assert!(default.check_url(refused).is_err(), "{refused}");
        }
        for fine in ["http://10.1.2.3:9000", "http://10.1.2.4:8200", "https://example.org/hooks"] {
            assert_eq!(default.check_url(fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn loopback_can_be_allowed_but_not_the_hubs_own_ports() {
        let loopback = targets(&["0.0.0.0/0", "127.0.0.0/8"]);
        assert_eq!(loopback.check_url("http://localhost:9000"), Ok(()));
        assert!(loopback.permits(([127, 0, 0, 1], 9000).into()));
        for port in [8200, 8300, 8210, 8310] {
            assert!(!loopback.permits(([127, 0, 0, 1], port).into()), "{port}");
        }
    }
}
