//! Layers as an adaptor chain, as iterators have.

use std::net::SocketAddr;

use p2p::{Addr, AskSwarm, PeerId, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::gossipsub::Signing;
use p2p_protocols::mux::{Channel, Name};

use crate::allow::{AllowSwarm, Verdict};
use crate::faulty::{Faults, FaultySwarm};
use crate::map::{EraseSwarm, MapSwarm, Translate};
use crate::overlay::{Identity, Router};
use crate::{
    AskingSwarm, ChordSwarm, FragmentSwarm, GossipAddr, GossipSwarm, KademliaSwarm, KeyAddr, MemoryAddr,
    MemorySwarm, MultiAddr, MultiSwarm, Mux, MuxConfig, MuxSwarm, OverlaySwarm, P2pkeSwarm, QuicSwarm,
    UdpSwarm,
};

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

    /// Opens channels that have names over this swarm; see [`Mux::new`].
    fn mux(self) -> Mux<A, Self, Name> {
        Mux::new(self)
    }

    /// Opens channels of another kind over this swarm: `udp.mux_by::<u16>().open(7_u16)`.
    fn mux_by<C: Channel>(self) -> Mux<A, Self, C> {
        Mux::with_config(self, MuxConfig::default())
    }

    /// Carries asks, and messages of up to `mtu` bytes, in the bytes of go-p2p's mbapp; see [`AskingSwarm`].
    ///
    /// The swarms of this crate also have it under its former name, `asks(mtu)`. That one is no method of this trait: it would
    /// hide [`Stack::asks`](crate::stack::Stack::asks) wherever the trait is imported.
    fn mbapp(self, mtu: usize) -> AskingSwarm<A, Self> {
        AskingSwarm::new(self, mtu)
    }

    /// Runs P2PKE over this swarm, with the identity of `key`; see [`P2pkeSwarm::new`].
    ///
    /// # Errors
    /// As [`P2pkeSwarm::new`].
    fn p2pke(self, key: &PrivateKey) -> Result<P2pkeSwarm<A, Self>> {
        P2pkeSwarm::new(self, key)
    }

    /// Runs QUIC over this swarm, with the identity of `key`; see [`QuicSwarm::new`].
    ///
    /// # Errors
    /// As [`QuicSwarm::new`].
    fn quic(self, key: &PrivateKey) -> Result<QuicSwarm<A>> {
        QuicSwarm::new(self, key)
    }

    /// A node of a gossip network over this swarm, which has no peers yet; see [`GossipSwarm::new`].
    ///
    /// # Errors
    /// As [`GossipSwarm::new`].
    fn gossip(self, signing: Signing) -> Result<GossipSwarm<A, Self>> {
        GossipSwarm::new(self, signing)
    }

    /// A node of a Chord ring over this swarm, which it has not joined yet; see [`ChordSwarm::new`].
    ///
    /// # Errors
    /// As [`ChordSwarm::new`].
    fn chord(self, identity: Identity<'_>) -> Result<ChordSwarm<A, Self>>
    where
        Self: AskSwarm<A>,
    {
        ChordSwarm::new(self, identity)
    }

    /// Makes this swarm a Kademlia network, in which nodes are told and asked by their ids: a node that knows nobody yet, to
    /// be [`join`](KademliaSwarm::join)ed; see [`KademliaSwarm::new`].
    ///
    /// # Errors
    /// As [`KademliaSwarm::new`].
    fn kademlia(self, identity: Identity<'_>) -> Result<KademliaSwarm<A, Self>>
    where
        Self: AskSwarm<A>,
    {
        KademliaSwarm::new(self, identity)
    }

    /// This swarm under other addresses; see [`MapSwarm`].
    fn map<B: Addr, T: Translate<B, A>>(self, translate: T) -> MapSwarm<B, A, Self, T> {
        MapSwarm::new(self, translate)
    }

    /// This swarm under addresses whose type is hidden; see [`EraseSwarm`].
    fn erase(self) -> EraseSwarm<A, Self> {
        MapSwarm::erase(self)
    }

    /// This swarm with rules on who is heard and spoken to; see [`AllowSwarm`].
    fn allow(self, others: Verdict) -> AllowSwarm<A, Self> {
        AllowSwarm::new(self, others)
    }

    /// Puts the faults of a medium on what is sent through this swarm.
    fn faulty(self, faults: Faults<A>) -> FaultySwarm<A, Self> {
        FaultySwarm::new(self, faults)
    }
}

impl<A: Addr, S: Swarm<A>> SwarmExt<A> for S {}

/// Gives swarms the adaptor [`SwarmExt::mbapp`] under its former name.
macro_rules! former_name {
    ($({$($generics:tt)*} $swarm:ty: $addr:ty;)+) => {$(
        impl<$($generics)*> $swarm
        where
            Self: Swarm<$addr>,
        {
            /// The same as [`SwarmExt::mbapp`], under its former name.
            pub fn asks(self, mtu: usize) -> AskingSwarm<$addr, Self> {
                AskingSwarm::new(self, mtu)
            }
        }
    )+};
}

former_name! {
    {} UdpSwarm: SocketAddr;
    {} MemorySwarm: MemoryAddr;
    {A: Addr, S: Swarm<A>} FaultySwarm<A, S>: A;
    {A: Addr, S: Swarm<A>} FragmentSwarm<A, S>: A;
    {A: Addr, S: Swarm<A>, C: Channel} MuxSwarm<A, S, C>: A;
    {A: Addr, S: Swarm<A>} AllowSwarm<A, S>: A;
    {A: Addr, B: Addr, S: Swarm<B>, T: Translate<A, B>} MapSwarm<A, B, S, T>: A;
    {T} MultiSwarm<T>: MultiAddr;
    {A: Addr, S: Swarm<A>} P2pkeSwarm<A, S>: KeyAddr<A>;
    {A: Addr} QuicSwarm<A>: KeyAddr<A>;
    {A: Addr, S: AskSwarm<A>, R: Router<A>} OverlaySwarm<A, S, R>: PeerId;
    {A: Addr, S: Swarm<A>} GossipSwarm<A, S>: GossipAddr<A>;
}
