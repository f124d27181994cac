//! Maps addresses of any type to synthetic socket addresses, within a bound.
//!
//! Quinn handles socket addresses only. Each address of the swarm below is mapped to a unique local IPv6
//! address (RFC 4193) that is a keyed hash of it: always the same one, and unpredictable for other nodes.
//! Addresses of sessions and handshakes are pinned; of the others the least recently used is removed at the
//! bound.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{Ipv6Addr, SocketAddr};

/// The port of every synthetic address; the IP address alone identifies the peer.
pub(super) const PORT: u16 = 443;

/// The mapped addresses, by synthetic address.
pub(super) struct MappedAddrs<A> {
    by_ip: HashMap<Ipv6Addr, Mapping<A>>,
    /// Every mapping once; those at the front are checked first when room is needed.
    order: VecDeque<Ipv6Addr>,
    keys: [RandomState; 2],
    max: usize,
}

struct Mapping<A> {
    addr: A,
    /// The local address that the peer last sent to.
    dst: Option<A>,
    pins: usize,
    /// Whether it was used since the last check.
    used: bool,
}

impl<A: Clone + Eq + Hash> MappedAddrs<A> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            by_ip: HashMap::new(),
            order: VecDeque::new(),
            keys: [RandomState::new(), RandomState::new()],
            max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_ip.len()
    }

    fn synthetic(&self, addr: &A) -> Ipv6Addr {
        let [high, low] = &self.keys;
        let bits = u128::from(high.hash_one(addr)) << 64 | u128::from(low.hash_one(addr));
        let mut octets = bits.to_be_bytes();
        octets[0] = 0xfd;
        octets.into()
    }

    /// Returns the synthetic address of `addr`, or `None` if every mapping is pinned.
    pub(super) fn map(&mut self, addr: &A, dst: Option<&A>) -> Option<SocketAddr> {
        let ip = self.synthetic(addr);
        if let Some(mapping) = self.by_ip.get_mut(&ip) {
            // Two addresses with the same hash: the second is refused, so that it does not receive packets of
            // the first.
            if mapping.addr != *addr {
                return None;
            }
            mapping.used = true;
            if dst.is_some() && mapping.dst.as_ref() != dst {
                mapping.dst = dst.cloned();
            }
        } else {
            if self.by_ip.len() >= self.max {
                self.remove_unused()?;
            }
            self.order.push_back(ip);
            self.by_ip.insert(
                ip,
                Mapping {
                    addr: addr.clone(),
                    dst: dst.cloned(),
                    pins: 0,
                    used: false,
                },
            );
        }
        Some(SocketAddr::new(ip.into(), PORT))
    }

    /// Removes the first unpinned mapping that was not used since the last check.
    fn remove_unused(&mut self) -> Option<()> {
        for _ in 0..2 * self.order.len() {
            let ip = self.order.pop_front()?;
            let Some(mapping) = self.by_ip.get_mut(&ip) else {
                continue;
            };
            if mapping.pins == 0 && !mapping.used {
                self.by_ip.remove(&ip);
                return Some(());
            }
            mapping.used = false;
            self.order.push_back(ip);
        }
        None
    }

    /// Keeps the mapping of `at` until [`unpin`](Self::unpin). Returns the address, and the local address
    /// that it sent to.
    pub(super) fn pin(&mut self, at: SocketAddr) -> Option<(A, Option<A>)> {
        let mapping = self.by_ip.get_mut(&ip(at)?)?;
        mapping.pins += 1;
        Some((mapping.addr.clone(), mapping.dst.clone()))
    }

    pub(super) fn unpin(&mut self, at: SocketAddr) {
        if let Some(mapping) = ip(at).and_then(|ip| self.by_ip.get_mut(&ip)) {
            mapping.pins = mapping.pins.saturating_sub(1);
        }
    }

    /// Returns the address that `at` stands for.
    pub(super) fn addr(&self, at: SocketAddr) -> Option<&A> {
        self.by_ip.get(&ip(at)?).map(|mapping| &mapping.addr)
    }
}

fn ip(at: SocketAddr) -> Option<Ipv6Addr> {
    match at {
        SocketAddr::V6(at) => Some(*at.ip()),
        SocketAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_always_mapped_to_the_same_synthetic_address() {
        let mut mapped = MappedAddrs::new(2);
        let one = mapped.map(&1, None).expect("room");
        for other in 2..10 {
            mapped.map(&other, None).expect("room");
        }
        assert_eq!(mapped.addr(one), None, "the mapping was removed");
        assert_eq!(mapped.map(&1, None), Some(one));
        assert_eq!(mapped.addr(one), Some(&1));
    }

    #[test]
    fn a_flood_of_addresses_neither_removes_pinned_mappings_nor_exceeds_the_bound() {
        let mut mapped = MappedAddrs::new(16);
        let pinned = mapped.map(&u64::MAX, Some(&7)).expect("room");
        assert_eq!(mapped.pin(pinned), Some((u64::MAX, Some(7))));
        for spoofed in 0..100_000 {
            mapped.map(&spoofed, None).expect("room");
            assert!(mapped.len() <= 16 && mapped.order.len() <= 16);
        }
        assert_eq!(mapped.addr(pinned), Some(&u64::MAX));
        mapped.unpin(pinned);
        for spoofed in 0..100 {
            mapped.map(&spoofed, None).expect("room");
        }
        assert_eq!(mapped.addr(pinned), None, "an unpinned mapping is removed");
    }

    #[test]
    fn a_mapping_is_refused_if_all_are_pinned() {
        let mut mapped = MappedAddrs::new(2);
        for addr in 0..2 {
            let at = mapped.map(&addr, None).expect("room");
            mapped.pin(at).expect("mapped");
        }
        assert_eq!(mapped.map(&2, None), None);
        assert_eq!(mapped.len(), 2);
    }

    #[test]
    fn used_mappings_outlive_unused_ones() {
        let mut mapped = MappedAddrs::new(4);
        let used = mapped.map(&0, None).expect("room");
        for spoofed in 1..1000 {
            mapped.map(&0, None).expect("room");
            mapped.map(&spoofed, None).expect("room");
        }
        assert_eq!(mapped.addr(used), Some(&0));
    }
}
