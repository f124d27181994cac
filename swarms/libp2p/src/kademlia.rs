//! Kademlia of libp2p, `/ipfs/kad/1.0.0`: nodes, records and providers by key (libp2p specification, kad-dht).
//!
//! The engine is [`p2p_protocols::kademlia`], whose buckets, lookups, stores and limits are those of
//! [`KademliaSwarm`](p2p_swarms::KademliaSwarm); only its messages are libp2p's. Each request is a stream of the host. The
//! place of a key is the SHA-256 hash of its bytes, and that of a node is the hash of its peer id.
//!
//! ```
//! use p2p_formats::x509::PrivateKey;
//! use p2p_libp2p::kademlia::{Kademlia, KademliaConfig, Mode, Namespaces};
//! use p2p_libp2p::{Host, HostAddr};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> p2p::Result<()> {
//! let node = async |seed: u8, mode: Mode| {
//!     let host = Host::builder(&PrivateKey::ed25519(&[seed; 32])).listen("/ip4/127.0.0.1/udp/0/quic-v1")?.start().await?;
//!     // Accepts all records of the namespace `example`.
//!     let namespaces = Namespaces::default().with("example", |_: &p2p::PeerId, _: &[u8]| true);
//!     host.kademlia(KademliaConfig { mode, namespaces, ..KademliaConfig::default() })
//! };
//! let server = node(1, Mode::Server).await?;
//! let (alice, bob) = (node(2, Mode::Client).await?, node(3, Mode::Client).await?);
//! let addr = server.host()?.local_addrs().remove(0);
//! assert_eq!(alice.bootstrap(&[addr.clone()]).await?, 1);
//! assert_eq!(bob.bootstrap(&[addr]).await?, 1);
//!
//! assert_eq!(alice.put(b"/example/greeting", b"hello").await?, 1);
//! assert_eq!(bob.get(b"/example/greeting").await?.as_deref(), Some(&b"hello"[..]));
//!
//! alice.provide(b"a multihash").await?;
//! assert_eq!(bob.find_providers(b"a multihash").await?, [HostAddr::of_peer(alice.host()?.peer_id())]);
//! # Ok(())
//! # }
//! ```
//!
//! # Protocol
//! - A node in [`Mode::Server`] lists the protocol in identify and serves requests; one in [`Mode::Client`] only sends
//!   them. A peer gets a place in a bucket once it has answered a request, and is asked once it has said in identify that
//!   it accepts the protocol.
//! - Whether a node is alive is asked by `FIND_NODE` for its asker, because `PING` is deprecated. `PING` is answered.
//! - Addresses that a message names go to the peer store of the host, for two minutes, or for as long as those of identify
//!   if a provider names its own. A message names the addresses of a node at which the host was connected with it, and
//!   those that the node named itself.
//! - Connections are those of the host, and end when nothing needs them. A node in a bucket is dialled again when it is
//!   asked.
//! - Records and announcements of providers live for 48 h, since messages do not say how long, and their publishers
//!   repeat them every 22 h. A node does not replicate the records of others.
//!
//! # Limits
//! [`KademliaConfig`] bounds streams and requests that arrive; its [`engine`](KademliaConfig::engine) bounds everything
//! that the node keeps, in total, for each network and for each node. Messages of up to 16 KiB are sent. Of a message, the
//! first 20 nodes of a list and 16 addresses of each are used; [`Kademlia::ignored`] and [`Kademlia::counts`] count the
//! rest. A request that is refused resets its stream; the counter `kad` has the reason.
//!
//! # Security
//! That of the [engine](p2p_protocols::kademlia#security). Each address proves its id, because a connection does. Limits
//! for each network count the addresses at which nodes answer; before a node has answered, that which was named first. A
//! record is stored and returned if the validator of its namespace accepts it ([`Namespaces`]). A provider announces itself
//! only. Of the addresses that a peer names, those with a narrower scope than its own are not used.
//!
//! # Cancel safety
//! Cancelling an operation ends it. Of a record or an announcement, some nodes may have a copy then, and the node goes on
//! publishing it.
//!
//! Deliberately absent: a change of mode by itself (the program knows whether the host is reachable), and records of
//! `ipns`, which need a validator of the program.

mod codec;
mod config;
mod namespaces;
mod node;
mod serve;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use multiaddr::PeerId;
use p2p::{Counters, Error, Result};
pub use p2p_protocols::kademlia::{Config, Counts, Key, Validator, libp2p::PROTOCOL};
use p2p_protocols::kademlia::{Contact, Outcome};

use self::codec::key;
use self::config::check_key;
pub use self::config::{KademliaConfig, Mode};
pub use self::namespaces::Namespaces;
use self::node::Node;
use crate::addr::HostAddr;
use crate::host::{HeldHost, Host};

/// A node of a libp2p Kademlia network; see the [module](self).
///
/// Closing or dropping it ends the node, and leaves the host open while another handle of the host exists.
pub struct Kademlia {
    node: Arc<Node>,
    host: HeldHost,
}

impl Host {
    /// Makes this host a node of a Kademlia network.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the protocol id is not valid or, in server mode, in use, and if a request of the maximum length
    /// does not fit into the bytes that may arrive; [`Error::Closed`] after [`close`](Self::close).
    pub fn kademlia(&self, config: KademliaConfig) -> Result<Kademlia> {
        self.core().check_open()?;
        Ok(Kademlia {
            node: Node::begin(self, config)?,
            host: HeldHost::new(self.clone()),
        })
    }
}

impl Kademlia {
    /// Returns a handle of the host.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Self::close).
    pub fn host(&self) -> Result<Host> {
        self.host.get()
    }

    /// Joins the network through some of its nodes, or through the nodes in the buckets if `peers` is empty: looks up this
    /// node, and fills its buckets. Returns the number of nodes in them; zero means that no node answered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address without a peer id, [`Error::Limit`] with too many operations, and
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelling ends the join. Nodes that have answered keep their places.
    pub async fn bootstrap(&self, peers: &[HostAddr]) -> Result<usize> {
        if let Some(addr) = peers.iter().find(|addr| addr.libp2p_id().is_none()) {
            return Err(Error::invalid("address", format!("{addr} names no peer")));
        }
        match self.node.run(|engine, now| engine.join(now, peers)).await? {
            Outcome::Joined { contacts } => Ok(contacts),
            other => Err(unexpected(&other)),
        }
    }

    /// Looks up the nodes nearest to a peer, at most *k*, the nearest first. All of them have answered.
    ///
    /// # Errors
    /// [`Error::Limit`] with too many operations, and [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Cancelling ends the lookup.
    pub async fn find_node(&self, peer: PeerId) -> Result<Vec<HostAddr>> {
        self.closest(&peer.to_bytes()).await
    }

    /// Looks up the nodes nearest to a key, as [`find_node`](Self::find_node) does.
    ///
    /// # Errors
    /// Those of [`find_node`](Self::find_node), and those of [`get`](Self::get) for the key.
    ///
    /// # Cancel safety
    /// Cancelling ends the lookup.
    pub async fn closest(&self, bytes: &[u8]) -> Result<Vec<HostAddr>> {
        check_key(bytes)?;
        let key = key(bytes);
        match self.node.run(|engine, now| engine.find_node(now, key)).await? {
            Outcome::Nodes(nodes) => Ok(addrs(nodes)),
            other => Err(unexpected(&other)),
        }
    }

    /// Looks up a record: the best of those that a quorum of nodes returns, or `None` if no node returns a valid one. The
    /// nodes that returned a worse one get the best one.
    ///
    /// # Errors
    /// Those of [`find_node`](Self::find_node); [`Error::Invalid`] for an empty key, and [`Error::MtuExceeded`] for one of
    /// more than 1024 bytes.
    ///
    /// # Cancel safety
    /// Cancelling ends the lookup.
    pub async fn get(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        check_key(bytes)?;
        let key = key(bytes);
        match self.node.run(|engine, now| engine.get(now, key)).await? {
            Outcome::Record(record) => Ok(record.map(|record| record.value)),
            other => Err(unexpected(&other)),
        }
    }

    /// Stores a record on the nodes nearest to its key, and repeats this until [`unpublish`](Self::unpublish). Returns the
    /// number of other nodes that store it.
    ///
    /// # Errors
    /// Those of [`get`](Self::get), [`Error::Invalid`] for a record that the validator of its namespace rejects,
    /// [`Error::MtuExceeded`] for a value longer than [`Config::value`], and [`Error::Limit`] with too many own records.
    ///
    /// # Cancel safety
    /// Cancelling leaves the record published: some nodes may have it, and it is repeated.
    pub async fn put(&self, bytes: &[u8], value: &[u8]) -> Result<usize> {
        check_key(bytes)?;
        let key = key(bytes);
        let put = self
            .node
            .run(|engine, now| engine.put(now, key, value, Duration::MAX));
        copies(put.await?)
    }

    /// Stops repeating a record. Returns whether it was published. Copies remain until they expire.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn unpublish(&self, bytes: &[u8]) -> Result<bool> {
        let key = key(bytes);
        self.node.drive(|engine, _| engine.unpublish(key.id()))
    }

    /// Announces to the nodes nearest to a key, such as a multihash, that this node provides it, and repeats this until
    /// [`stop_providing`](Self::stop_providing). Returns the number of nodes that took the announcement; libp2p's nodes do
    /// not say whether they keep it.
    ///
    /// # Errors
    /// Those of [`get`](Self::get), and [`Error::Limit`] with too many provided keys.
    ///
    /// # Cancel safety
    /// Cancelling leaves the key provided: some nodes may know of it, and the announcement is repeated.
    pub async fn provide(&self, bytes: &[u8]) -> Result<usize> {
        check_key(bytes)?;
        let key = key(bytes);
        copies(self.node.run(|engine, now| engine.provide(now, key)).await?)
    }

    /// Stops announcing this node as a provider of a key. Returns whether it was provided. Announcements remain until they
    /// expire.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stop_providing(&self, bytes: &[u8]) -> Result<bool> {
        let key = key(bytes);
        self.node.drive(|engine, _| engine.stop_providing(key.id()))
    }

    /// Looks up the providers of a key, as other nodes name them. They were not contacted. Their addresses are in the peer
    /// store of the host, for two minutes.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Cancelling ends the lookup.
    pub async fn find_providers(&self, bytes: &[u8]) -> Result<Vec<HostAddr>> {
        check_key(bytes)?;
        let key = key(bytes);
        match self.node.run(|engine, now| engine.providers(now, key)).await? {
            Outcome::Providers(providers) => Ok(addrs(providers)),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns the nodes in the buckets.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn contacts(&self) -> Result<Vec<HostAddr>> {
        self.node
            .drive(|engine, _| engine.contacts().map(|contact| contact.addr.clone()).collect())
    }

    /// Returns the counters of the engine.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn counts(&self) -> Result<Counts> {
        self.node.drive(|engine, _| engine.counts())
    }

    /// Returns the number of peers and addresses in messages that were not used: those beyond the limits, those that cannot
    /// be parsed or dialled, and those that the sender may not name.
    pub fn ignored(&self) -> u64 {
        self.node.ignored()
    }

    /// Calls `visit` with the counters of requests: received and delivered are requests of other nodes, sent are those of
    /// this node.
    pub fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.node.requests);
    }

    /// Closes the node: its calls fail with [`Error::Closed`], and it serves no more requests. If no other handle of the
    /// host exists, closes the host. Idempotent.
    ///
    /// # Cancel safety
    /// The node is closed from the first poll on.
    pub async fn close(&self) {
        self.node.close();
        self.host.close(Duration::ZERO, std::future::ready(())).await;
    }
}

impl Drop for Kademlia {
    fn drop(&mut self) {
        self.node.close();
    }
}

impl fmt::Debug for Kademlia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kademlia")
            .field("protocol", &self.node.protocol)
            .field("mode", &self.node.mode)
            .finish_non_exhaustive()
    }
}

fn addrs(contacts: Vec<Contact<HostAddr>>) -> Vec<HostAddr> {
    contacts.into_iter().map(|contact| contact.addr).collect()
}

fn copies(outcome: Outcome<HostAddr>) -> Result<usize> {
    match outcome {
        Outcome::Kept { copies } => Ok(copies),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(outcome: &Outcome<HostAddr>) -> Error {
    let reason = format!("{outcome:?} belongs to another kind of operation, which is a bug of this library");
    Error::invalid("outcome", reason)
}
