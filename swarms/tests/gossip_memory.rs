//! RPCs that hold many times their encoded length once parsed are not parsed all at once, as a counting
//! allocator shows.
//!
//! The file has one test, so that no other code allocates meanwhile.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use p2p::{Packet, Swarm as _};
use p2p_swarms::gossipsub::Signing;
use p2p_swarms::{GossipSwarm, MemoryRealm};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(a_batch_of_short_messages_is_read_within_bounded_memory());
}

async fn a_batch_of_short_messages_is_read_within_bounded_memory() {
    let realm = MemoryRealm::default();
    let (inner, stranger) = (realm.open(), realm.open());
    let to = inner.local_addr();
    let node = GossipSwarm::new(inner, Signing::StrictNoSign).expect("a node");
    node.subscribe("t").expect("a topic");
    // 4,000 messages with a topic each and no data.
    let rpc = b"\x12\x03\x22\x01t".repeat(4000);
    let mut batch: Vec<_> = (0..64).map(|_| (to, Packet::from(rpc.as_slice()))).collect();
    stranger.tell_batch(&mut batch).await.expect("there is room");
    let before = (ALLOCATOR.allocated(), node.counts().rpcs);
    while node.counts().rpcs < before.1 + 64 {
        drop(tokio::time::timeout(Duration::from_millis(5), node.receive()).await);
    }
    let most = ALLOCATOR.max_allocated() - before.0;
    println!("64 RPCs of 20 kB held at most {most} additional bytes while they were parsed");
    assert!(most < 12 << 20, "{most} bytes");
}
