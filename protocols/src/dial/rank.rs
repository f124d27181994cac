//! The order of addresses.

use std::net::IpAddr;
use std::time::Duration;

use super::config::Config;
use crate::overlay::Scope;

/// The transport of an address, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TCP.
    Tcp,
    /// Any other; it is ordered like TCP.
    Other,
}

/// An address, with what its order depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialAddr<A> {
    /// The address.
    pub addr: A,
    /// Its transport.
    pub transport: Transport,
    /// Its IP address, if it has one. Addresses without are ordered like public IPv4 addresses.
    pub ip: Option<IpAddr>,
    /// Its port, or 0.
    pub port: u16,
    /// Whether a relay forwards the connection.
    pub is_relayed: bool,
}

/// An address with its place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranked<A> {
    /// The address.
    pub addr: A,
    /// The time after the start of the dial at which the attempt starts.
    pub delay: Duration,
    /// The time after which the attempt fails.
    pub timeout: Duration,
}

/// The group of an address. The order is that of the result for equal delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Private,
    Public,
    Relayed,
}

impl<A> DialAddr<A> {
    /// Returns the group, if a peer can have this address.
    fn group(&self) -> Option<Group> {
        match self.ip.map(Scope::of_ip) {
            Some(Scope::Nowhere) => None,
            _ if self.is_relayed => Some(Group::Relayed),
            Some(Scope::Loopback | Scope::LinkLocal | Scope::Private) => Some(Group::Private),
            Some(Scope::Global) | None => Some(Group::Public),
        }
    }

    fn is_v4(&self) -> bool {
        self.ip.is_none_or(|ip| ip.to_canonical().is_ipv4())
    }
}

/// Returns the order in which addresses are tried: by delay. The [module](super) states the rules.
pub fn rank<A>(config: &Config, addrs: impl IntoIterator<Item = DialAddr<A>>) -> Vec<Ranked<A>> {
    let mut groups = [Vec::new(), Vec::new(), Vec::new()];
    for addr in addrs {
        let [private, public, relayed] = &mut groups;
        match addr.group() {
            Some(Group::Private) => private.push(addr),
            Some(Group::Public) => public.push(addr),
            Some(Group::Relayed) => relayed.push(addr),
            None => {}
        }
    }
    let [private, public, relayed] = groups;
    let offset = if public.is_empty() {
        Duration::ZERO
    } else {
        config.relay_delay
    };
    let mut ranked = Vec::with_capacity(private.len() + public.len() + relayed.len());
    for (group, step, offset, timeout) in [
        (
            private,
            config.private_delay,
            Duration::ZERO,
            config.private_timeout,
        ),
        (public, config.public_delay, Duration::ZERO, config.public_timeout),
        (relayed, config.public_delay, offset, config.public_timeout),
    ] {
        rank_group(group, step, offset, timeout, &mut ranked);
    }
    ranked.sort_by_key(|ranked| ranked.delay);
    ranked
}

fn rank_group<A>(
    group: Vec<DialAddr<A>>,
    step: Duration,
    offset: Duration,
    timeout: Duration,
    ranked: &mut Vec<Ranked<A>>,
) {
    let (quic, others): (Vec<_>, Vec<_>) = group
        .into_iter()
        .partition(|addr| addr.transport == Transport::Quic);
    let mut start = offset;
    for mut addrs in [quic, others] {
        addrs.sort_by_key(|addr| (addr.transport, addr.is_v4(), addr.port));
        // Of both IP versions, the first IPv4 address of the same transport comes second.
        let first = addrs.first().map(|addr| (addr.transport, addr.is_v4()));
        let second = first.and_then(|(transport, is_v4)| {
            let is_second = |addr: &DialAddr<A>| addr.transport == transport && addr.is_v4();
            if is_v4 {
                None
            } else {
                addrs.iter().position(is_second)
            }
        });
        if let Some(rotated) = second.and_then(|at| addrs.get_mut(1..=at)) {
            rotated.rotate_right(1);
        }
        let rest = if second.is_some() {
            step.saturating_mul(2)
        } else {
            step
        };
        let mut last = None;
        for (at, addr) in addrs.into_iter().enumerate() {
            let delay = match at {
                0 => Duration::ZERO,
                1 => step,
                _ => rest,
            };
            let delay = start.saturating_add(delay);
            last = Some(delay);
            let addr = addr.addr;
            ranked.push(Ranked { addr, delay, timeout });
        }
        // Others follow one step after the last QUIC address.
        start = last.map_or(start, |last| last.saturating_add(step));
    }
}
