//! A realm: a set of memory nodes that reach each other, by address.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use p2p::{Counters, DropReason, Error, Message, Result};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use tokio::sync::Notify;

use super::ask::Asked;
use super::{MemoryAddr, MemoryConfig, MemorySwarm};
use crate::inbox::Inbox;

/// A medium inside this process: its nodes reach each other and no other nodes.
///
/// Clones refer to the same realm. It exists as long as a clone or one of its nodes does.
#[derive(Clone)]
pub struct MemoryRealm(Arc<Realm>);

/// Realms by name, as long as they are in use.
static NAMED: Mutex<BTreeMap<Box<str>, Weak<Realm>>> = Mutex::new(BTreeMap::new());

struct Realm {
    config: MemoryConfig,
    nodes: RwLock<Nodes>,
}

#[derive(Default)]
struct Nodes {
    by_addr: HashMap<MemoryAddr, Arc<Node>>,
    /// The number at which the search for a free address begins. It only grows, so that a message to a closed
    /// node does not reach the next node that is opened.
    next: i64,
}

impl MemoryRealm {
    /// Creates a realm that is separate from all others.
    pub fn new(config: MemoryConfig) -> Self {
        Self(Arc::new(Realm {
            config,
            nodes: RwLock::default(),
        }))
    }

    /// Returns the realm of this name in this process. Creates it with the default bounds if it is not in
    /// use.
    pub fn named(name: &str) -> Self {
        let mut named = NAMED.lock();
        if let Some(realm) = named.get(name).and_then(Weak::upgrade) {
            return Self(realm);
        }
        named.retain(|_, realm| realm.strong_count() > 0);
        let realm = Self::default();
        named.insert(name.into(), Arc::downgrade(&realm.0));
        realm
    }

    /// Returns the bounds of its nodes.
    pub fn config(&self) -> &MemoryConfig {
        &self.0.config
    }

    /// Opens a node at the next address that `open` has not used in this realm: 0, 1, 2 and so on.
    pub fn open(&self) -> MemorySwarm {
        let mut nodes = self.nodes();
        let mut addr = MemoryAddr::new(nodes.next);
        while nodes.by_addr.contains_key(&addr) {
            addr = MemoryAddr::new(addr.number().wrapping_add(1));
        }
        nodes.next = addr.number().wrapping_add(1);
        self.add(nodes, addr)
    }

    /// Opens a node at `addr`.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if a node is already open there.
    pub fn open_at(&self, addr: MemoryAddr) -> Result<MemorySwarm> {
        let nodes = self.nodes();
        if nodes.by_addr.contains_key(&addr) {
            return Err(Error::invalid(
                "address",
                format!("{addr} is already in use in this realm"),
            ));
        }
        Ok(self.add(nodes, addr))
    }

    fn add(&self, mut nodes: RwLockWriteGuard<'_, Nodes>, addr: MemoryAddr) -> MemorySwarm {
        let node = Arc::new(Node::new(addr, &self.0.config));
        nodes.by_addr.insert(addr, node.clone());
        MemorySwarm {
            realm: self.clone(),
            node,
        }
    }

    /// Returns the node with this address.
    pub(super) fn node(&self, addr: MemoryAddr) -> Option<Arc<Node>> {
        let nodes = self.0.nodes.read();
        nodes.by_addr.get(&addr).cloned()
    }

    /// Frees the address of `node` and ends the calls that wait for it.
    pub(super) fn close(&self, node: &Node) {
        if node.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.nodes().by_addr.remove(&node.addr);
        // Askers receive the error before their requests are dropped.
        node.closing.notify_waiters();
        let messages = node.messages.close();
        node.counters.add_dropped_many(DropReason::Closed, messages);
        let asks = node.asks.close();
        node.ask_counters.add_dropped_many(DropReason::Closed, asks);
    }

    fn nodes(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.0.nodes.write()
    }
}

impl Default for MemoryRealm {
    /// Creates a realm with the default bounds.
    fn default() -> Self {
        Self::new(MemoryConfig::default())
    }
}

impl fmt::Debug for MemoryRealm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRealm")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// The state of a node that other nodes access.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) addr: MemoryAddr,
    pub(super) messages: Inbox<Message<MemoryAddr>>,
    pub(super) asks: Inbox<Asked>,
    pub(super) counters: Counters,
    pub(super) ask_counters: Counters,
    pub(super) next_ask: AtomicU64,
    closed: AtomicBool,
    /// Notifies the asks that wait here or were sent from here.
    pub(super) closing: Notify,
}

impl Node {
    fn new(addr: MemoryAddr, config: &MemoryConfig) -> Self {
        Self {
            addr,
            messages: Inbox::new(config.messages),
            asks: Inbox::new(config.asks),
            counters: Counters::new("mem"),
            ask_counters: Counters::new("mem-ask"),
            next_ask: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}
