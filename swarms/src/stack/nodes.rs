//! Nodes of one stack for tests of it: each with a key of its own, and made again where one was.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use p2p::{Addr as _, BoxAddr, PeerId, Result, Swarm as _};
use p2p_formats::x509::PrivateKey;

use super::{Stack, StackText};

/// Makes nodes of a stack, each with a key of its own, and makes them again at their addresses: what a testbed of the
/// conformance suite needs.
///
/// It remembers the key of every node that it made.
#[derive(Debug)]
pub struct Nodes {
    text: StackText,
    /// The key of each node, and the text of those that it was made with: they are members of the same overlays.
    made: Mutex<HashMap<PeerId, (PrivateKey, StackText)>>,
}

impl Nodes {
    /// Makes nodes of this stack.
    pub fn new(text: StackText) -> Self {
        Self {
            text,
            made: Mutex::default(),
        }
    }

    /// Opens so many nodes that are in the same overlays, and in none with those of other calls.
    ///
    /// # Errors
    /// As [`StackText::build_with`].
    pub async fn open(&self, count: usize) -> Result<Vec<Stack>> {
        let text = self.text.apart();
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            let key = PrivateKey::ed25519(&rand::random());
            let stack = text.build_with(&key).await?;
            if let Some(id) = stack.local_addrs().first().and_then(p2p::Addr::peer_id) {
                self.made().insert(id, (key, text.clone()));
            }
            nodes.push(stack);
        }
        Ok(nodes)
    }

    /// Opens a node where one was that is gone, with its key.
    ///
    /// # Errors
    /// As [`StackText::build_at`].
    pub async fn open_again(&self, addr: &BoxAddr) -> Result<Stack> {
        let made = addr.peer_id().and_then(|id| self.made().get(&id).cloned());
        let (key, text) = made.unwrap_or_else(|| (PrivateKey::ed25519(&rand::random()), self.text.clone()));
        Ok(text.build_at(addr, &key).await?)
    }

    fn made(&self) -> MutexGuard<'_, HashMap<PeerId, (PrivateKey, StackText)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
