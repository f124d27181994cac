//! The laws of a swarm, on the bases and on a layer over each.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};

use p2p::Result;
use p2p_swarms::fragment::FragmentSwarm;
use p2p_swarms::{MemoryAddr, MemoryRealm, Mux, UdpConfig, UdpSwarm};
use p2p_swarmtest::{Law, Plain, Profile, SecureAsk, Testbed, Verdict, conformance, loopback};

/// The kernel drops messages when its buffers are full, without reporting it to the socket.
const UNCOUNTED: [&str; 2] = [
    "counters::every_drop_is_counted",
    "the kernel drops messages when its buffer is full, without reporting it",
];

/// The memory swarm has keys only for the tests of layers above it.
const NO_WIRE: [&str; 2] = ["wire::", "messages move between nodes in memory, without a wire"];

fn without_wire() -> Profile {
    let [laws, why] = NO_WIRE;
    Profile::default().waive(laws, why)
}

fn memory() -> Testbed<MemoryAddr> {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count).map(|_| realm.open()).collect()))
    })
    .rebind(move |addr| ready(again.open_at(addr)))
    .profile(without_wire())
}

/// A small kernel buffer, so that a small flood fills it.
fn bind(addr: SocketAddr) -> Result<UdpSwarm> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    UdpSwarm::with_config(addr, config)
}

fn bind_many(loopback: IpAddr, count: usize) -> Result<Vec<UdpSwarm>> {
    (0..count).map(|_| bind(SocketAddr::new(loopback, 0))).collect()
}

fn profile() -> Profile {
    let quick = Profile {
        holds: 2048,
        ..Profile::default()
    };
    let [law, why] = UNCOUNTED;
    quick.waive(law, why)
}

fn udp() -> Testbed<SocketAddr> {
    let loopback = loopback();
    Testbed::new(Plain, move |count| ready(bind_many(loopback, count)))
        .profile(profile())
        .rebind(|addr| ready(bind(addr)))
}

/// The path of systems whose kernel does not split batches: each datagram is sent by a call of its own.
fn udp_without_segmentation() -> Testbed<SocketAddr> {
    let bind = |addr| {
        let mut config = UdpConfig::default();
        (config.receive_buffer, config.segmentation) = (256 << 10, false);
        UdpSwarm::with_config(addr, config)
    };
    let loopback = loopback();
    Testbed::new(Plain, move |count| {
        let addr = SocketAddr::new(loopback, 0);
        ready((0..count).map(|_| bind(addr)).collect())
    })
    .profile(profile().quick())
    .rebind(move |addr| ready(bind(addr)))
}

fn fragments_over_udp() -> Testbed<SocketAddr> {
    let loopback = loopback();
    let layer = |swarm| FragmentSwarm::new(swarm, 16 << 10);
    Testbed::new(Plain, move |count| {
        ready(bind_many(loopback, count).map(|made| made.into_iter().map(layer).collect()))
    })
    .profile(profile())
}

#[tokio::test]
async fn a_full_channel_over_udp_stalls_no_other() {
    let channel = |mux: &Mux<_, _>, name| mux.open(name).expect("a new channel");
    let loopback = loopback();
    let bed = udp().beside(move |count| {
        let made = bind_many(loopback, count).map(|made| {
            let muxes = made.into_iter().map(Mux::<_, _>::new);
            let pairs = muxes.map(|mux| (channel(&mux, "chat"), channel(&mux, "files")));
            pairs.collect()
        });
        ready(made)
    });
    let law = Law::named("tell::a_full_sibling_stalls_nothing").expect("a law of the list");
    let checked = bed.check(law).await;
    assert_eq!(checked.verdict, Verdict::Passed, "{checked}");
}

conformance!(#[tokio::test(start_paused = true)] mod memory: SecureAsk => memory());
conformance!(#[tokio::test] mod memory_in_real_time: SecureAsk => memory());
conformance!(#[tokio::test] mod udp: Plain => udp());
conformance!(#[tokio::test] mod fragments_over_udp: Plain => fragments_over_udp());
conformance!(#[tokio::test] mod udp_without_segmentation: Plain => udp_without_segmentation());
