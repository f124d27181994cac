//! Faults of keys.

use std::future::pending;
use std::time::Duration;

use p2p::{Error, Result, SecureSwarm};
use p2p_swarmtest::reference::Address;

use super::Mutant;

impl SecureSwarm<Address> for Mutant {
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        if self.breaks("secure::nodes_have_keys_of_their_own") {
            return b"everybody's key".to_vec();
        }
        self.inner.public_key().as_ref().to_vec()
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Vec<u8>> {
        let was_closed = self.closed();
        if was_closed && self.breaks("close::later_lookups_are_closed") {
            return Err(Error::TimedOut {
                doing: "looking up",
                limit: Duration::ZERO,
            });
        }
        if self.breaks("secure::a_flooded_node_proves_its_key") && self.crowd.unread(addr) > 20 {
            return Err(Error::TimedOut {
                doing: "looking up",
                limit: Duration::ZERO,
            });
        }
        let looked_at = match self.breaks {
            "secure::a_wrong_id_has_no_key" => self.crowd.at(addr.place).unwrap_or(*addr),
            _ => *addr,
        };
        match (self.inner.lookup_public_key(&looked_at).await, self.breaks) {
            (Ok(_), "secure::nodes_have_keys_of_their_own" | "secure::lookup_gives_the_other_nodes_key") => {
                Ok(self.public_key())
            }
            (Err(Error::Closed), "close::a_pending_lookup_is_closed") if !was_closed => pending().await,
            (outcome, _) => outcome.map(|key| key.as_ref().to_vec()),
        }
    }
}
