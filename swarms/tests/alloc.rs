//! A layer that only adds a header neither copies nor allocates, as a counting allocator shows.
//!
//! The file has one test, so that no other code allocates meanwhile.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use p2p::{Headroom, Packet, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{MemoryRealm, SwarmExt as _};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Sends one packet back and forth; returns the allocated bytes and the address of its payload at each step.
async fn bytes_allocated<A: p2p::Addr>(
    a: &impl Swarm<A>,
    b: &impl Swarm<A>,
    rounds: usize,
) -> (usize, usize) {
    let to = b.local_addrs().remove(0);
    let mut packet = Packet::new(Headroom::new(64, 64), &[7; 64]);
    let (at, before) = (packet.as_ptr().addr(), ALLOCATOR.total_allocated());
    let mut moved = 0;
    for _ in 0..rounds {
        a.tell(&to, packet).await.expect("it fits");
        let mut message = b.receive().await.expect("open");
        moved += usize::from(message.payload.as_ptr().addr() != at);
        b.tell(&message.src, message.payload).await.expect("it fits");
        message = a.receive().await.expect("open");
        moved += usize::from(message.payload.as_ptr().addr() != at);
        packet = message.payload;
    }
    (ALLOCATOR.total_allocated() - before, moved)
}

/// Exchanges messages between two nodes, and checks that nothing is allocated after the first ones.
async fn nothing_is_allocated<A: p2p::Addr, S: Swarm<A>>(layers: &str, mut open: impl FnMut() -> S) {
    let (a, b) = (open(), open());
    // The first messages fill buffers that are kept, here and in tokio. The first wait of a task allocates as
    // well: that of the background, once no caller returns.
    bytes_allocated(&a, &b, 1000).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    bytes_allocated(&a, &b, 1000).await;
    assert_eq!(bytes_allocated(&a, &b, 1000).await, (0, 0), "{layers}");
}

fn main() {
    layers_neither_allocate_nor_copy_for_a_packet_with_room();
}

fn layers_neither_allocate_nor_copy_for_a_packet_with_room() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let realm = MemoryRealm::default();
        let [a, b] = [realm.open(), realm.open()];
        bytes_allocated(&a, &b, 1000).await;
        let bare = bytes_allocated(&a, &b, 1000).await;
        assert_eq!(
            bare,
            (0, 0),
            "allocations of the memory swarm would hide those of layers"
        );

        nothing_is_allocated("mux", || realm.open().mux().open("channel").expect("new")).await;
        nothing_is_allocated("frag/mux16", || {
            let mux = realm.open().fragment(9000).mux_by::<u16>();
            mux.open(1_u16).expect("new")
        })
        .await;
        println!("name=mux_alloc value=0 unit=bytes/message");

        let mut seed = 0;
        nothing_is_allocated("p2pke", || {
            seed += 1;
            let key = PrivateKey::ed25519(&[seed; 32]);
            realm.open().p2pke(&key).expect("a node")
        })
        .await;
        println!("name=p2pke_alloc value=0 unit=bytes/message");
    });
}
