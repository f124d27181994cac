//! Discovery by DHT: a node provides the key of a topic in a Kademlia network, and others look up its
//! providers.
//!
//! A provider record contains an id and its address in the swarm below the overlay, as the storing nodes
//! observed them. So a node announces its addresses there and no others, and a found node can also be told by
//! id on the overlay. Nodes store a record for the `provider_ttl` of their engine, 24 h by default: a node is
//! found that long after it ended, even if it withdrew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::stream::BoxStream;
use p2p::{Addr, AskSwarm, PeerId};
use p2p_swarms::KademliaSwarm;
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::debug;

use crate::discovery::check_ttl;
use crate::watch::polled;
use crate::{Addrs, Change, Discovery, Error, Node, Result, Topic};

/// Discovery on a Kademlia network. Clones refer to the same node.
pub struct Dht<A: Addr, S: AskSwarm<A>> {
    shared: Arc<Shared<A, S>>,
}

struct Shared<A: Addr, S: AskSwarm<A>> {
    node: Arc<KademliaSwarm<A, S>>,
    poll: Duration,
    /// This node's announcements, and the task that ends each.
    own: Mutex<BTreeMap<Topic, (Addrs, JoinHandle<()>)>>,
}

impl<A: Addr, S: AskSwarm<A>> Clone for Dht<A, S> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared }
    }
}

impl<A: Addr, S: AskSwarm<A>> fmt::Debug for Dht<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl<A: Addr, S: AskSwarm<A>> Dht<A, S> {
    /// Creates discovery through a node, which has joined its network or will. A watch polls once a minute.
    pub fn new(node: Arc<KademliaSwarm<A, S>>) -> Self {
        Self::polling(node, Duration::from_mins(1))
    }

    /// Creates discovery whose watches poll at the given interval. Each poll is a lookup.
    pub fn polling(node: Arc<KademliaSwarm<A, S>>, poll: Duration) -> Self {
        let shared = Shared {
            node,
            poll,
            own: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the id of the announcing node.
    pub fn id(&self) -> PeerId {
        self.shared.node.id()
    }

    /// Returns the addresses that this node announces: those in the swarm below.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if it has none.
    pub fn addrs(&self) -> Result<Addrs> {
        Addrs::new(self.shared.node.inner().local_addrs())
    }

    /// Returns the key of a topic: the SHA-256 of `p2p discovery topic`, a zero byte, and its text.
    pub fn key(topic: &Topic) -> PeerId {
        let text = [b"p2p discovery topic\0", topic.as_str().as_bytes()].concat();
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, &text).as_ref());
        PeerId::new(key)
    }
}

impl<A: Addr, S: AskSwarm<A>> Shared<A, S> {
    fn own(&self) -> MutexGuard<'_, BTreeMap<Topic, (Addrs, JoinHandle<()>)>> {
        self.own.lock()
    }

    fn end(&self, topic: &Topic) {
        if let Some((_, end)) = self.own().remove(topic) {
            end.abort();
            if let Err(error) = self.node.stop_providing(&Dht::<A, S>::key(topic)) {
                debug!(%topic, %error, "ending an announcement failed");
            }
        }
    }
}

impl<A: Addr, S: AskSwarm<A>> Drop for Shared<A, S> {
    fn drop(&mut self) {
        let topics: Vec<Topic> = self.own().keys().cloned().collect();
        for topic in topics {
            self.end(&topic);
        }
    }
}

#[async_trait]
impl<A: Addr, S: AskSwarm<A>> Discovery for Dht<A, S> {
    /// Announces the node. Returns [`Error::Invalid`] for addresses that are not this node's in the swarm
    /// below, and [`Error::Swarm`] if there are other nodes and none of them stores the record.
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        check_ttl(ttl)?;
        let own = self.addrs()?;
        if let Some(other) = addrs.iter().find(|addr| !own.iter().any(|own| own == *addr)) {
            let reason = format!(
                "{other:?} is not an address of this node below the overlay, and only those can be announced"
            );
            return Err(Error::invalid("addresses", reason));
        }
        let node = &self.shared.node;
        let copies = node.provide(Self::key(topic))?.finish().await?;
        if copies == 0 && node.contacts()? > 0 {
            // An earlier announcement may remain at other nodes until it expires.
            self.shared.end(topic);
            node.stop_providing(&Self::key(topic))?;
            return Err(p2p::Error::unreachable(topic, "no other node stores the announcement").into());
        }
        let (shared, of) = (Arc::downgrade(&self.shared), topic.clone());
        let end = tokio::spawn(async move {
            sleep(ttl).await;
            if let Some(shared) = shared.upgrade() {
                shared.end(&of);
            }
        });
        if let Some((_, before)) = self.shared.own().insert(topic.clone(), (addrs.clone(), end)) {
            before.abort();
        }
        Ok(())
    }

    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        self.shared.end(topic);
        Ok(())
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        let found = self.shared.node.providers(Self::key(topic))?.finish().await?;
        let own = self.shared.own().get(topic).map(|(addrs, _)| addrs.clone());
        let mut nodes: BTreeMap<PeerId, Addrs> = own.into_iter().map(|addrs| (self.id(), addrs)).collect();
        for contact in found {
            // This node's own addresses are more current than those that others report.
            match Addrs::new([&contact.addr]) {
                Ok(addrs) if contact.id != self.id() => drop(nodes.insert(contact.id, addrs)),
                Ok(_) => {}
                Err(error) => debug!(id = %contact.id, %error, "a provider was ignored"),
            }
        }
        Ok(nodes.into_iter().map(|(id, addrs)| Node { id, addrs }).collect())
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        polled(self.clone(), topic.clone(), self.shared.poll)
    }
}
