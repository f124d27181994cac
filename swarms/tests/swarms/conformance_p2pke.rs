//! The laws of swarms for P2PKE: in memory, on UDP, on a bad medium, on a wire under attack, on fragments,
//! and with asks on top.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, BoxAddr, BoxSwarm, PeerId, Result, Swarm};
use p2p_formats::x509::{PrivateKey, Registry, shake256};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::{
    Faults, KeyAddr, LinkFaults, MemoryAddr, MemoryRealm, P2pkeSwarm, SwarmExt as _, UdpConfig, UdpSwarm,
};
use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Profile, Secure, SecureAsk, Testbed, conformance, loopback};

const SEED: u64 = 21;

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
            shake256(signer.public_key()) == *id
        };
        let made = (0..self.0.load(Relaxed)).map(Self::nth);
        made.into_iter().find(is_it).expect("made before")
    }
}

fn node<A: Addr, S: Swarm<A>>(inner: S, keys: &Keys) -> P2pkeSwarm<A, S> {
    inner.p2pke(&keys.next()).expect("a node")
}

fn bed<A: Addr>(bed: Testbed<KeyAddr<A>>, profile: Profile) -> Testbed<KeyAddr<A>> {
    bed.profile(profile)
        .forge(|id, place| KeyAddr::new(id.id, place.addr.clone()))
}

/// P2PKE is compiled for memory and UDP, and once more over a type-erased swarm for everything else.
type Boxed = BoxSwarm<BoxAddr>;

fn boxed<A: Addr, S: Swarm<A>>(inner: S) -> Boxed {
    BoxSwarm::new(inner.erase())
}

fn over(open: impl Fn() -> Boxed + Send + Sync + 'static, profile: Profile) -> Testbed<KeyAddr<BoxAddr>> {
    let keys = Keys::default();
    let nodes = move |count| ready(Ok((0..count).map(|_| node(open(), &keys)).collect()));
    bed(Testbed::new(Secure, nodes), profile)
}

/// A lookup of a closed node takes as long as a handshake without a response.
fn profile() -> Profile {
    Profile {
        ask_patience: Duration::from_secs(20),
        holds: 4096,
        ..Profile::default()
    }
}

fn memory() -> Testbed<KeyAddr<MemoryAddr>> {
    let (realm, keys) = (MemoryRealm::default(), Keys::default());
    let (again, old) = (realm.clone(), keys.clone());
    let nodes = move |count| ready(Ok((0..count).map(|_| node(realm.open(), &keys)).collect()));
    bed(Testbed::new(Secure, nodes), profile()).rebind(move |addr: KeyAddr<MemoryAddr>| {
        ready(
            again
                .open_at(addr.addr)
                .and_then(|node| node.p2pke(&old.of(&addr.id))),
        )
    })
}

/// A small kernel buffer, so that a small flood fills it.
fn udp_at(addr: SocketAddr) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    UdpSwarm::with_config(addr, config)
}

fn udp_any(loopback: IpAddr) -> UdpSwarm {
    udp_at(SocketAddr::new(loopback, 0)).expect("a free port")
}

/// The kernel drops messages when its buffers are full, without reporting it to the socket.
fn udp_profile() -> Profile {
    profile().waive(
        "counters::every_drop_is_counted",
        "the kernel drops messages when its buffer is full, without reporting it",
    )
}

fn udp() -> Testbed<KeyAddr<SocketAddr>> {
    let keys = Keys::default();
    let old = keys.clone();
    let loopback = loopback();
    let nodes = move |count| ready(Ok((0..count).map(|_| node(udp_any(loopback), &keys)).collect()));
    bed(Testbed::new(Secure, nodes), udp_profile()).rebind(move |addr: KeyAddr<SocketAddr>| {
        ready(udp_at(addr.addr).and_then(|node| node.p2pke(&old.of(&addr.id))))
    })
}

fn fragments() -> Testbed<KeyAddr<BoxAddr>> {
    let realm = MemoryRealm::new(MemoryConfig {
        mtu: 1232,
        ..MemoryConfig::default()
    });
    over(move || boxed(realm.open().fragment(16 << 10)), profile())
}

/// Loses 30 %, duplicates 20 % and reorders.
fn bad(mtu: usize) -> impl Fn() -> Boxed {
    println!("seed {SEED}");
    let config = FaultyConfig {
        seed: SEED,
        link: LinkFaults {
            loss: 0.3,
            duplicate: 0.2,
            delay: Duration::from_millis(2),
            jitter: Duration::from_millis(2),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("faults in range");
    let realm = MemoryRealm::new(MemoryConfig {
        mtu,
        ..MemoryConfig::default()
    });
    move || boxed(realm.open().faulty(faults.clone()))
}

/// Duplicates made by the medium are not delivered.
fn on_bad(loss: f64) -> Profile {
    Profile {
        patience: Duration::from_mins(1),
        ask_patience: Duration::from_mins(1),
        loss,
        ..Profile::lossy(0.3).quick()
    }
}

fn bad_medium() -> Testbed<KeyAddr<BoxAddr>> {
    over(bad(64 << 10), on_bad(0.3))
}

fn asks_on_bad_medium() -> Testbed<KeyAddr<BoxAddr>> {
    let (open, keys) = (bad(1232), Keys::default());
    let nodes = move |count| ready(Ok((0..count).map(|_| node(open(), &keys).mbapp(4000)).collect()));
    let profile = Profile {
        // Four datagrams.
        loss_at_mtu: 0.77,
        ..on_bad(0.3)
    };
    bed(Testbed::new(SecureAsk, nodes), profile)
}

/// A session ends after 15 s of silence, and a handshake after 15 s more.
fn wire_profile() -> Profile {
    Profile {
        patience: Duration::from_secs(45),
        ..profile().quick()
    }
}

fn wire() -> Testbed<KeyAddr<BoxAddr>> {
    let keys = Keys::default();
    let old = keys.clone();
    let nodes = move |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| node(boxed(tap), &keys));
        ready(Ok(nodes.collect()))
    };
    bed(Testbed::over(Secure, nodes), wire_profile()).restart(Secure, move |tap, addr: KeyAddr<BoxAddr>| {
        ready(boxed(tap).p2pke(&old.of(&addr.id)))
    })
}

fn asks_on_wire() -> Testbed<KeyAddr<BoxAddr>> {
    let keys = Keys::default();
    let old = keys.clone();
    let nodes = move |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| node(boxed(tap), &keys).mbapp(4000));
        ready(Ok(nodes.collect()))
    };
    let again = move |tap, addr: KeyAddr<BoxAddr>| {
        let node = boxed(tap).p2pke(&old.of(&addr.id));
        ready(node.map(|node| node.mbapp(4000)))
    };
    // An ask to a closed node ends after the session and the following handshake have timed out.
    let profile = Profile {
        ask_patience: Duration::from_mins(1),
        ..wire_profile()
    };
    bed(Testbed::over(SecureAsk, nodes), profile).restart(SecureAsk, again)
}

/// Under attack, and lossy as well.
fn lossy_wire() -> Testbed<KeyAddr<BoxAddr>> {
    println!("seed {SEED}");
    let link = LinkFaults {
        loss: 0.2,
        ..LinkFaults::default()
    };
    let config = FaultyConfig {
        seed: SEED,
        link,
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("faults in range");
    let keys = Keys::default();
    let nodes = move |taps: Vec<Tap>| {
        let nodes = taps
            .into_iter()
            .map(|tap| node(boxed(tap.faulty(faults.clone())), &keys));
        ready(Ok(nodes.collect()))
    };
    bed(
        Testbed::over(Secure, nodes),
        Profile {
            patience: Duration::from_mins(1),
            ..on_bad(0.2)
        },
    )
}

conformance!(#[tokio::test(start_paused = true)] mod on_memory: Secure => memory());
conformance!(#[tokio::test] mod on_udp: Secure => udp());
conformance!(#[tokio::test(start_paused = true)] mod on_fragments: Secure => fragments());
conformance!(#[tokio::test(start_paused = true)] mod on_a_bad_medium: Secure => bad_medium());
conformance!(#[tokio::test(start_paused = true)] mod asks_on_a_bad_medium: SecureAsk => asks_on_bad_medium());
conformance!(#[tokio::test(start_paused = true)] mod on_the_wire: Secure => wire());
conformance!(#[tokio::test(start_paused = true)] mod asks_on_the_wire: SecureAsk => asks_on_wire());
conformance!(#[tokio::test(start_paused = true)] mod on_a_lossy_wire: Secure => lossy_wire());
conformance!(#[tokio::test(flavor = "multi_thread", worker_threads = 3)] mod on_udp_with_threads: Secure => udp());
