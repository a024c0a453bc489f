//! The address policy against ranges written out as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hub_core::registry::{AddressPolicy, Refused};
use proptest::prelude::*;

/// Ranges that are never called, as the standards write them.
const NEVER: [&str; 18] = [
    "0.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "168.63.129.16/32",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "fe80::/10",
    "ff00::/8",
    "::/128",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/32",
    "2002::/16",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "::2:0/112",
];

fn policy(allowed: &[&str]) -> AddressPolicy {
    AddressPolicy {
        allowed: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        hub_ports: vec![8200, 8300],
        hub_addresses: vec!["10.0.0.7".parse().unwrap()],
    }
}

/// Number of an address and of a network, so that membership is arithmetic and nothing else.
fn number(ip: IpAddr) -> (bool, u128) {
    match ip {
        IpAddr::V4(ip) => (true, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (false, u128::from(ip)),
    }
}

fn within(ip: IpAddr, net: &str) -> bool {
    let (base, prefix) = net.split_once('/').unwrap();
    let (net_is_v4, base) = number(base.parse().unwrap());
    let (ip_is_v4, ip) = number(ip);
    let shift = if net_is_v4 { 32 } else { 128 } - prefix.parse::<u32>().unwrap();
    net_is_v4 == ip_is_v4 && ip.checked_shr(shift) == base.checked_shr(shift)
}

fn embedded() -> impl Strategy<Value = IpAddr> {
    (any::<u32>(), prop_oneof![Just(0_u128), Just(0xffff_0000_0000), Just(0x64_ff9b << 96)])
        .prop_map(|(v4, prefix)| IpAddr::V6(Ipv6Addr::from(prefix | u128::from(v4))))
}

/// Addresses in and near the interesting ranges.
fn address() -> impl Strategy<Value = IpAddr> {
    let near =
        (prop::sample::select(NEVER.to_vec()), any::<u128>(), 0_u32..128).prop_map(|(net, noise, keep)| {
            match net.split_once('/').unwrap().0.parse().unwrap() {
                IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) ^ ((noise as u32) >> (keep % 32)))),
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) ^ (noise >> keep))),
            }
        });
    prop_oneof![
        near,
        any::<u32>().prop_map(|ip| IpAddr::V4(ip.into())),
        any::<u128>().prop_map(|ip| IpAddr::V6(ip.into())),
        embedded()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn refuses_what_is_never_called_and_allows_the_rest(ip in address()) {
        let mapped = within(ip, "::ffff:0:0/96");
        let plain = if mapped { IpAddr::V4(Ipv4Addr::from((number(ip).1 & 0xffff_ffff) as u32)) } else { ip };
        let compatible = within(plain, "::/96") && plain != "::1".parse::<IpAddr>().unwrap();
        let nat64 = within(plain, "64:ff9b::/32");
        let never = compatible || nat64 || NEVER.iter().any(|net| within(plain, net));
        let loopback = within(plain, "127.0.0.0/8") || within(plain, "::1/128");
        let result = AddressPolicy::default().check_ip(ip);
        prop_assert_eq!(result.is_ok(), !never && !loopback, "{} {:?}", ip, result);
        let wide = policy(&["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128"]);
        prop_assert_eq!(wide.check_ip(ip).is_ok(), !never, "{}", ip);
        prop_assert!(policy(&[]).check_ip(ip).is_err());
        let some = policy(&["10.0.0.0/8", "2000::/3"]);
        let expected = !never && (within(plain, "10.0.0.0/8") || within(plain, "2000::/3"));
        prop_assert_eq!(some.check_ip(ip).is_ok(), expected, "{}", ip);
    }
}

#[test]
fn names_the_reason() {
    let policy = policy(&["0.0.0.0/0", "::/0", "127.0.0.0/9"]);
    for (address, expected) in [
        ("169.254.169.254:80", Err(Refused::Metadata)),
        ("[::ffff:169.254.169.254]:80", Err(Refused::Metadata)),
        ("[fd00:ec2::254]:80", Err(Refused::Metadata)),
        ("169.254.0.9:80", Err(Refused::LinkLocal)),
        ("[fe80::1]:80", Err(Refused::LinkLocal)),
        ("0.0.0.0:80", Err(Refused::Unspecified)),
        ("[::]:80", Err(Refused::Unspecified)),
        ("255.255.255.255:80", Err(Refused::Multicast)),
        ("[64:ff9b::7f00:1]:80", Err(Refused::Translated)),
        ("[::7f00:1]:80", Err(Refused::Translated)),
        ("127.0.0.1:80", Ok(())),
        ("127.0.0.1:8200", Err(Refused::HubPort)),
        ("[::ffff:127.0.0.1]:8300", Err(Refused::HubPort)),
        ("127.200.0.1:80", Err(Refused::Loopback)),
        ("[::1]:80", Err(Refused::Loopback)),
        ("10.0.0.7:8200", Err(Refused::HubPort)),
        ("10.0.0.7:8201", Ok(())),
        ("10.0.0.8:8200", Ok(())),
    ] {
        assert_eq!(policy.check(address.parse::<SocketAddr>().unwrap()), expected, "{address}");
    }
    let literal = "http://169.254.169.254/latest".parse().unwrap();
    assert_eq!(policy.check_url(&literal), Err(Refused::Metadata));
    assert_eq!(policy.check_url(&"http://name".parse().unwrap()), Ok(()));
}
