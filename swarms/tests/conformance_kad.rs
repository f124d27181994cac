//! The laws of swarms on Kademlia: in memory, on P2PKE and on QUIC, and with layers on top.
//!
//! A node that is made again at its old address joins again, as a node that is restarted does.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p::{Addr, AskSwarm, PeerId, Result, SecureSwarm, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{
    AskingSwarm, Identity, KademliaSwarm, KeyAddr, MemoryAddr, MemoryRealm, MemorySwarm, P2pkeSwarm,
    QuicSwarm, SwarmExt as _, UdpConfig, UdpSwarm,
};
use p2p_swarmtest::{Profile, Secure, SecureAsk, Testbed, conformance};

/// A node as it was made.
#[derive(Clone)]
struct Place<A> {
    addr: A,
    /// Its key is made of this.
    number: u32,
    /// Where the first node of its network is, through which it joins.
    first: A,
}

/// The node of each id.
struct Places<A>(Arc<Mutex<HashMap<PeerId, Place<A>>>>);

impl<A> Default for Places<A> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<A> Clone for Places<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Addr> Places<A> {
    /// Joins each node through the first, and remembers them.
    async fn join<S: AskSwarm<A>>(&self, nodes: Vec<(u32, Kad<A, S>)>) -> Result<Vec<Kad<A, S>>> {
        let addr = |node: &Kad<A, S>| node.inner().local_addrs().remove(0);
        let first = nodes.first().map(|(_, node)| addr(node));
        let mut joined = Vec::new();
        for (number, node) in nodes {
            let first = first.clone().unwrap_or_else(|| addr(&node));
            let place = Place {
                addr: addr(&node),
                number,
                first,
            };
            if !joined.is_empty() {
                join(&node, &place.first).await?;
            }
            self.lock().insert(node.id(), place);
            joined.push(node);
        }
        Ok(joined)
    }

    fn of(&self, id: &PeerId) -> Place<A> {
        self.lock()[id].clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Place<A>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn join<A: Addr, S: AskSwarm<A>>(node: &Kad<A, S>, first: &A) -> Result<()> {
    let contacts = node.join(std::slice::from_ref(first))?.finish().await?;
    assert!(contacts > 0, "a node found nobody");
    Ok(())
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

type Kad<A, S> = KademliaSwarm<A, S>;

/// A lookup of somebody who is gone takes as long as a handshake and a search without an answer.
fn profile() -> Profile {
    Profile {
        holds: 4096,
        ..Profile::default()
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

fn bed<A: Addr, S: AskSwarm<A> + SecureSwarm<A>, F: Future<Output = Result<S>> + Send + 'static>(
    open: impl Fn(u32) -> Result<S> + Send + Sync + 'static,
    reopen: impl Fn(A, u32) -> F + Clone + Send + Sync + 'static,
    profile: Profile,
) -> Testbed<PeerId> {
    let open = Arc::new(open);
    let places = Places::default();
    let known = places.clone();
    Testbed::new(SecureAsk, move |count| {
        let (open, places) = (open.clone(), places.clone());
        async move {
            let node = |_| {
                let number = next();
                let node = KademliaSwarm::new(open(number)?, Identity::Key(&key(number)))?;
                Ok((number, node))
            };
            places.join((0..count).map(node).collect::<Result<_>>()?).await
        }
    })
    .rebind(move |id: PeerId| {
        let Place { addr, number, first } = known.of(&id);
        let inner = reopen(addr, number);
        async move {
            let node = KademliaSwarm::new(inner.await?, Identity::Key(&key(number)))?;
            join(&node, &first).await?;
            Ok(node)
        }
    })
    .profile(profile)
}

fn memory() -> Testbed<PeerId> {
    let (realm, places) = (MemoryRealm::default(), Places::default());
    let (again, known) = (realm.clone(), places.clone());
    let node = |inner: MemorySwarm, id| KademliaSwarm::new(inner, Identity::Unproven(id));
    Testbed::new(SecureAsk, move |count| {
        let (realm, places) = (realm.clone(), places.clone());
        async move {
            let node = |_| {
                let number = next();
                Ok((number, node(realm.open(), id(number))?))
            };
            places.join((0..count).map(node).collect::<Result<_>>()?).await
        }
    })
    .rebind(move |id: PeerId| {
        let Place { addr, first, .. } = known.of(&id);
        let inner = again.open_at(addr);
        async move {
            let node = node(inner?, id)?;
            join(&node, &first).await?;
            Ok(node)
        }
    })
    .profile(profile())
}

const MTU: usize = 64 << 10;

type Sealed<A, S> = AskingSwarm<KeyAddr<A>, P2pkeSwarm<A, S>>;

fn sealed<A: Addr, S: Swarm<A>>(inner: S, number: u32) -> Result<Sealed<A, S>> {
    Ok(inner.p2pke(&key(number))?.asks(MTU))
}

/// A small buffer in the kernel, so that a flood need not be large to fill it.
fn udp_at(addr: SocketAddr) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    UdpSwarm::with_config(addr, config)
}

fn udp_any() -> Result<UdpSwarm> {
    udp_at(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn p2pke_on_udp() -> Testbed<PeerId> {
    bed(
        |number| sealed(udp_any()?, number),
        |addr: KeyAddr<SocketAddr>, number| async move { sealed(udp_at(addr.addr)?, number) },
        udp_profile(),
    )
}

fn p2pke_on_memory() -> Testbed<PeerId> {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    bed(
        move |number| sealed(realm.open(), number),
        move |addr: KeyAddr<MemoryAddr>, number| {
            let inner = again.open_at(addr.addr);
            async move { sealed(inner?, number) }
        },
        profile(),
    )
}

fn quic_on_udp() -> Testbed<PeerId> {
    bed(
        |number| QuicSwarm::new(udp_any()?, &key(number)),
        |addr: KeyAddr<SocketAddr>, number| async move { QuicSwarm::new(udp_at(addr.addr)?, &key(number)) },
        udp_profile(),
    )
}

fn layers_on_kad_on_udp() -> Testbed<PeerId> {
    let nodes = |count| async move {
        let node = |_| {
            let number = next();
            let node = KademliaSwarm::new(sealed(udp_any()?, number)?, Identity::Key(&key(number)))?;
            Ok((number, node))
        };
        let nodes = (0..count).map(node).collect::<Result<_>>()?;
        let nodes = Places::default().join(nodes).await?;
        nodes
            .into_iter()
            .map(|node| node.fragment(256 << 10).mux().open("x"))
            .collect::<Result<Vec<_>>>()
    };
    let profile = Profile {
        holds: 8192,
        limit: Duration::from_mins(3),
        ..udp_profile()
    };
    Testbed::new(Secure, nodes).profile(profile)
}

conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => memory());
conformance!(#[tokio::test] mod on_memory_in_real_time: SecureAsk => memory());
conformance!(#[tokio::test(start_paused = true)] mod on_p2pke_on_memory: SecureAsk => p2pke_on_memory());
conformance!(#[tokio::test] mod on_p2pke_on_udp: SecureAsk => p2pke_on_udp());
conformance!(#[tokio::test] mod on_quic_on_udp: SecureAsk => quic_on_udp());
conformance!(#[tokio::test] mod layers_on_p2pke_on_udp: Secure => layers_on_kad_on_udp());
