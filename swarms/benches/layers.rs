//! What layers cost over the bare base: the latency of a lone round trip, and the goodput of long messages.
//!
//! Both sides are in one thread, and are taken in turn in one run; a figure is the median of the rounds.

use std::time::{Duration, Instant};

use p2p::{Addr, Message, Swarm};
use p2p_swarms::{SwarmExt as _, UdpSwarm};
use tokio::runtime::Builder;

const ROUNDS: usize = 11;

fn udp() -> UdpSwarm {
    UdpSwarm::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port")
}

/// One lone message of 64 bytes there and back, `count` times: the time of one.
async fn round_trips<A: Addr>([a, b]: &[impl Swarm<A>; 2], count: u32) -> Duration {
    let to = b.local_addrs().remove(0);
    let mut packet = a.packet(&[7; 64]);
    let start = Instant::now();
    for _ in 0..count {
        a.tell(&to, packet).await.expect("it fits");
        let there = b.receive().await.expect("open");
        b.tell(&there.src, there.payload).await.expect("it fits");
        packet = a.receive().await.expect("open").payload;
    }
    start.elapsed() / count
}

/// Sends bursts of `burst` fresh messages of `len` bytes, and reads each before the next: bytes a second.
async fn goodput<A: Addr>([a, b]: &[impl Swarm<A>; 2], len: usize, burst: usize, bursts: usize) -> f64 {
    let to = b.local_addrs().remove(0);
    let payload = vec![7; len];
    let mut batch = Vec::new();
    let mut received: Vec<Message<A>> = Vec::new();
    let start = Instant::now();
    for _ in 0..bursts {
        batch.extend((0..burst).map(|_| (to.clone(), a.packet(&payload))));
        a.tell_batch(&mut batch).await.expect("it fits");
        while received.len() < burst {
            b.receive_batch(&mut received, burst).await.expect("open");
        }
        assert!(received.drain(..).all(|message| message.payload.len() == len));
    }
    (bursts * burst * len) as f64 / start.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn latency() {
    let bare = [udp(), udp()];
    let stack = [udp(), udp()].map(|udp| udp.fragment(64 << 10).mux().open("bench").expect("new"));
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peer.push(round_trips(&bare, 20_000).await.as_secs_f64() * 1e6);
        ours.push(round_trips(&stack, 20_000).await.as_secs_f64() * 1e6);
    }
    let (ours, peer) = (median(ours), median(peer));
    println!(
        "name=udp_frag_mux_round_trip ours={ours:.2} peer={peer:.2} ratio={:.2} unit=us added={:.2}",
        ours / peer,
        ours - peer
    );
}

fn throughput() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let bare = [udp(), udp()];
        let stack = [udp(), udp()].map(|udp| udp.fragment(64 << 10));
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            peer.push(goodput(&bare, 1200, 54, 2000).await / 1e6);
            ours.push(goodput(&stack, 64 << 10, 1, 2000).await / 1e6);
        }
        let (ours, peer) = (median(ours), median(peer));
        println!(
            "name=frag_64k_over_udp ours={ours:.0} peer={peer:.0} ratio={:.2} unit=MB/s",
            ours / peer
        );
    });
}

fn main() {
    latency();
    throughput();
}
