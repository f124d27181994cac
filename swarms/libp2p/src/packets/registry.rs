//! The packet protocols of a host, by the numbers that peers put in front of packets.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use p2p::{Counters, DropReason};
use p2p_formats::varint;
use parking_lot::RwLock;

use crate::addr::HostAddr;

type Sink = Arc<dyn Fn(&HostAddr, &[u8]) + Send + Sync>;

/// The packet protocols of a host.
pub(crate) struct Registry {
    next: AtomicU64,
    sinks: RwLock<HashMap<u64, Sink>>,
    /// Counts the datagrams that belong to no protocol.
    pub(super) counters: Counters,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            sinks: RwLock::default(),
            counters: Counters::new("libp2p-datagrams"),
        }
    }
}

impl Registry {
    /// Returns a number that no other protocol of this host has or had, so that a late packet reaches no other protocol.
    pub(super) fn new_number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    pub(super) fn add(&self, number: u64, sink: impl Fn(&HostAddr, &[u8]) + Send + Sync + 'static) {
        self.sinks.write().insert(number, Arc::new(sink));
    }

    pub(super) fn remove(&self, number: u64) {
        self.sinks.write().remove(&number);
    }

    /// Delivers a datagram of a peer to its protocol, or drops and counts it.
    pub(crate) fn deliver(&self, from: &HostAddr, datagram: &[u8]) {
        let dropped = match varint::read(datagram) {
            Ok((number, len)) if len == varint::len(number) => {
                let sink = self.sinks.read().get(&number).cloned();
                match sink {
                    Some(sink) => return sink(from, datagram.get(len..).unwrap_or_default()),
                    None => DropReason::NoChannel,
                }
            }
            _ => DropReason::Malformed,
        };
        self.counters.add_received(1);
        self.counters.add_dropped_from(dropped, from);
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_datagram_reaches_the_protocol_of_its_number_or_is_counted() {
        let (registry, came) = (Registry::default(), Arc::new(Mutex::new(Vec::new())));
        let from: HostAddr = "/ip4/192.0.2.1/udp/1/quic-v1".parse().expect("an address");
        let (first, second) = (registry.new_number(), registry.new_number());
        assert_ne!(first, second);
        let taken = came.clone();
        registry.add(second, move |_, packet| {
            taken.lock().expect("no panic").push(packet.to_vec());
        });
        registry.deliver(&from, &[second as u8, 7]);
        registry.deliver(&from, &[second as u8]);
        for (datagram, reason) in [
            (&[][..], DropReason::Malformed),
            (&[0xff; 20], DropReason::Malformed),
            (&[0x81, 0x00, 7], DropReason::Malformed),
            (&[first as u8, 7], DropReason::NoChannel),
        ] {
            let before = registry.counters.snapshot().dropped(reason);
            registry.deliver(&from, datagram);
            assert_eq!(
                registry.counters.snapshot().dropped(reason),
                before + 1,
                "{datagram:?}"
            );
        }
        registry.remove(second);
        registry.deliver(&from, &[second as u8, 8]);
        assert_eq!(*came.lock().expect("no panic"), [vec![7], vec![]]);
        assert_eq!(registry.counters.snapshot().received, 5);
    }
}
