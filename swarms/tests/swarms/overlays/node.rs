//! A node of either overlay, for tests that are the same for both.

#![allow(
    dead_code,
    reason = "each test crate that includes this module uses a part of it"
)]

use p2p::{Addr, AskSwarm, BoxAddr, BoxSecureAskSwarm, PeerId, Result, SecureSwarm, Swarm};
use p2p_swarms::overlay::{OverlayConfig, Router};
use p2p_swarms::{ChordConfig, ChordSwarm, Identity, KademliaConfig, KademliaSwarm, SwarmExt as _};

/// The inner type of overlays in stacks: overlays over it are already compiled.
pub(crate) type Inner = BoxSecureAskSwarm<BoxAddr>;

pub(crate) type Kademlia = KademliaSwarm<BoxAddr, Inner>;
pub(crate) type Chord = ChordSwarm<BoxAddr, Inner>;

/// Erases the type of a swarm below an overlay.
pub(crate) fn boxed<A: Addr, S: AskSwarm<A> + SecureSwarm<A>>(inner: S) -> Inner {
    Inner::new(inner.erase())
}

/// A node of an overlay. Records are valid if they begin with `good`.
pub(crate) trait Node: AskSwarm<PeerId> + SecureSwarm<PeerId, PublicKey: PartialEq> + Sized {
    /// Names of the counters: messages, requests, relayed messages, requests of the engine.
    const LAYERS: [&'static str; 4];

    fn with_overlay(inner: Inner, identity: Identity<'_>, overlay: OverlayConfig) -> Result<Self>;

    fn new(inner: Inner, identity: Identity<'_>) -> Result<Self> {
        Self::with_overlay(inner, identity, OverlayConfig::default())
    }

    fn id(&self) -> PeerId {
        self.local_addrs().remove(0)
    }

    /// Returns its address below.
    fn place(&self) -> BoxAddr;

    fn join(&self, bootstraps: &[BoxAddr]) -> impl Future<Output = Result<()>> + Send;
}

fn is_good(_: &PeerId, value: &[u8]) -> bool {
    value.starts_with(b"good")
}

impl Node for Kademlia {
    const LAYERS: [&'static str; 4] = <p2p_protocols::kademlia::Engine<BoxAddr> as Router<BoxAddr>>::LAYERS;

    fn with_overlay(inner: Inner, identity: Identity<'_>, overlay: OverlayConfig) -> Result<Self> {
        let config = KademliaConfig {
            overlay,
            ..KademliaConfig::default()
        };
        Self::with_config(inner, identity, config.validator(is_good))
    }

    fn place(&self) -> BoxAddr {
        self.inner().local_addrs().remove(0)
    }

    async fn join(&self, bootstraps: &[BoxAddr]) -> Result<()> {
        let contacts = KademliaSwarm::join(self, bootstraps)?.finish().await?;
        assert!(contacts > 0, "a node found no contact");
        Ok(())
    }
}

impl Node for Chord {
    const LAYERS: [&'static str; 4] = <p2p_protocols::chord::Engine<BoxAddr> as Router<BoxAddr>>::LAYERS;

    fn with_overlay(inner: Inner, identity: Identity<'_>, overlay: OverlayConfig) -> Result<Self> {
        let config = ChordConfig {
            overlay,
            ..ChordConfig::default()
        };
        Self::with_config(inner, identity, config.validator(is_good))
    }

    fn place(&self) -> BoxAddr {
        self.inner().local_addrs().remove(0)
    }

    async fn join(&self, bootstraps: &[BoxAddr]) -> Result<()> {
        ChordSwarm::join(self, bootstraps)?.finish().await.map(drop)
    }
}
