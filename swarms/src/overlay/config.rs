//! Who a node of an overlay is, and what it holds and passes on at most.

use std::fmt;
use std::time::Duration;

use p2p::{Error, PeerId, Result};
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, sha3_256, shake256};

use crate::inbox::Limits;
use crate::{AskingConfig, P2pkeConfig};

/// Who a node of an overlay is.
#[derive(Clone, Copy)]
pub enum Identity<'a> {
    /// The node with this key, which the swarm below proves. What goes over others is sealed with it by P2PKE.
    Key(&'a PrivateKey),
    /// Whoever the swarm below proves. Nothing goes over others, since it would not be sealed.
    Proven,
    /// The id that this node claims, on a swarm whose addresses prove nothing: among friends, since any node can claim any id there.
    /// What goes over others is as it is. A source with an IP address gets an answer once it has shown by a token that it
    /// receives what is sent there.
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

/// Bounds of an [`OverlaySwarm`](super::OverlaySwarm), whatever its engine.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// Whether messages are passed on for others. Default: yes.
    pub relay: bool,
    /// How often a message that goes over others is passed on at most. Default: 16.
    pub hops: u8,
    /// Bytes passed on for others in a second, in total; more is dropped. Half of it is divided evenly among the networks that
    /// bring something (see [`Prefix`](p2p_protocols::overlay::Prefix)). Default: 1 MiB.
    pub relay_bytes: u64,
    /// Bytes passed on in a second for each neighbour; more is dropped. Default: 256 KiB.
    pub relay_bytes_each: u64,
    /// Bytes that neighbours bring over others for this node itself in a second, in total; more is dropped. Shared as above.
    /// Default: 4 MiB.
    pub arriving_bytes: u64,
    /// The same for each neighbour; more is dropped. A neighbour that brings messages of more than 16 nodes in a second that
    /// it brought none of before has those of further ones dropped as well. Default: 1 MiB.
    pub arriving_bytes_each: u64,
    /// Addresses of nodes that are known at a time. At the limit one that was not heard of for long is forgotten, and is
    /// looked for again when it is needed. Nodes that speak first displace none that this node looked for, and at the limit
    /// one network of them gets no more than an eighth. Default: 4096.
    pub addresses: usize,
    /// A node that is told something, and was not heard of for so long, is looked for again beside that. Default: 60 s.
    pub due_after: Duration,
    /// A node that was not heard of for so long is looked for before it is told something. Default: 10 min.
    pub forget_after: Duration,
    /// Messages that wait for this node's reader. At the limit one of the node with the most is dropped and
    /// counted.
    pub messages: Limits,
    /// Requests that wait for this node's reader. At the limit an asker with the most gets
    /// [`Rejection::BUSY`](p2p::Rejection::BUSY) at once.
    pub asks: Limits,
    /// Messages that are pulled from below at a time. Default: 64.
    pub batch: usize,
    /// Sealing of what goes over others: sessions, handshakes and their times. How ids follow from keys is as in the
    /// swarm below, whatever this says.
    pub sealing: P2pkeConfig,
    /// Asks and long messages that go over others. The MTU follows from the swarm below, whatever this says.
    pub asking: AskingConfig,
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
            asking: AskingConfig::default(),
        }
    }
}

/// How ids follow from keys, if this key has this id.
///
/// # Errors
/// [`Error::Invalid`] if it does not.
pub(super) fn fingerprint_of(key: &PrivateKey, id: PeerId, registry: &Registry) -> Result<Fingerprint> {
    let fail = |reason: String| Error::invalid("private key", reason);
    let signer = registry.signer(key).map_err(|error| fail(error.to_string()))?;
    let known: [Fingerprint; 2] = [shake256, sha3_256];
    let fitting = known.into_iter().find(|of| of(signer.public_key()) == id);
    fitting.ok_or_else(|| fail(format!("it is not the key of {id}, which the swarm below has")))
}
