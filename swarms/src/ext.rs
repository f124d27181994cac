//! Layers as an adaptor chain, as iterators have.

use p2p::{Addr, Swarm};

use crate::FragmentSwarm;

/// Puts layers on a swarm: `udp.fragment(64 << 10).layer(|inner| TagSwarm::new(inner, *b"demo"))`.
///
/// Every method is the layer's plain constructor under another name.
pub trait SwarmExt<A: Addr>: Swarm<A> + Sized {
    /// Puts any layer on this swarm: one of your own, or one that has no method here.
    fn layer<L>(self, wrap: impl FnOnce(Self) -> L) -> L {
        wrap(self)
    }

    /// Carries messages of up to `mtu` bytes; see [`FragmentSwarm::new`].
    fn fragment(self, mtu: usize) -> FragmentSwarm<A, Self> {
        FragmentSwarm::new(self, mtu)
    }
}

impl<A: Addr, S: Swarm<A>> SwarmExt<A> for S {}
