//! Layers as adaptor methods: each method wraps the swarm that it is called on, as iterator adaptors do.

use std::time::Duration;

use p2p::{Addr, AskSwarm, Error, Filter, FilterSwarm, Packet, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::gossipsub::Signing;
use p2p_protocols::mux::{Channel, Name};

use crate::allow::{AllowSwarm, Policy};
use crate::faulty::{Faults, FaultySwarm};
use crate::map::{EraseSwarm, MapSwarm, Translate};
use crate::overlay::Identity;
use crate::{
    ChordSwarm, FragmentSwarm, GossipSwarm, KademliaSwarm, MbappSwarm, Mux, MuxConfig, P2pkeSwarm, QuicSwarm,
};

/// Puts layers on a swarm: `udp.fragment(64 << 10).filter(Tag(*b"demo"))`.
///
/// Each method calls the constructor of its layer.
pub trait SwarmExt<A: Addr>: Swarm<A> + Sized {
    /// Wraps this swarm in any layer: a user's own, or one that has no method here.
    ///
    /// ```
    /// use p2p::Swarm;
    /// use p2p_swarms::{FragmentConfig, FragmentSwarm, MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let config = FragmentConfig { mtu: 1 << 20, ..FragmentConfig::default() };
    /// let swarm = MemorySwarm::new().layer(|inner| FragmentSwarm::with_config(inner, config));
    /// assert_eq!(swarm.mtu(), 1 << 20);
    /// # Ok(())
    /// # }
    /// ```
    fn layer<L>(self, wrap: impl FnOnce(Self) -> L) -> L {
        wrap(self)
    }

    /// Makes every message and request pass `filter`; see [`Filter`].
    fn filter<F: Filter<A>>(self, filter: F) -> FilterSwarm<A, Self, F> {
        FilterSwarm::new(self, filter)
    }

    /// Carries messages of up to `mtu` bytes; see [`FragmentSwarm::new`].
    ///
    /// ```
    /// use p2p::Swarm;
    /// use p2p_swarms::{SwarmExt, UdpSwarm};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let swarm = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?.fragment(64 << 10);
    /// assert_eq!(swarm.mtu(), 64 << 10);
    /// # Ok(())
    /// # }
    /// ```
    fn fragment(self, mtu: usize) -> FragmentSwarm<A, Self> {
        FragmentSwarm::new(self, mtu)
    }

    /// Opens named channels over this swarm; see [`Mux::new`].
    ///
    /// ```
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let mux = MemorySwarm::new().mux();
    /// let (_chat, _files) = (mux.open("chat")?, mux.open("files")?);
    /// assert!(mux.open("chat").is_err()); // open already
    /// # Ok(())
    /// # }
    /// ```
    fn mux(self) -> Mux<A, Self, Name> {
        Mux::new(self)
    }

    /// Opens channels of another kind over this swarm, for example `udp.mux_by::<u16>().open(7_u16)`; see
    /// [`Mux`].
    ///
    /// ```
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let mux = MemorySwarm::new().mux_by::<u16>();
    /// assert_eq!(*mux.open(7_u16)?.channel(), 7);
    /// # Ok(())
    /// # }
    /// ```
    fn mux_by<C: Channel>(self) -> Mux<A, Self, C> {
        Mux::with_config(self, MuxConfig::default())
    }

    /// Adds asks, and messages of up to `mtu` bytes, in go-p2p's mbapp format; see [`MbappSwarm`].
    ///
    /// ```
    /// use p2p::Swarm;
    /// use p2p_swarms::{SwarmExt, UdpSwarm};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let swarm = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?.mbapp(64 << 10);
    /// assert_eq!(swarm.mtu(), 64 << 10);
    /// # Ok(())
    /// # }
    /// ```
    fn mbapp(self, mtu: usize) -> MbappSwarm<A, Self> {
        MbappSwarm::new(self, mtu)
    }

    /// Runs P2PKE over this swarm with the identity of `key`; see [`P2pkeSwarm::new`].
    ///
    /// ```
    /// use p2p::{Addr, Swarm};
    /// use p2p_formats::x509::PrivateKey;
    /// use p2p_swarms::{SwarmExt, UdpSwarm};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
    /// let swarm = udp.p2pke(&PrivateKey::ed25519(&[1; 32]))?;
    /// assert_eq!(swarm.local_addrs()[0].peer_id(), Some(swarm.id()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`P2pkeSwarm::new`].
    fn p2pke(self, key: &PrivateKey) -> Result<P2pkeSwarm<A, Self>> {
        P2pkeSwarm::new(self, key)
    }

    /// Runs QUIC over this swarm with the identity of `key`; see [`QuicSwarm::new`].
    ///
    /// ```
    /// use p2p::{Addr, Swarm};
    /// use p2p_formats::x509::PrivateKey;
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let swarm = MemorySwarm::new().quic(&PrivateKey::ed25519(&[1; 32]))?;
    /// assert!(swarm.local_addrs()[0].peer_id().is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`QuicSwarm::new`].
    fn quic(self, key: &PrivateKey) -> Result<QuicSwarm<A>> {
        QuicSwarm::new(self, key)
    }

    /// Creates a gossipsub node over this swarm, with no peers yet; see [`GossipSwarm::new`].
    ///
    /// ```
    /// use p2p_swarms::gossipsub::Signing;
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let swarm = MemorySwarm::new().gossip(Signing::StrictNoSign)?;
    /// assert!(swarm.subscribe("weather")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`GossipSwarm::new`].
    fn gossip(self, signing: Signing) -> Result<GossipSwarm<A, Self>> {
        GossipSwarm::new(self, signing)
    }

    /// Creates a Chord node over this swarm, which has not joined a ring yet; see [`ChordSwarm::new`].
    ///
    /// ```
    /// use p2p::{PeerId, Swarm};
    /// use p2p_swarms::{Identity, MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let id = PeerId::from([1; 32]);
    /// let swarm = MemorySwarm::new().chord(Identity::Unproven(id))?;
    /// assert_eq!(swarm.local_addrs(), [id]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`ChordSwarm::new`].
    fn chord(self, identity: Identity<'_>) -> Result<ChordSwarm<A, Self>>
    where
        Self: AskSwarm<A>,
    {
        ChordSwarm::new(self, identity)
    }

    /// Creates a Kademlia node over this swarm, in which nodes are told and asked by their ids; see
    /// [`KademliaSwarm::new`].
    ///
    /// The node has no contacts until [`join`](KademliaSwarm::join).
    ///
    /// ```
    /// use p2p::{PeerId, Swarm};
    /// use p2p_swarms::{Identity, MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let id = PeerId::from([1; 32]);
    /// let swarm = MemorySwarm::new().kademlia(Identity::Unproven(id))?;
    /// assert_eq!(swarm.local_addrs(), [id]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`KademliaSwarm::new`].
    fn kademlia(self, identity: Identity<'_>) -> Result<KademliaSwarm<A, Self>>
    where
        Self: AskSwarm<A>,
    {
        KademliaSwarm::new(self, identity)
    }

    /// Presents this swarm under other addresses; see [`MapSwarm`].
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use p2p::{BoxAddr, Error, Result, Swarm};
    /// use p2p_swarms::{SwarmExt, UdpSwarm};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
    /// let down = |addr: &BoxAddr| -> Result<SocketAddr> {
    ///     let inner = addr.downcast_ref::<SocketAddr>();
    ///     inner.copied().ok_or_else(|| Error::unreachable(addr, "it is not a socket address"))
    /// };
    /// let swarm = udp.map((down, |addr: SocketAddr| Some(BoxAddr::new(addr))));
    /// let _addrs: Vec<BoxAddr> = swarm.local_addrs();
    /// # Ok(())
    /// # }
    /// ```
    fn map<B: Addr, T: Translate<B, A>>(self, translate: T) -> MapSwarm<B, A, Self, T> {
        MapSwarm::new(self, translate)
    }

    /// Hides the address type of this swarm; see [`EraseSwarm`].
    ///
    /// ```
    /// use p2p::{BoxAddr, Swarm};
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let swarm = MemorySwarm::new().erase();
    /// let _addrs: Vec<BoxAddr> = swarm.local_addrs();
    /// # Ok(())
    /// # }
    /// ```
    fn erase(self) -> EraseSwarm<A, Self> {
        MapSwarm::erase(self)
    }

    /// Adds rules on which peers this swarm receives from and sends to; see [`AllowSwarm`].
    ///
    /// ```
    /// use p2p_swarms::allow::Policy;
    /// use p2p_swarms::{MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let bob = MemorySwarm::new();
    /// let swarm = bob.realm().open().allow(Policy::Deny);
    /// assert!(!swarm.allows(&bob.local_addr()));
    /// # Ok(())
    /// # }
    /// ```
    fn allow(self, others: Policy) -> AllowSwarm<A, Self> {
        AllowSwarm::new(self, others)
    }

    /// Applies the faults of a medium to everything that is sent through this swarm; see [`FaultySwarm`].
    ///
    /// ```
    /// use p2p_swarms::{Faults, LinkFaults, MemorySwarm, SwarmExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let faults = Faults::seeded(7);
    /// faults.set_all(LinkFaults { loss: 0.1, ..LinkFaults::default() })?;
    /// let swarm = MemorySwarm::new().faulty(faults);
    /// assert_eq!(swarm.in_flight(), 0);
    /// # Ok(())
    /// # }
    /// ```
    fn faulty(self, faults: Faults<A>) -> FaultySwarm<A, Self> {
        FaultySwarm::new(self, faults)
    }
}

impl<A: Addr, S: Swarm<A>> SwarmExt<A> for S {}

/// Adds deadlines to the calls of every [`AskSwarm`].
pub trait AskSwarmExt<A: Addr>: AskSwarm<A> {
    /// Sends `request` to `dst` and waits for its response for `limit` at most. A layer may have a shorter timeout of
    /// its own.
    ///
    /// Needs a tokio runtime with its clock enabled.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `limit`; the ask is then cancelled. Otherwise those of [`AskSwarm::ask`].
    ///
    /// # Cancel safety
    /// That of [`AskSwarm::ask`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use p2p::{Error, Swarm as _};
    /// use p2p_swarms::{AskSwarmExt as _, MemoryRealm};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let realm = MemoryRealm::default();
    /// let (client, silent) = (realm.open(), realm.open());
    /// let limit = Duration::from_millis(50);
    /// let ask = client.ask_timeout(&silent.local_addr(), client.packet(b"are you there?"), limit).await;
    /// assert!(matches!(ask, Err(Error::TimedOut { limit: l, .. }) if l == limit));
    /// # }
    /// ```
    fn ask_timeout(
        &self,
        dst: &A,
        request: Packet,
        limit: Duration,
    ) -> impl Future<Output = Result<Packet>> + Send {
        async move {
            let late = |_| Error::TimedOut {
                doing: "the ask",
                limit,
            };
            tokio::time::timeout(limit, self.ask(dst, request))
                .await
                .map_err(late)?
        }
    }
}

impl<A: Addr, S: AskSwarm<A>> AskSwarmExt<A> for S {}
