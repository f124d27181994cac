//! The laws of swarms for QUIC: on UDP, in memory, on a bad medium, on a wire under attack, on a mux channel,
//! on fragments, on P2PKE, and on QUIC itself.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, BoxAddr, BoxSwarm, PeerId, Result, Swarm};
use p2p_formats::x509::{PrivateKey, Registry, sha3_256};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::quic::QuicConfig;
use p2p_swarms::{Faults, KeyAddr, LinkFaults, MemoryAddr, MemoryRealm, QuicSwarm, SwarmExt as _, UdpSwarm};
use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance, loopback};

const SEED: u64 = 7;

/// Creates a key for each node, and finds it by the node's id.
#[derive(Clone, Default)]
struct Keys(Arc<AtomicU32>);

impl Keys {
    fn nth(seed: u32) -> PrivateKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        PrivateKey::ed25519(&bytes)
    }

    fn next(&self) -> PrivateKey {
        Self::nth(self.0.fetch_add(1, Relaxed))
    }

    fn of(&self, id: &PeerId) -> PrivateKey {
        let is_it = |key: &PrivateKey| {
            let signer = Registry::default().signer(key).expect("a good key");
            sha3_256(signer.public_key()) == *id
        };
        let made = (0..self.0.load(Relaxed)).map(Self::nth);
        made.into_iter().find(is_it).expect("made before")
    }
}

fn config() -> QuicConfig {
    QuicConfig {
        ask_timeout: Duration::from_secs(5),
        ..QuicConfig::default()
    }
}

fn profile() -> Profile {
    Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        ask_patience: Duration::from_secs(40),
        holds: 1024 + 256,
        asks: 1024 + 256,
        ..Profile::default().quick()
    }
}

/// QUIC is compiled for UDP and memory, and once more over a type-erased swarm for everything else.
type Boxed = BoxSwarm<BoxAddr>;

fn boxed<A: Addr, S: Swarm<A>>(inner: S) -> Boxed {
    BoxSwarm::new(inner.erase())
}

fn over(open: impl Fn() -> Boxed + Send + Sync + 'static) -> Testbed<KeyAddr<BoxAddr>> {
    let keys = Keys::default();
    let nodes = move |count| {
        let nodes = (0..count).map(|_| QuicSwarm::with_config(open(), &keys.next(), config()));
        ready(nodes.collect::<Result<Vec<_>>>())
    };
    bed(Testbed::new(SecureAsk, nodes))
}

fn bed<A: Addr>(bed: Testbed<KeyAddr<A>>) -> Testbed<KeyAddr<A>> {
    bed.profile(profile())
        .forge(|id, place| KeyAddr::new(id.id, place.addr.clone()))
}

fn memory() -> Testbed<KeyAddr<MemoryAddr>> {
    let (realm, keys) = (MemoryRealm::default(), Keys::default());
    let (again, old) = (realm.clone(), keys.clone());
    let nodes = move |count| {
        let nodes = (0..count).map(|_| QuicSwarm::with_config(realm.open(), &keys.next(), config()));
        ready(nodes.collect::<Result<Vec<_>>>())
    };
    let rebind = move |addr: KeyAddr<MemoryAddr>| {
        let place = again.open_at(addr.addr);
        ready(place.and_then(|place| QuicSwarm::with_config(place, &old.of(&addr.id), config())))
    };
    bed(Testbed::new(SecureAsk, nodes).rebind(rebind))
}

/// Loses, duplicates and reorders; QUIC repairs all of it.
fn bad_medium() -> Testbed<KeyAddr<BoxAddr>> {
    println!("seed {SEED}");
    let config = FaultyConfig {
        seed: SEED,
        link: LinkFaults {
            loss: 0.05,
            duplicate: 0.1,
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(2),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("faults in range");
    let realm = MemoryRealm::default();
    over(move || boxed(realm.open().faulty(faults.clone())))
}

fn mux() -> Testbed<KeyAddr<BoxAddr>> {
    let realm = MemoryRealm::default();
    over(move || boxed(realm.open().mux().open("quic").expect("a new channel")))
}

fn quic() -> Testbed<KeyAddr<BoxAddr>> {
    let (realm, keys) = (MemoryRealm::default(), Keys::default());
    over(move || boxed(QuicSwarm::with_config(realm.open(), &keys.next(), config()).expect("a node")))
}

fn wire() -> Testbed<KeyAddr<BoxAddr>> {
    let keys = Keys::default();
    let old = keys.clone();
    let nodes = move |taps: Vec<Tap>| {
        let nodes = taps.into_iter();
        let nodes = nodes.map(|tap| QuicSwarm::with_config(boxed(tap), &keys.next(), config()));
        ready(nodes.collect::<Result<Vec<_>>>())
    };
    let again = move |tap, addr: KeyAddr<BoxAddr>| {
        ready(QuicSwarm::with_config(boxed(tap), &old.of(&addr.id), config()))
    };
    bed(Testbed::over(SecureAsk, nodes)).restart(SecureAsk, again)
}

fn fragments_on_quic() -> Testbed<KeyAddr<BoxAddr>> {
    let (realm, keys) = (MemoryRealm::default(), Keys::default());
    over(move || {
        let quic = QuicSwarm::with_config(realm.open(), &keys.next(), config()).expect("a node");
        boxed(quic.fragment(2 << 20))
    })
}

fn p2pke() -> Testbed<KeyAddr<BoxAddr>> {
    let (realm, keys) = (MemoryRealm::default(), Keys::default());
    over(move || boxed(realm.open().p2pke(&keys.next()).expect("a node")))
}

/// On a swarm over UDP, not on a socket of QUIC's own.
fn udp_swarm() -> Testbed<KeyAddr<BoxAddr>> {
    let loopback = loopback();
    over(move || boxed(UdpSwarm::bind(SocketAddr::new(loopback, 0)).expect("a free port")))
}

fn udp() -> Testbed<KeyAddr<SocketAddr>> {
    let keys = Keys::default();
    let loopback = SocketAddr::new(loopback(), 0);
    let again = keys.clone();
    let nodes = move |count| {
        let nodes = (0..count).map(|_| QuicSwarm::bind_udp_with(loopback, &keys.next(), config()));
        ready(nodes.collect::<Result<Vec<_>>>())
    };
    let rebind = move |addr: KeyAddr<SocketAddr>| {
        ready(QuicSwarm::bind_udp_with(addr.addr, &again.of(&addr.id), config()))
    };
    bed(Testbed::new(SecureAsk, nodes).rebind(rebind))
}

// Tests without a real socket run in virtual time, and so at the same speed on every machine.
conformance!(#[tokio::test] mod on_udp: SecureAsk => udp());
conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => memory());
conformance!(#[tokio::test(start_paused = true)] mod on_the_wire: SecureAsk => wire());
conformance!(#[tokio::test(start_paused = true)] mod on_mux: SecureAsk => mux());
conformance!(#[tokio::test(start_paused = true)] mod on_quic: SecureAsk => quic());
conformance!(#[tokio::test(start_paused = true)] mod on_fragments_on_quic: SecureAsk => fragments_on_quic());
conformance!(#[tokio::test(start_paused = true)] mod on_p2pke: SecureAsk => p2pke());
conformance!(#[tokio::test] mod on_a_udp_swarm: SecureAsk => udp_swarm());
conformance!(#[tokio::test(start_paused = true)] mod on_a_bad_medium: SecureAsk => bad_medium());
