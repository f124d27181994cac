//! Networks of either overlay on each medium.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p::{Addr, BoxAddr, BoxSecureSwarm, Error, PeerId, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{Identity, KeyAddr, MemoryRealm, QuicSwarm, SwarmExt as _, UdpConfig, UdpSwarm};
use p2p_swarmtest::{Profile, Secure, SecureAsk, Testbed, loopback};

use crate::overlays::node::{Inner, Node, boxed};

/// A node and how it was created.
#[derive(Clone)]
struct Place {
    addr: BoxAddr,
    /// Its key is derived from this.
    number: u32,
    /// The address of the first node of its network, through which it joins.
    first: BoxAddr,
}

/// The medium of a network, and the node of each id.
struct Medium<F> {
    /// Opens a node of the swarm below with the key of a number, at a new or a given address.
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

    /// Opens nodes that join through the first.
    async fn nodes<N: Node>(&self, count: usize) -> Result<Vec<N>> {
        let mut nodes: Vec<N> = Vec::new();
        for _ in 0..count {
            let number = next();
            let node: N = self.node(None, number)?;
            let first = nodes.first().unwrap_or(&node).place();
            if !nodes.is_empty() {
                node.join(std::slice::from_ref(&first)).await?;
            }
            let addr = node.place();
            let id = node.local_addrs().remove(0);
            self.lock().insert(id, Place { addr, number, first });
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Restarts the closed node with this id.
    async fn again<N: Node>(&self, id: PeerId) -> Result<N> {
        let Place { addr, number, first } = self.lock()[&id].clone();
        let node: N = self.node(Some(addr), number)?;
        node.join(std::slice::from_ref(&first)).await?;
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
    // Distributed over the whole id space.
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    PeerId::new(bytes)
}

/// A lookup of a closed node takes as long as a handshake and a search without a response.
fn profile() -> Profile {
    Profile {
        holds: 4096,
        ..Profile::default().quick()
    }
    .waive(
        "wire::",
        "nodes join by addresses below, and the laws of the wire are tested on the swarm below",
    )
}

/// The kernel drops messages when its buffers are full, without reporting it to the socket.
fn udp_profile() -> Profile {
    profile().waive(
        "counters::every_drop_is_counted",
        "the kernel drops messages when its buffer is full, without reporting it",
    )
}

const MTU: usize = 64 << 10;

fn sealed<A: Addr, S: Swarm<A>>(inner: S, number: u32) -> Result<Inner> {
    Ok(boxed(inner.p2pke(&key(number))?.mbapp(MTU)))
}

/// Returns the typed address that a node has or had.
fn typed<A: Addr>(at: &BoxAddr) -> Result<A> {
    let typed = at.downcast_ref().cloned();
    typed.ok_or_else(|| Error::invalid("address", "the address belongs to another kind of swarm"))
}

/// A small kernel buffer, so that a small flood fills it.
fn udp(loopback: IpAddr, at: Option<&BoxAddr>) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    let addr = match at {
        None => SocketAddr::new(loopback, 0),
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
    let loopback = loopback();
    let open = move |at: Option<BoxAddr>, number| sealed(udp(loopback, at.as_ref())?, number);
    bed::<N, _>(Medium::new(true, open), udp_profile())
}

/// In memory, so that lookups of closed nodes, which dial them, take no real time.
pub(crate) fn quic_on_memory<N: Node>() -> Testbed<PeerId> {
    let realm = MemoryRealm::default();
    let open = move |at: Option<BoxAddr>, number| {
        let below = match at {
            None => realm.open(),
            Some(at) => realm.open_at(typed::<KeyAddr<_>>(&at)?.addr)?,
        };
        Ok(boxed(QuicSwarm::new(below, &key(number))?))
    };
    // A tell to a closed node ends after a lookup in which each dial takes 5 s.
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
