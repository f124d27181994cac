//! The memory of messages that have arrived in part: bounded in total and for each peer, over all of its connections.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use p2p::{Addr as _, PeerId};
use p2p_swarms::quic::budget::{Budget, Charge, Total};
use parking_lot::Mutex;

use crate::addr::HostAddr;

/// Peers of which so many are known at least before those without messages are removed.
const LEAST: usize = 16;

/// The budgets of the peers of one swarm or protocol.
pub(crate) struct Budgets {
    total: Arc<Total>,
    max_per_peer: usize,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    budgets: HashMap<PeerId, Weak<Budget>>,
    /// How many there may be before those without messages are removed.
    sweep_at: usize,
}

impl Budgets {
    /// `one` is what one message may need, in bytes.
    pub(crate) fn new(max: usize, max_per_peer: usize, one: usize) -> Self {
        Self {
            total: Arc::new(Total::new(max, one)),
            max_per_peer,
            peers: Mutex::default(),
        }
    }

    /// Begins to charge for a message of a peer: the result is called with each number of bytes that the message needs, returns
    /// whether they are there, and holds them until it is dropped.
    pub(crate) fn charging(&self, peer: &HostAddr) -> impl FnMut(usize) -> bool + use<> {
        let (mut charge, mut held) = (self.charge(peer), 0_usize);
        move |bytes| {
            held = held.saturating_add(bytes);
            charge.raise(held)
        }
    }

    fn charge(&self, peer: &HostAddr) -> Charge {
        let id = peer.peer_id().unwrap_or_default();
        let mut peers = self.peers.lock();
        let known = peers.budgets.get(&id).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            if peers.budgets.len() >= peers.sweep_at {
                peers.budgets.retain(|_, budget| budget.strong_count() > 0);
                peers.sweep_at = (2 * peers.budgets.len()).max(LEAST);
            }
            let budget = Arc::new(Budget::new(self.max_per_peer, self.total.clone()));
            peers.budgets.insert(id, Arc::downgrade(&budget));
            budget
        });
        Charge::new(&budget, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Keypair;

    #[test]
    fn peers_without_messages_are_removed() {
        let budgets = Budgets::new(100, 50, 10);
        let mut held = Vec::new();
        for seed in 0..200 {
            let keypair = Keypair::new(&p2p_formats::x509::PrivateKey::ed25519(&[seed; 32]));
            let charge = budgets.charge(&HostAddr::of_peer(keypair.expect("a key").peer_id()));
            if seed < 3 {
                held.push(charge);
            }
        }
        let peers = budgets.peers.lock();
        assert!(peers.budgets.len() <= LEAST, "{}", peers.budgets.len());
        let kept = peers.budgets.values().filter(|budget| budget.strong_count() > 0);
        assert_eq!(kept.count(), held.len());
    }
}
