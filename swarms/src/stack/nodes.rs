//! Nodes of one stack for tests: each with its own key, and able to restart at its address.

use std::collections::HashMap;

use p2p::{Addr as _, BoxAddr, PeerId, Result, Swarm as _};
use p2p_formats::x509::PrivateKey;
use parking_lot::{Mutex, MutexGuard};

use super::build::random_key;
use super::{Stack, StackText};

/// Creates nodes of a stack, each with its own key, and restarts them at their addresses, for testbeds of the
/// conformance suite.
///
/// It keeps the key of every node that it created.
#[derive(Debug)]
pub struct StackNodes {
    text: StackText,
    /// The key of each node, and the text that it was built from, which determines its overlays.
    made: Mutex<HashMap<PeerId, (PrivateKey, StackText)>>,
}

impl StackNodes {
    /// Creates nodes of this stack.
    pub fn new(text: StackText) -> Self {
        Self {
            text,
            made: Mutex::default(),
        }
    }

    /// Opens so many nodes that are in the same overlays, and in none with those of other calls, nor on one medium.
    ///
    /// # Errors
    /// Returns the errors of [`StackText::build_with`].
    pub async fn open(&self, count: usize) -> Result<Vec<Stack>> {
        let text = self.text.apart().on_a_medium_of_its_own();
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let key = random_key();
            let stack = text.build_with(&key).await?;
            if let Some(id) = stack.local_addrs().first().and_then(p2p::Addr::peer_id) {
                self.made().insert(id, (key, text.clone()));
            }
            nodes.push(stack);
        }
        Ok(nodes)
    }

    /// Opens a node at the address and with the key of a closed one.
    ///
    /// # Errors
    /// Returns the errors of [`StackText::build_at`].
    pub async fn open_again(&self, addr: &BoxAddr) -> Result<Stack> {
        let made = addr.peer_id().and_then(|id| self.made().get(&id).cloned());
        let (key, text) = made.unwrap_or_else(|| (random_key(), self.text.clone()));
        Ok(text.build_at(addr, &key).await?)
    }

    fn made(&self) -> MutexGuard<'_, HashMap<PeerId, (PrivateKey, StackText)>> {
        self.made.lock()
    }
}
