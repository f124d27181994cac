//! Networks of either overlay on each medium.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BoxAddr, BoxSecureAskSwarm, BoxSecureSwarm, Error, PeerId, Result, SecureSwarm, Swarm,
};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{
    ChordSwarm, Identity, KademliaSwarm, KeyAddr, MemoryRealm, QuicSwarm, SwarmExt as _, UdpConfig, UdpSwarm,
};
use p2p_swarmtest::{Profile, Secure, SecureAsk, Testbed};

/// What overlays of stacks stand on, too: over this they are compiled already.
pub(crate) type Inner = BoxSecureAskSwarm<BoxAddr>;

/// A node of an overlay.
pub(crate) trait Node: AskSwarm<PeerId> + SecureSwarm<PeerId> + Sized {
    fn new(inner: Inner, identity: Identity<'_>) -> Result<Self>;

    /// Where it is below.
    fn place(&self) -> BoxAddr;

    fn join(&self, first: &BoxAddr) -> impl Future<Output = Result<()>> + Send;
}

impl Node for KademliaSwarm<BoxAddr, Inner> {
    fn new(inner: Inner, identity: Identity<'_>) -> Result<Self> {
        KademliaSwarm::new(inner, identity)
    }

    fn place(&self) -> BoxAddr {
        self.inner().local_addrs().remove(0)
    }

    async fn join(&self, first: &BoxAddr) -> Result<()> {
        let joining = KademliaSwarm::join(self, std::slice::from_ref(first))?;
        assert!(joining.finish().await? > 0, "a node found nobody");
        Ok(())
    }
}

impl Node for ChordSwarm<BoxAddr, Inner> {
    fn new(inner: Inner, identity: Identity<'_>) -> Result<Self> {
        ChordSwarm::new(inner, identity)
    }

    fn place(&self) -> BoxAddr {
        self.inner().local_addrs().remove(0)
    }

    async fn join(&self, first: &BoxAddr) -> Result<()> {
        let joining = ChordSwarm::join(self, std::slice::from_ref(first))?;
        joining.finish().await.map(drop)
    }
}

/// A node as it was made.
#[derive(Clone)]
struct Place {
    addr: BoxAddr,
    /// Its key is made of this.
    number: u32,
    /// Where the first node of its network is, through which it joins.
    first: BoxAddr,
}

/// What a network is on, and the node of each id.
struct Medium<F> {
    /// A node of the swarm below with the key of a number: anywhere, or where one was.
    open: F,
    /// Whether addresses below prove ids.
    proves: bool,
    places: Mutex<HashMap<PeerId, Place>>,
}

impl<F: Fn(Option<BoxAddr>, u32) -> Result<Inner>> Medium<F> {
    fn new(proves: bool, open: F) -> Arc<Self> {
        Arc::new(Self {
            open,
            proves,
            places: Mutex::default(),
        })
    }

    fn node<N: Node>(&self, at: Option<BoxAddr>, number: u32) -> Result<N> {
        let inner = (self.open)(at, number)?;
        if self.proves {
            N::new(inner, Identity::Key(&key(number)))
        } else {
            N::new(inner, Identity::Unproven(id(number)))
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some nodes that joined through the first.
    async fn nodes<N: Node>(&self, count: usize) -> Result<Vec<N>> {
        let mut nodes: Vec<N> = Vec::new();
        for _ in 0..count {
            let number = next();
            let node: N = self.node(None, number)?;
            let first = nodes.first().unwrap_or(&node).place();
            if !nodes.is_empty() {
                node.join(&first).await?;
            }
            let addr = node.place();
            let id = node.local_addrs().remove(0);
            self.lock().insert(id, Place { addr, number, first });
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// The node of an id that is gone.
    async fn again<N: Node>(&self, id: PeerId) -> Result<N> {
        let Place { addr, number, first } = self.lock()[&id].clone();
        let node: N = self.node(Some(addr), number)?;
        node.join(&first).await?;
        Ok(node)
    }
}

fn bed<N: Node, F>(medium: Arc<Medium<F>>, profile: Profile) -> Testbed<PeerId>
where
    F: Fn(Option<BoxAddr>, u32) -> Result<Inner> + Send + Sync + 'static,
{
    let again = medium.clone();
    let nodes = move |count| {
        let medium = medium.clone();
        async move { medium.nodes::<N>(count).await }
    };
    let rebind = move |id: PeerId| {
        let medium = again.clone();
        async move { medium.again::<N>(id).await }
    };
    Testbed::new(SecureAsk, nodes).rebind(rebind).profile(profile)
}

fn key(number: u32) -> PrivateKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

fn next() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Relaxed)
}

fn id(number: u32) -> PeerId {
    let mut bytes = [0x5a; 32];
    // Spread over the whole space.
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    PeerId::new(bytes)
}

/// A lookup of somebody who is gone takes as long as a handshake and a search without an answer.
fn profile() -> Profile {
    Profile {
        holds: 4096,
        ..Profile::default().quick()
    }
    .waive(
        "wire::",
        "the nodes meet by addresses below, and the laws of the wire hold for what is below",
    )
}

/// The kernel drops what its buffers cannot hold, and does not say so to the socket.
fn udp_profile() -> Profile {
    profile().waive(
        "counters::every_drop_is_counted",
        "the kernel drops where its buffer is full, and tells nobody",
    )
}

const MTU: usize = 64 << 10;

fn boxed<A: Addr, S: AskSwarm<A> + SecureSwarm<A>>(inner: S) -> Inner {
    Inner::new(inner.erase())
}

fn sealed<A: Addr, S: Swarm<A>>(inner: S, number: u32) -> Result<Inner> {
    Ok(boxed(inner.p2pke(&key(number))?.asks(MTU)))
}

/// The address of this type that a node has or had.
fn typed<A: Addr>(at: &BoxAddr) -> Result<A> {
    let typed = at.downcast_ref().cloned();
    typed.ok_or_else(|| Error::invalid("address", "it is of another kind of swarm"))
}

/// A small buffer in the kernel, so that a flood need not be large to fill it.
fn udp(at: Option<&BoxAddr>) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    let addr = match at {
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
        Some(at) => typed::<KeyAddr<SocketAddr>>(at)?.addr,
    };
    UdpSwarm::with_config(addr, config)
}

pub(crate) fn memory<N: Node>() -> Testbed<PeerId> {
    let realm = MemoryRealm::default();
    let open = move |at: Option<BoxAddr>, _| {
        Ok(boxed(match at {
            None => realm.open(),
            Some(at) => realm.open_at(typed(&at)?)?,
        }))
    };
    bed::<N, _>(Medium::new(false, open), profile())
}

pub(crate) fn p2pke_on_memory<N: Node>() -> Testbed<PeerId> {
    let realm = MemoryRealm::default();
    let open = move |at: Option<BoxAddr>, number| match at {
        None => sealed(realm.open(), number),
        Some(at) => sealed(realm.open_at(typed::<KeyAddr<_>>(&at)?.addr)?, number),
    };
    bed::<N, _>(Medium::new(true, open), profile())
}

pub(crate) fn p2pke_on_udp<N: Node>() -> Testbed<PeerId> {
    let open = |at: Option<BoxAddr>, number| sealed(udp(at.as_ref())?, number);
    bed::<N, _>(Medium::new(true, open), udp_profile())
}

/// In memory, so that searches for nodes that are gone, which dial them, take no real time.
pub(crate) fn quic_on_memory<N: Node>() -> Testbed<PeerId> {
    let realm = MemoryRealm::default();
    let open = move |at: Option<BoxAddr>, number| {
        let below = match at {
            None => realm.open(),
            Some(at) => realm.open_at(typed::<KeyAddr<_>>(&at)?.addr)?,
        };
        Ok(boxed(QuicSwarm::new(below, &key(number))?))
    };
    // A tell to a node that is gone ends after a search in which each dial of it takes 5 s.
    let profile = Profile {
        patience: Duration::from_mins(1),
        ..profile()
    };
    bed::<N, _>(Medium::new(true, open), profile)
}

pub(crate) fn layers_on_p2pke_on_memory<N: Node>() -> Testbed<PeerId> {
    let nodes = |count| async move {
        let realm = MemoryRealm::default();
        let open = move |_: Option<BoxAddr>, number| sealed(realm.open(), number);
        let nodes = Medium::new(true, open).nodes::<N>(count).await?;
        nodes
            .into_iter()
            .map(|node| BoxSecureSwarm::new(node).fragment(256 << 10).mux().open("x"))
            .collect::<Result<Vec<_>>>()
    };
    let profile = Profile {
        holds: 8192,
        ..profile()
    };
    Testbed::new(Secure, nodes).profile(profile)
}
