//! The laws of swarms on the memory swarm, bare and on media of different badness.

use std::future::ready;
use std::time::Duration;

use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::{Faults, LinkFaults, MemoryAddr, MemoryRealm, SwarmExt as _};
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance};

const SEED: u64 = 7;

/// The keys of the memory swarm are there for the tests of layers above it.
const NO_WIRE: [&str; 2] = [
    "wire::",
    "messages go from node to node in memory, and there is no wire",
];

fn without_wire(profile: Profile) -> Profile {
    let [laws, why] = NO_WIRE;
    profile.waive(laws, why)
}

fn memory() -> Testbed<MemoryAddr> {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count).map(|_| realm.open()).collect()))
    })
    .rebind(move |addr| ready(again.open_at(addr)))
    .profile(without_wire(Profile::default()))
}

fn faulty(link: LinkFaults, profile: Profile) -> Testbed<MemoryAddr> {
    println!("seed {SEED}");
    let faults = Faults::new(FaultyConfig {
        seed: SEED,
        link,
        ..FaultyConfig::default()
    })
    .expect("faults in range");
    let realm = MemoryRealm::default();
    let (faults_again, again) = (faults.clone(), realm.clone());
    Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count)
            .map(|_| realm.open().faulty(faults.clone()))
            .collect()))
    })
    .rebind(move |addr| ready(again.open_at(addr).map(|node| node.faulty(faults_again.clone()))))
    .profile(without_wire(profile))
}

/// Nothing happens, but the layer is there.
fn harmless() -> Testbed<MemoryAddr> {
    faulty(LinkFaults::default(), Profile::default())
}

/// Late and out of order.
fn late() -> Testbed<MemoryAddr> {
    let link = LinkFaults {
        reorder: 0.1,
        delay: Duration::from_millis(3),
        jitter: Duration::from_millis(5),
        ..LinkFaults::default()
    };
    faulty(link, Profile::default())
}

/// Everything that a network does to packets, short of damage.
fn rough() -> Testbed<MemoryAddr> {
    let link = LinkFaults {
        loss: 0.2,
        duplicate: 0.1,
        reorder: 0.1,
        delay: Duration::from_millis(3),
        jitter: Duration::from_millis(5),
        ..LinkFaults::default()
    };
    let profile = Profile {
        duplicates: true,
        ..Profile::lossy(0.2)
    };
    faulty(link, profile)
}

conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => memory());
conformance!(#[tokio::test(start_paused = true)] mod on_harmless: SecureAsk => harmless());
conformance!(#[tokio::test(start_paused = true)] mod on_late: SecureAsk => late());
conformance!(#[tokio::test(start_paused = true)] mod on_rough: SecureAsk => rough());
