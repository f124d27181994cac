//! Gossipsub in a libp2p mesh: the router of [`GossipSwarm`] on streams of a host.
//!
//! [`Host::gossip`] returns a [`GossipSwarm`], so a program that publishes and subscribes on datagrams
//! (`udp/p2pke/frag`) runs unchanged among the nodes of rust-, go-, js- and py-libp2p.
//!
//! ```
//! use p2p::Swarm;
//! use p2p_formats::x509::PrivateKey;
//! use p2p_libp2p::{Host, HostGossipConfig};
//! use p2p_swarms::gossipsub::{GossipAddr, Signing};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> p2p::Result<()> {
//! let node = async |seed: u8| {
//!     let builder = Host::builder(&PrivateKey::ed25519(&[seed; 32])).listen("/ip4/127.0.0.1/udp/0/quic-v1")?;
//!     builder.start().await?.gossip(Signing::StrictNoSign, HostGossipConfig::default())
//! };
//! let (alice, bob) = (node(1).await?, node(2).await?);
//! bob.subscribe("weather")?;
//! alice.add_peer(&bob.inner().local_addr()?)?; // dials it; or `Host::connect` on either side
//! while alice.subscribers("weather").is_empty() {
//!     alice.event().await?;
//! }
//! alice.tell(&GossipAddr::topic("weather"), alice.packet(b"rain")).await?;
//! assert_eq!(bob.receive().await?.payload, b"rain");
//! # Ok(())
//! # }
//! ```
//!
//! # Protocol
//! libp2p specifications, pubsub: each side opens one stream to the other, for `/meshsub/1.2.0`, `1.1.0`, `1.0.0` or
//! `/floodsub/1.0.0`, the first of these that the other supports, and only writes there: RPCs, each behind its length as a
//! varint. The version of a peer is that of the stream to it. [`Links`](p2p_protocols::gossipsub::Links) decides which streams
//! there are.
//!
//! A node becomes a peer when it is connected, identify has told that it supports the protocol (or it has opened a stream), and
//! this node's stream to it is open. It leaves with its last connection. A lost stream is opened again after a pause, and then
//! subscriptions and GRAFTs are repeated; RPCs that were being sent are lost and counted. Another stream of the same peer
//! replaces the one that is read.
//!
//! **Message ids.** Implementations compute them differently by default. In a network of several, one [`MessageIdScheme`] must
//! be configured at all of them; the default of this node is that of the specification, which go- and py-libp2p use, too.
//!
//! # Back-pressure
//! A peer that does not read blocks its stream only: the router keeps its RPCs in a bounded queue by priority
//! ([`Config::queue`](p2p_swarms::gossipsub::Config)), and drops and counts the rest. A stream on which one RPC takes longer
//! than [`HostGossipConfig::send_timeout`] is lost. In the other direction a node that cannot keep up stops reading.
//!
//! # Security
//! Those of [`p2p_swarms::gossipsub`], and of the [crate]: peers are the hosts that proved their ids, so scores follow them. A
//! message is authenticated if messages are signed ([`Signing::StrictSign`]).
//!
//! # Limits
//! All limits are in [`HostGossipConfig`]. RPCs are sent within [`SendLimits::LIBP2P`], which all implementations accept, and
//! are received up to 1 MiB. An RPC that is longer, malformed in its length, or without room resets its stream; those faults
//! of a peer lower its score. The counter `libp2p-gossip` counts RPCs.
//!
//! # Cancel safety
//! That of [`GossipSwarm`]. A cancelled tell of [`RpcStreams`] ends the stream, which is opened again.

mod core;
mod inbound;
mod link;
mod message_id;
mod outbound;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Addr as _, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, PeerId, Result, Swarm,
};
use p2p_formats::varint;
use p2p_formats::x509;
use p2p_protocols::gossipsub::LinkConfig;
use p2p_swarms::gossipsub::{Author, GossipConfig, GossipSwarm, SendLimits, Signing};

use self::core::Core;
pub use self::message_id::MessageIdScheme;
use crate::addr::HostAddr;
use crate::host::{HeldHost, Host};
use crate::key::{KeyType, PublicKey, identity};

/// A gossip node on streams of a host.
pub type HostGossip = GossipSwarm<HostAddr, RpcStreams>;

/// The limits and timeouts of a gossip node on a host.
#[derive(Clone, Debug)]
pub struct HostGossipConfig {
    /// The router. Its defaults differ from those of [`GossipConfig`]: RPCs are sent within [`SendLimits::LIBP2P`], up to 32
    /// KiB of messages leave as one RPC, and the id of an author is that of its host. With `accept_peers`, every connected
    /// host that supports the protocol becomes a peer. `version` and `peer_idle` do not apply.
    pub gossip: GossipConfig,
    /// Whether messages of authors are accepted whose keys are RSA, secp256k1 or ECDSA, as other implementations do; if not,
    /// such messages are refused, as those with an invalid signature. Own messages are signed with Ed25519. Default: yes.
    pub any_author: bool,
    /// The streams to peers.
    pub links: LinkConfig,
    /// RPCs of all peers that wait for the router; beyond it, streams are not read. Default: 64.
    pub rpcs: usize,
    /// Bytes of RPCs that have arrived in part, for all peers together. An RPC that finds no room resets its stream. Default:
    /// 32 MiB.
    pub reassembly: usize,
    /// Timeout of the arrival of an RPC after its length. Default: 30 s.
    pub rpc_timeout: Duration,
    /// Timeout of sending one RPC, after which its stream is lost. Default: 30 s.
    pub send_timeout: Duration,
    /// How long closing waits until peers have taken what was sent. Default: 1 s.
    pub linger: Duration,
}

impl Default for HostGossipConfig {
    fn default() -> Self {
        let mut gossip = GossipConfig {
            fingerprint: host_id,
            other_ids: Some(author_id),
            ..GossipConfig::default()
        };
        (gossip.engine.send, gossip.engine.pack) = (SendLimits::LIBP2P, 32 << 10);
        Self {
            gossip,
            any_author: true,
            links: LinkConfig::default(),
            rpcs: 64,
            reassembly: 32 << 20,
            rpc_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(1),
        }
    }
}

/// Returns the id of the host with this key: that of its addresses.
fn host_id(key: &x509::PublicKey) -> PeerId {
    let key = PublicKey::new(KeyType::Ed25519, key.key_bytes());
    // Authors have Ed25519 keys, so there is a key.
    key.map(|key| identity(&key.peer_id())).unwrap_or_default()
}

/// Returns the id of the host with this peer id.
fn author_id(author: &Author) -> PeerId {
    // The id of an author is a multihash.
    multiaddr::PeerId::from_bytes(author.as_bytes()).map_or_else(|_| PeerId::default(), |id| identity(&id))
}

/// Verifies the signature of an author with a key of any type, which its id contains or the message has.
fn verify_author(author: &Author, key: Option<&[u8]>, signed: &[u8], signature: &[u8]) -> bool {
    let key = key.or_else(|| author.encoded_key());
    let key = key.and_then(|key| PublicKey::decode(key).ok());
    let key = key.filter(|key| key.peer_id().to_bytes() == author.as_bytes());
    key.is_some_and(|key| key.verify(signed, signature).is_ok())
}

impl Host {
    /// Joins a gossipsub network with this host: connected hosts that support it become peers; see [`gossip`](self).
    ///
    /// # Errors
    /// [`Error::Invalid`] for limits that cannot work, and if the host has a handler for one of the protocol ids, as that of
    /// another gossip node; [`Error::Closed`].
    pub fn gossip(&self, signing: Signing, config: HostGossipConfig) -> Result<HostGossip> {
        self.core().check_open()?;
        let gossip = config.gossip.clone();
        let longest = gossip.engine.limits.rpc;
        if config.rpcs == 0 || config.reassembly / 2 < longest {
            let reason = "no RPC may wait, or the bytes of RPCs that arrive have no room for two";
            return Err(Error::invalid("gossip configuration", reason));
        }
        let signing = if config.any_author {
            signing.verifying(Arc::new(verify_author))
        } else {
            signing
        };
        let core = Core::new(self.core().clone(), config);
        let streams = RpcStreams {
            core: core.clone(),
            host: HeldHost::new(self.clone()),
        };
        let swarm = GossipSwarm::on_links(streams, signing, gossip, core.clone())?;
        core.start(swarm.reports())?;
        Ok(swarm)
    }
}

/// The streams below a gossip node: each message is one RPC to or from a peer.
///
/// [`GossipSwarm`] sends and receives on it. A program needs only its addresses and its host.
pub struct RpcStreams {
    core: Arc<Core>,
    host: HeldHost,
}

impl RpcStreams {
    /// Returns a handle of the host.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Swarm::close).
    pub fn host(&self) -> Result<Host> {
        self.host.get()
    }
}

impl Swarm<HostAddr> for RpcStreams {
    /// Sends an RPC on the stream to a peer, as soon as the peer has room for it.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if there is no stream to the node, or it was lost; [`Error::TimedOut`] after
    /// [`HostGossipConfig::send_timeout`].
    async fn tell(&self, dst: &HostAddr, packet: Packet) -> Result<()> {
        self.core.send(dst, vec![packet]).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(HostAddr, Packet)>) -> Result<(), BatchError> {
        let mut outcome = BatchOutcome::default();
        let mut rest = batch.drain(..).peekable();
        while let Some((peer, first)) = rest.next() {
            let mut packets = vec![first];
            while let Some((_, next)) = rest.next_if(|(next, _)| *next == peer) {
                packets.push(next);
            }
            let count = packets.len();
            match self.core.send(&peer, packets).await {
                Ok(()) => outcome.add_sent(count),
                Err(error) => outcome.add_refused(count, error),
            }
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<HostAddr>> {
        let mut one = Vec::with_capacity(1);
        loop {
            self.core.receive(&mut one, 1).await?;
            if let Some(message) = one.pop() {
                return Ok(message);
            }
        }
    }

    async fn receive_batch(&self, out: &mut Vec<Message<HostAddr>>, max: usize) -> Result<usize> {
        self.core.receive(out, max).await
    }

    fn mtu(&self) -> usize {
        self.core.config.gossip.engine.limits.rpc
    }

    fn local_addrs(&self) -> Vec<HostAddr> {
        self.core.host.host_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<HostAddr> {
        text.parse()
    }

    /// Ends all streams; see [`Swarm::close`]. Waits until peers have taken what was sent, for up to
    /// [`HostGossipConfig::linger`]. If no other handle of the host exists, closes the host.
    async fn close(&self) {
        let links = self.core.close();
        let sent = async move {
            futures_util::future::join_all(links.iter().map(|link| link.finish())).await;
        };
        self.host.close(self.core.config.linger, sent).await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(varint::len(self.mtu() as u64), 0)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.core.counters);
    }
}

impl Drop for RpcStreams {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl fmt::Debug for RpcStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcStreams")
            .field("id", &self.core.local.peer_id())
            .finish_non_exhaustive()
    }
}
