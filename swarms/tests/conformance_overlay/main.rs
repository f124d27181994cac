//! The laws of swarms on overlays, Kademlia and Chord: in memory, on P2PKE and on QUIC, and with layers on top.
//!
//! A node that is made again at its old address joins again, as a node that is restarted does.

mod beds;

use p2p_swarmtest::conformance;

mod kad {
    use super::*;

    type Node = p2p_swarms::KademliaSwarm<p2p::BoxAddr, beds::Inner>;

    conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test] mod on_memory_in_real_time: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_p2pke_on_memory: SecureAsk => beds::p2pke_on_memory::<Node>());
    conformance!(#[tokio::test] mod on_p2pke_on_udp: SecureAsk => beds::p2pke_on_udp::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_quic_on_memory: SecureAsk => beds::quic_on_memory::<Node>());
    conformance!(#[tokio::test] mod layers_on_p2pke_on_udp: Secure => beds::layers_on_p2pke_on_udp::<Node>());
}

mod chord {
    use super::*;

    type Node = p2p_swarms::ChordSwarm<p2p::BoxAddr, beds::Inner>;

    conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test] mod on_memory_in_real_time: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test] mod on_p2pke_on_udp: SecureAsk => beds::p2pke_on_udp::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_quic_on_memory: SecureAsk => beds::quic_on_memory::<Node>());
    conformance!(#[tokio::test] mod layers_on_p2pke_on_udp: Secure => beds::layers_on_p2pke_on_udp::<Node>());
}
