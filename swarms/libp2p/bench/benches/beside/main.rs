#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! Hosts beside rust-libp2p, and beside quinn used directly.
//!
//! `cargo bench --manifest-path swarms/libp2p/bench/Cargo.toml [-- NAME… rounds=N]`. Both ends are in one runtime, of
//! one thread or of two workers; each side counts with the better of the two. Rounds alternate; each line has the
//! medians, and the ratio is the median of each round's ratio.
//!
//! TLS of all three is by aws-lc-rs, and its key exchange X25519MLKEM768. Ours and quinn take AES-128-GCM; rust-libp2p
//! prefers ChaCha20-Poly1305, which cannot be changed. Noise is ChaCha20-Poly1305: by aws-lc-rs in ours, by ring in
//! rust-libp2p.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use p2p_formats::x509::PrivateKey;

use self::plain::Datagrams;
use self::rounds::{Chosen, GBIT, rate};

mod memory;
mod ours;
mod peer;
#[path = "../../../../benches/secure/plain.rs"]
mod plain;
mod quinn_stream;
#[path = "../../../../benches/secure/rounds.rs"]
mod rounds;

/// The start of a round is not counted: handshakes, and windows that grow.
const WARM_UP: Duration = Duration::from_millis(250);
/// Bytes that a stream of bulk data writes and reads at once.
const CHUNK: usize = 64 << 10;
/// Length of a request and of a response in bytes.
const ASK: usize = 64;

/// How nodes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Quic,
    /// TCP, Noise and yamux.
    Tcp,
}

impl Way {
    fn place(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
    }
}

/// One round with this many workers: its deliveries per second.
type Side = Box<dyn Fn(usize) -> f64>;

/// A name, both sides, and the weight of a delivery.
type Bench = (String, Side, Side, f64);

fn side<F: Future<Output = ()> + Send + 'static>(
    work: impl Fn(Arc<AtomicU64>) -> F + Copy + 'static,
) -> Side {
    Box::new(move |workers| rate(workers, work))
}

fn main() {
    let chosen = Chosen::from_args();
    for (name, ours, peer, unit) in benches() {
        chosen.run(&name, &ours, &peer, unit);
    }
    for (way, name) in [(Way::Quic, "quic_memory"), (Way::Tcp, "tcp_memory")] {
        if chosen.has(name) {
            memory::compare(name, way);
        }
    }
}

fn benches() -> Vec<Bench> {
    let mut benches: Vec<Bench> = Vec::new();
    for (peer, datagrams) in [("quinn", Datagrams::Default), ("quinn_long", Datagrams::Long)] {
        let quinn = || side(move |count| quinn_stream::bulk(datagrams, count));
        benches.push((
            format!("quic_swarm_gbit_{peer}"),
            side(ours::messages),
            quinn(),
            GBIT,
        ));
        let ours = side(ours::bulk_of_chunks);
        benches.push((format!("quic_stream_gbit_{peer}"), ours, quinn(), GBIT));
    }
    for (way, name) in [(Way::Quic, "quic"), (Way::Tcp, "tcp")] {
        benches.push((
            format!("{name}_stream_gbit"),
            side(move |count| ours::bulk(way, count)),
            side(move |count| peer::bulk(way, count)),
            GBIT,
        ));
        for in_flight in [1, 64] {
            benches.push((
                format!("{name}_ask_{in_flight}"),
                side(move |count| ours::asks(way, in_flight, count)),
                side(move |count| peer::asks(way, in_flight, count)),
                1.0,
            ));
        }
        benches.push((
            format!("{name}_stream_ask_1"),
            side(move |count| ours::stream_asks(way, count)),
            side(move |count| peer::stream_asks(way, count)),
            1.0,
        ));
        benches.push((
            format!("{name}_handshakes"),
            side(move |count| ours::handshakes(way, count)),
            side(move |count| peer::handshakes(way, count)),
            1.0,
        ));
    }
    benches
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
