//! The identity of an overlay node, and the bounds of what it holds and relays.

use std::fmt;
use std::time::Duration;

use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, sha3_256, shake256};

use crate::inbox::Limits;
use crate::{MbappConfig, P2pkeConfig};

/// The identity of an overlay node.
#[derive(Clone, Copy)]
pub enum Identity<'a> {
    /// The node with this key, which the swarm below proves. Relayed messages are encrypted with it by P2PKE.
    Key(&'a PrivateKey),
    /// The identity that the swarm below proves. Messages are not relayed, since they would not be encrypted.
    Proven,
    /// An id that this node claims, on a swarm whose addresses prove nothing. For mutually trusted nodes
    /// only, since any node can claim any id there.
    ///
    /// Relayed messages are not encrypted. A source with an IP address gets a response once it has shown by a
    /// token that it receives packets at that address.
    Unproven(PeerId),
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key"),
            Self::Proven => f.write_str("Proven"),
            Self::Unproven(id) => write!(f, "Unproven({id})"),
        }
    }
}

/// Bounds of an [`OverlaySwarm`](super::OverlaySwarm) with any engine.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// Whether to relay messages for other nodes. Default: yes.
    pub relay: bool,
    /// Maximum number of hops of a relayed message. Default: 16.
    pub hops: u8,
    /// Bytes relayed per second in total; more is dropped. Half of it is divided evenly among the networks
    /// that send (see [`Prefix`](p2p_protocols::overlay::Prefix)). Default: 1 MiB.
    pub relay_bytes: u64,
    /// Bytes relayed per second for each neighbour; more is dropped. Default: 256 KiB.
    pub relay_bytes_each: u64,
    /// Relayed bytes accepted per second for this node in total; more is dropped. Divided as above. Default:
    /// 4 MiB.
    pub arriving_bytes: u64,
    /// The same for each neighbour; more is dropped. If a neighbour relays messages of more than 16 new
    /// sources in a second, those of further sources are dropped as well. Default: 1 MiB.
    pub arriving_bytes_each: u64,
    /// Maximum number of known node addresses. At the bound, an address that was not heard of for long is
    /// removed, and looked up again when it is needed. Nodes that contact this node first displace none that
    /// this node looked up, and at the bound one network of such nodes gets at most an eighth. Default: 4096.
    pub addresses: usize,
    /// A node that is told a message and was not heard of for this long is also looked up again. Default: 60
    /// s.
    pub due_after: Duration,
    /// A node that was not heard of for this long is looked up before it is told a message. Default: 10 min.
    pub forget_after: Duration,
    /// Messages that wait for this node's reader. At the limit one of the node with the most is dropped and
    /// counted.
    pub messages: Limits,
    /// Requests that wait for this node's reader. At the limit an asker with the most gets
    /// [`Rejection::BUSY`](p2p::Rejection::BUSY) at once.
    pub asks: Limits,
    /// Maximum number of messages that are received from below at a time. Default: 64.
    pub batch: usize,
    /// Encryption of relayed messages: sessions, handshakes and their timeouts. The derivation of ids from
    /// keys is that of the swarm below, whatever this says.
    pub sealing: P2pkeConfig,
    /// Asks and long messages on relayed paths. The MTU follows from the swarm below, whatever this says.
    pub mbapp: MbappConfig,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            relay: true,
            hops: 16,
            relay_bytes: 1 << 20,
            relay_bytes_each: 256 << 10,
            arriving_bytes: 4 << 20,
            arriving_bytes_each: 1 << 20,
            addresses: 4096,
            due_after: Duration::from_mins(1),
            forget_after: Duration::from_mins(10),
            messages: Limits::default(),
            asks: Limits::default(),
            batch: 64,
            sealing: P2pkeConfig::default(),
            mbapp: MbappConfig::default(),
        }
    }
}

/// Returns the function that derives `id` from this key: `configured`, or one of the known ones.
///
/// # Errors
/// Returns [`Error::Invalid`] if no known function does.
pub(super) fn fingerprint_of(
    key: &PrivateKey,
    id: PeerId,
    configured: Fingerprint,
    registry: &Registry,
) -> Result<Fingerprint> {
    let fail = |reason: String| Error::invalid("private key", reason);
    let signer = registry.signer(key).map_err(|error| fail(error.to_string()))?;
    let known: [Fingerprint; 3] = [configured, shake256, sha3_256];
    let fitting = known.into_iter().find(|of| of(signer.public_key()) == id);
    fitting.ok_or_else(|| {
        fail(format!(
            "it is not the key of {id}, the identity of the swarm below"
        ))
    })
}
