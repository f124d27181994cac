//! The laws of swarms for the overlays Kademlia and Chord: in memory, on P2PKE and on QUIC, and with layers
//! on top.
//!
//! A node that is restarted at its old address joins again. All but one network run in virtual time, so that
//! timeouts of asks and dials take no real time and a slow machine fails no law. Both overlays share the driver,
//! so only Kademlia also runs on real sockets and the real clock.

mod beds;

use p2p_swarmtest::conformance;

use crate::overlays::node;

mod kad {
    use super::*;

    type Node = node::Kademlia;

    conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_p2pke_on_memory: SecureAsk => beds::p2pke_on_memory::<Node>());
    conformance!(#[tokio::test] mod on_p2pke_on_udp: SecureAsk => beds::p2pke_on_udp::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_quic_on_memory: SecureAsk => beds::quic_on_memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod layers_on_p2pke_on_memory: Secure => beds::layers_on_p2pke_on_memory::<Node>());
}

mod chord {
    use super::*;

    type Node = node::Chord;

    conformance!(#[tokio::test(start_paused = true)] mod on_memory: SecureAsk => beds::memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_p2pke_on_memory: SecureAsk => beds::p2pke_on_memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod on_quic_on_memory: SecureAsk => beds::quic_on_memory::<Node>());
    conformance!(#[tokio::test(start_paused = true)] mod layers_on_p2pke_on_memory: Secure => beds::layers_on_p2pke_on_memory::<Node>());
}
