//! Which addresses the hub may call. Asked when a URL is registered and again for every connection, about the very
//! address that is connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Host, TargetUrl};

/// Why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// 169.254.0.0/16, fe80::/10.
    #[error("is a link-local address")]
    LinkLocal,
    /// Where a cloud tells a machine its secrets.
    #[error("is an address of a cloud's metadata service")]
    Metadata,
    /// 0.0.0.0/8, `::`.
    #[error("is not the address of a host")]
    Unspecified,
    /// Many hosts at once, or a range that is reserved.
    #[error("is a multicast, broadcast or reserved address")]
    Multicast,
    /// IPv6 that hides an IPv4 address: compatible, translated, NAT64, 6to4, Teredo.
    #[error("is an IPv6 form of an IPv4 address")]
    Translated,
    /// Loopback, which ALLOWED_TARGETS does not name.
    #[error("is a loopback address, which ALLOWED_TARGETS does not name")]
    Loopback,
    /// Outside ALLOWED_TARGETS.
    #[error("is not in ALLOWED_TARGETS")]
    NotAllowed,
    /// A port of the hub itself.
    #[error("is a port of message-hub itself")]
    HubPort,
}

/// The policy: some addresses never, the others by configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// ALLOWED_TARGETS. Loopback is allowed only by a range that lies within loopback, not by a wider one.
    pub allowed: Vec<IpNet>,
    /// Ports that nodes listen on: refused on loopback and on `hub_addresses`.
    pub hub_ports: Vec<u16>,
    /// Addresses of this and other nodes.
    pub hub_addresses: Vec<IpAddr>,
}

impl Default for AddressPolicy {
    /// Everything but loopback and what is never called.
    fn default() -> Self {
        let allowed = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self { allowed, hub_ports: Vec::new(), hub_addresses: Vec::new() }
    }
}

impl AddressPolicy {
    /// Whether a connection may be made to this address and port.
    pub fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        self.check_ip(address.ip())?;
        let ip = address.ip().to_canonical();
        let ours = ip.is_loopback() || self.hub_addresses.iter().any(|own| own.to_canonical() == ip);
        if ours && self.hub_ports.contains(&address.port()) { Err(Refused::HubPort) } else { Ok(()) }
    }

    /// Whether any port of this address may be called. IPv4-mapped IPv6 is judged as the IPv4 address it is.
    pub fn check_ip(&self, ip: IpAddr) -> Result<(), Refused> {
        let ip = ip.to_canonical();
        match ip {
            IpAddr::V4(ip) => never_v4(ip)?,
            IpAddr::V6(ip) => never_v6(ip)?,
        }
        let mut covering = self.allowed.iter().filter(|net| net.contains(&ip));
        if !ip.is_loopback() {
            return covering.next().map(|_| ()).ok_or(Refused::NotAllowed);
        }
        covering.find(|net| is_within_loopback(net)).map(|_| ()).ok_or(Refused::Loopback)
    }

    /// What can be said of a URL before its name is resolved: `Ok` for a name.
    pub fn check_url(&self, url: &TargetUrl) -> Result<(), Refused> {
        match &url.host {
            Host::Ip(ip) => self.check(SocketAddr::new(*ip, url.port)),
            Host::Name(_) => Ok(()),
        }
    }
}

const fn is_within_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() >= 8 && net.addr().is_loopback(),
        IpNet::V6(net) => net.prefix_len() == 128 && net.addr().is_loopback(),
    }
}

fn never_v4(ip: Ipv4Addr) -> Result<(), Refused> {
    match ip.octets() {
        // Alibaba; Oracle; Azure; AWS, GCP, Azure and others; AWS containers.
        [100, 100, 100, 200]
        | [192, 0, 0, 192]
        | [168, 63, 129, 16]
        | [169, 254, 169, 254]
        | [169, 254, 170, 2] => Err(Refused::Metadata),
        [169, 254, ..] => Err(Refused::LinkLocal),
        [0, ..] => Err(Refused::Unspecified),
        [224..=255, ..] => Err(Refused::Multicast),
        _ => Ok(()),
    }
}

fn never_v6(ip: Ipv6Addr) -> Result<(), Refused> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Ok(()),
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(Refused::Unspecified),
        // AWS; GCP.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254] => {
            Err(Refused::Metadata)
        }
        // Compatible ::/96; translated ::ffff:0:0:0/96; NAT64; Teredo; 6to4.
        [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, ..]
        | [0x2001, 0, ..]
        | [0x2002, ..] => Err(Refused::Translated),
        [0xfe80..=0xfebf, ..] => Err(Refused::LinkLocal),
        [0xff00..=0xffff, ..] => Err(Refused::Multicast),
        _ => Ok(()),
    }
}
