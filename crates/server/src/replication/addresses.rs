//! Where replications may connect to.
//!
//! The server connects to where it is told, so it must not be made to reach what only it can reach:
//! other services of its machine, and the metadata of clouds. Addresses of the machine and its link
//! are denied, and those that `replicate_deny` in the section `settee` lists; `replicate_allow` lists
//! exceptions, and `replicate_loopback = true` is one for everything that is denied by itself. The
//! server's own address is always allowed: it is its own databases. None of that can be set over HTTP.

use crate::app::App;
use crate::config::Live;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Says which addresses may be connected to.
pub(crate) struct Reach {
    /// Where this server listens.
    own: Option<SocketAddr>,
    allow: Vec<Network>,
    deny: Vec<Network>,
    loopback: bool,
}

impl Reach {
    /// As the configuration says.
    pub(crate) fn of(app: &App, live: &Live) -> Reach {
        let list = |key| networks(live.get("settee", key).unwrap_or_default());
        let everything = || vec![Network { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), bits: 0 }];
        Reach {
            own: app.address(),
            // What cannot be read allows nothing, and denies everything.
            allow: list("replicate_allow").unwrap_or_default(),
            deny: list("replicate_deny").unwrap_or_else(everything),
            loopback: live.get("settee", "replicate_loopback") == Some("true"),
        }
    }

    pub(crate) fn permits(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        if self.is_own(SocketAddr::new(ip, address.port())) {
            return true;
        }
        let listed = |list: &[Network]| list.iter().any(|network| network.contains(ip));
        listed(&self.allow) || (!listed(&self.deny) && (self.loopback || is_outside(ip)))
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.is_some_and(|own| {
            let everywhere = own.ip().is_unspecified() && address.ip().is_loopback();
            own.port() == address.port() && (everywhere || own.ip().to_canonical() == address.ip())
        })
    }
}

/// An address, or all that begin with the same bits.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
        // Inside, addresses of version 4 are the end of those of version 6.
        (bits <= most).then_some(Network { address, bits: bits + 128 - most })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differ = bits(self.address) ^ bits(address);
        self.bits == 0 || differ >> (128 - self.bits) == 0
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A list with commas; `None` if something in it is no network.
fn networks(list: &str) -> Option<Vec<Network>> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    let networks: Option<Vec<Network>> = items.map(Network::parse).collect();
    if networks.is_none() {
        tracing::warn!(list, "this is no list of addresses and networks");
    }
    networks
}

/// Whether an address is neither of this machine nor of its link, in whatever form it is written.
fn is_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let metadata = v4.octets() == [100, 100, 100, 200];
            let here = v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0;
            !(here || metadata || v4.is_broadcast() || v4.is_multicast())
        }
        IpAddr::V6(v6) => {
            let metadata = v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            let here = v6.is_loopback() || v6.is_unspecified() || link_local;
            // Addresses of version 4 in their several disguises.
            let embedded = match v6.segments() {
                [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
                    let [.., a, b, c, d] = v6.octets();
                    is_outside(IpAddr::from([a, b, c, d]))
                }
                _ => true,
            };
            !(here || metadata || v6.is_multicast()) && embedded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_machine_and_its_link_are_known_in_every_form() {
        for inside in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
        ] {
            assert!(!is_outside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.0.0.1", "192.168.1.7", "93.184.216.34", "2001:db8::1", "fd00::1"] {
            assert!(is_outside(outside.parse().unwrap()), "{outside}");
        }
    }

    fn reach(own: &str, allow: &str, deny: &str, loopback: bool) -> Reach {
        let list = |list| networks(list).unwrap();
        Reach { own: own.parse().ok(), allow: list(allow), deny: list(deny), loopback }
    }

    #[test]
    fn lists_allow_and_deny() {
        let permits = |reach: &Reach, address: &str| reach.permits(address.parse().unwrap());
        let usual = reach("127.0.0.1:5984", "", "", false);
        for (address, permitted) in [
            ("127.0.0.1:5984", true),
            ("[::ffff:127.0.0.1]:5984", true),
            ("127.0.0.1:22", false),
            ("127.0.0.2:5984", false),
            ("10.1.2.3:80", true),
            ("169.254.169.254:80", false),
        ] {
            assert_eq!(permits(&usual, address), permitted, "{address}");
        }
        let everywhere = reach("0.0.0.0:5984", "", "", false);
        assert!(permits(&everywhere, "127.0.0.1:5984") && permits(&everywhere, "[::1]:5984"));
        assert!(!permits(&everywhere, "127.0.0.1:80"));
        let listed = reach("", "127.0.0.1, 10.1.0.0/16", "10.0.0.0/8,fd00::/8", false);
        for (address, permitted) in [
            ("127.0.0.1:1", true),
            ("127.0.0.2:1", false),
            ("10.1.255.255:1", true),
            ("10.2.0.0:1", false),
            ("[fd12::1]:1", false),
            ("[::ffff:10.2.0.0]:1", false),
            ("192.168.0.1:1", true),
        ] {
            assert_eq!(permits(&listed, address), permitted, "{address}");
        }
        assert!(permits(&reach("", "", "", true), "127.0.0.1:1"));
        assert!(!permits(&reach("", "", "127.0.0.0/8", true), "127.0.0.1:1"));
        assert!(!permits(&reach("", "", "0.0.0.0/0, ::/0", false), "93.184.216.34:1"));
        for wrong in ["x", "10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0.1, x"] {
            assert!(networks(wrong).is_none(), "{wrong}");
        }
    }
}
