//! Socket addresses as text, in their one canonical form, and those of this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use p2p::{Error, Result};

/// Why a host name is no address: resolving it blocks, and gives different addresses at different times.
const NO_NAME: &str = "host names are not resolved: write IP:PORT, such as 127.0.0.1:4000 or [::1]:4000";

/// An IPv4 address that a dual-stack socket shows inside IPv6 is that IPv4 address, and a flow label is no
/// part of who a peer is.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

/// Parses `1.2.3.4:5`, `[2001:db8::1]:5` and `[fe80::1%2]:5`; a zone is an interface's index or name.
///
/// An IPv4 address that is written inside IPv6 becomes that IPv4 address.
///
/// # Errors
/// [`Error::InvalidAddr`], at the byte where the text stops making sense.
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
            return fail(1 + end_of_ipv6(ip_text), "an IPv6 address was expected");
        };
        let scope = match zone {
            None => 0,
            Some(zone) => match scope_id(zone) {
                Some(scope) => scope,
                None => {
                    return fail(
                        1 + ip_text.len() + 1,
                        "the zone is no interface of this host, by index or by name",
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
        return fail(len, "an IPv6 address goes in brackets, and one port follows");
    }
    let Ok(ip) = host.parse::<Ipv4Addr>() else {
        if host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return fail(0, NO_NAME);
        }
        return fail(
            end_of_ipv4(host),
            "an IPv4 address was expected, four numbers up to 255",
        );
    };
    Ok(SocketAddr::new(ip.into(), port(text, len)?))
}

/// The port that `text` has from byte `at` on: a colon and a decimal number.
fn port(text: &str, at: usize) -> Result<u16> {
    let fail = |at: usize, reason: &str| Err(Error::addr(text, at, reason));
    let Some(digits) = text.get(at..).and_then(|rest| rest.strip_prefix(':')) else {
        return fail(at, "a colon and a port were expected");
    };
    let start = at + 1;
    if let Some(odd) = digits.bytes().position(|byte| !byte.is_ascii_digit()) {
        return fail(start + odd, "a port has decimal digits only");
    }
    if digits.is_empty() {
        return fail(start, "a port was expected");
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return fail(start, "a port has no leading zero, which others read as octal");
    }
    match digits.parse() {
        Ok(port) => Ok(port),
        Err(_) => fail(start, "a port is at most 65535"),
    }
}

/// Whether a text has an IPv6 address with a zone somewhere in it, such as `[fe80::1%2]:5`.
///
/// Of text that a peer sent such addresses are of no use, since a zone means something on its own host alone; and
/// [`parse`] asks the system for all interfaces to find one by its name, which takes some 90 µs.
pub fn has_zone(text: &str) -> bool {
    let inside = text.split('[').skip(1);
    let mut hosts = inside.filter_map(|inside| inside.split(']').next());
    hosts.any(|host| host.contains('%'))
}

/// An interface by index, or by name.
fn scope_id(zone: &str) -> Option<u32> {
    if !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return zone.parse().ok();
    }
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let named = interfaces.into_iter().find(|interface| interface.name == zone);
    named.and_then(|interface| interface.index)
}

/// Where `host` stops being four numbers up to 255 without leading zeros, joined by dots.
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

/// Where `host` has the first character that no IPv6 address has, or its end.
fn end_of_ipv6(host: &str) -> usize {
    host.bytes()
        .position(|byte| !byte.is_ascii_hexdigit() && byte != b':' && byte != b'.')
        .unwrap_or(host.len())
}

/// How long what the host said about its interfaces is believed while unknown addresses are asked for.
const REFRESH: Duration = Duration::from_secs(1);

/// The addresses at which a socket is reached.
#[derive(Debug)]
pub(crate) enum Local {
    /// Bound to one address, which is the only one.
    One(SocketAddr),
    /// Bound to a wildcard, which stands for all addresses of the host.
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

    /// The addresses of the host as they are now, the ones that others can reach first.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        match self {
            Self::One(addr) => vec![*addr],
            Self::All { wildcard, host } => {
                let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
                host.ask(*wildcard);
                host.addrs.clone()
            }
        }
    }

    /// The one of [`addrs`](Self::addrs) that a datagram to `dst` came to.
    ///
    /// A host may take datagrams for addresses that no interface names: all of 127.0.0.0/8, broadcasts, an
    /// address that it had until just now. They count as having come to its first address of that family.
    pub(crate) fn dst(&self, dst: Option<IpAddr>) -> SocketAddr {
        let (wildcard, host) = match self {
            Self::One(addr) => return *addr,
            Self::All { wildcard, host } => (wildcard, host),
        };
        let dst = dst.map_or(wildcard.ip(), |ip| canonical(SocketAddr::new(ip, 0)).ip());
        let mut host = host.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The addresses of this host's interfaces that a socket bound to `wildcard` listens to. Never empty.
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
    // What reaches furthest first: global, then within the link, then within the host.
    addrs.sort_by_key(|addr| match addr.ip() {
        ip if ip.is_loopback() => 2,
        IpAddr::V4(ip) => u8::from(ip.is_link_local()),
        IpAddr::V6(ip) => u8::from(ip.is_unicast_link_local()),
    });
    addrs.dedup();
    addrs
}
