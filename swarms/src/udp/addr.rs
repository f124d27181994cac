//! Text form of socket addresses, canonical addresses, and the addresses of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use p2p::{Error, Result};
use parking_lot::Mutex;

/// Reason for refusing host names: resolving blocks, and may return different addresses at different times.
const NO_NAME: &str = "host names are not resolved: write IP:PORT, such as 127.0.0.1:4000 or [::1]:4000";

/// Returns the canonical form of an address: an IPv4-mapped IPv6 address, as a dual-stack socket reports it,
/// becomes an IPv4 address, and the flow label is removed, because it does not identify a peer.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

/// Parses `1.2.3.4:5`, `[2001:db8::1]:5` and `[fe80::1%2]:5`; a zone is the index or name of an interface.
///
/// An IPv4-mapped IPv6 address becomes an IPv4 address.
///
/// # Errors
/// Returns [`Error::InvalidAddr`] with the byte position of the first invalid part.
pub fn parse(text: &str) -> Result<SocketAddr> {
    let fail = |at: usize, reason: &str| Err(Error::addr(text, at, reason));
    if let Some(inside) = text.strip_prefix('[') {
        let Some(len) = inside.find(']') else {
            return fail(text.len(), "the bracket of an IPv6 address is not closed");
        };
        let (host, rest) = inside.split_at(len);
        let (ip_text, zone) = match host.split_once('%') {
            Some((ip, zone)) => (ip, Some(zone)),
            None => (host, None),
        };
        let Ok(ip) = ip_text.parse::<Ipv6Addr>() else {
            return fail(1 + end_of_ipv6(ip_text), "expected an IPv6 address");
        };
        let scope = match zone {
            None => 0,
            Some(zone) => match scope_id(zone) {
                Some(scope) => scope,
                None => {
                    return fail(
                        1 + ip_text.len() + 1,
                        "the zone is neither the index nor the name of an interface of this host",
                    );
                }
            },
        };
        // `rest` begins with the closing bracket.
        let port = port(text, text.len() - rest.len() + 1)?;
        return Ok(canonical(SocketAddrV6::new(ip, port, 0, scope).into()));
    }
    let len = text.find(':').unwrap_or(text.len());
    let (host, rest) = text.split_at(len);
    if rest.bytes().filter(|byte| *byte == b':').count() > 1 {
        return fail(len, "an IPv6 address must be in brackets, followed by one port");
    }
    let Ok(ip) = host.parse::<Ipv4Addr>() else {
        if host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return fail(0, NO_NAME);
        }
        return fail(
            end_of_ipv4(host),
            "expected an IPv4 address: four numbers up to 255",
        );
    };
    Ok(SocketAddr::new(ip.into(), port(text, len)?))
}

/// Parses the port in `text` from byte `at` on: a colon and a decimal number.
fn port(text: &str, at: usize) -> Result<u16> {
    let fail = |at: usize, reason: &str| Err(Error::addr(text, at, reason));
    let Some(digits) = text.get(at..).and_then(|rest| rest.strip_prefix(':')) else {
        return fail(at, "expected a colon and a port");
    };
    let start = at + 1;
    if let Some(odd) = digits.bytes().position(|byte| !byte.is_ascii_digit()) {
        return fail(start + odd, "a port consists of decimal digits");
    }
    if digits.is_empty() {
        return fail(start, "expected a port");
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return fail(
            start,
            "a port must not have a leading zero, which some parsers read as octal",
        );
    }
    match digits.parse() {
        Ok(port) => Ok(port),
        Err(_) => fail(start, "a port is at most 65535"),
    }
}

/// Returns whether a text contains an IPv6 address with a zone, such as `[fe80::1%2]:5`.
///
/// In text from a peer such addresses are useless, since a zone is only meaningful on its own host. [`parse`]
/// lists all interfaces of the system to resolve a zone by name, which takes about 90 µs.
pub fn has_zone(text: &str) -> bool {
    let inside = text.split('[').skip(1);
    let mut hosts = inside.filter_map(|inside| inside.split(']').next());
    hosts.any(|host| host.contains('%'))
}

/// Resolves an interface by index or name.
fn scope_id(zone: &str) -> Option<u32> {
    if !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return zone.parse().ok();
    }
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let named = interfaces.into_iter().find(|interface| interface.name == zone);
    named.and_then(|interface| interface.index)
}

/// Returns the position where `host` stops being four numbers up to 255 without leading zeros, separated by
/// dots.
fn end_of_ipv4(host: &str) -> usize {
    let mut at = 0;
    for octet in host.split('.').take(4) {
        let fine = !octet.is_empty()
            && octet.bytes().all(|byte| byte.is_ascii_digit())
            && (octet.len() == 1 || !octet.starts_with('0'))
            && octet.parse::<u8>().is_ok();
        if !fine {
            return at;
        }
        at += octet.len() + 1;
    }
    (at - 1).min(host.len())
}

/// Returns the position of the first character in `host` that cannot occur in an IPv6 address, or its end.
fn end_of_ipv6(host: &str) -> usize {
    host.bytes()
        .position(|byte| !byte.is_ascii_hexdigit() && byte != b':' && byte != b'.')
        .unwrap_or(host.len())
}

/// Minimum interval between two queries of the host's interfaces for unknown destination addresses.
const REFRESH: Duration = Duration::from_secs(1);

/// The addresses of a socket.
#[derive(Debug)]
pub(crate) enum Local {
    /// Bound to one address, which is the only one.
    One(SocketAddr),
    /// Bound to a wildcard address, which stands for all addresses of the host.
    All { wildcard: SocketAddr, host: Mutex<Host> },
}

#[derive(Debug)]
pub(crate) struct Host {
    addrs: Vec<SocketAddr>,
    asked: Instant,
}

impl Local {
    pub(crate) fn new(bound: SocketAddr) -> Self {
        let bound = canonical(bound);
        if bound.ip().is_unspecified() {
            let addrs = host_addrs(bound);
            let asked = Instant::now();
            let host = Mutex::new(Host { addrs, asked });
            Self::All {
                wildcard: bound,
                host,
            }
        } else {
            Self::One(bound)
        }
    }

    /// Returns the current addresses of the host, the most widely reachable first.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        match self {
            Self::One(addr) => vec![*addr],
            Self::All { wildcard, host } => {
                let mut host = host.lock();
                host.ask(*wildcard);
                host.addrs.clone()
            }
        }
    }

    /// Returns the one of [`addrs`](Self::addrs) that a datagram to `dst` arrived at.
    ///
    /// A host may accept datagrams for addresses that belong to no interface: all of 127.0.0.0/8, broadcast
    /// addresses, an address that was just removed. Such datagrams count as arrived at the first address of
    /// the same family.
    pub(crate) fn dst(&self, dst: Option<IpAddr>) -> SocketAddr {
        let (wildcard, host) = match self {
            Self::One(addr) => return *addr,
            Self::All { wildcard, host } => (wildcard, host),
        };
        let dst = dst.map_or(wildcard.ip(), |ip| canonical(SocketAddr::new(ip, 0)).ip());
        let mut host = host.lock();
        if let Some(known) = host.find(dst) {
            return known;
        }
        if host.asked.elapsed() >= REFRESH {
            host.ask(*wildcard);
        }
        let same_family = |addr: &&SocketAddr| addr.is_ipv4() == dst.is_ipv4();
        host.find(dst)
            .or_else(|| host.addrs.iter().find(same_family).copied())
            .or_else(|| host.addrs.first().copied())
            .unwrap_or(*wildcard)
    }
}

impl Host {
    fn ask(&mut self, wildcard: SocketAddr) {
        self.addrs = host_addrs(wildcard);
        self.asked = Instant::now();
    }

    fn find(&self, ip: IpAddr) -> Option<SocketAddr> {
        self.addrs.iter().copied().find(|addr| addr.ip() == ip)
    }
}

/// Returns the addresses of this host's interfaces that a socket bound to `wildcard` listens on. Never empty.
fn host_addrs(wildcard: SocketAddr) -> Vec<SocketAddr> {
    let port = wildcard.port();
    let mut addrs = Vec::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        match interface.ip() {
            IpAddr::V4(ip) => addrs.push(SocketAddr::new(ip.into(), port)),
            IpAddr::V6(ip) if wildcard.is_ipv6() => {
                let link_local = ip.is_unicast_link_local();
                let scope = interface.index.filter(|_| link_local).unwrap_or(0);
                addrs.push(SocketAddrV6::new(ip, port, 0, scope).into());
            }
            IpAddr::V6(_) => {}
        }
    }
    if addrs.is_empty() {
        addrs.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    // Sorted by reach: global, then link-local, then loopback.
    addrs.sort_by_key(|addr| match addr.ip() {
        ip if ip.is_loopback() => 2,
        IpAddr::V4(ip) => u8::from(ip.is_link_local()),
        IpAddr::V6(ip) => u8::from(ip.is_unicast_link_local()),
    });
    addrs.dedup();
    addrs
}
