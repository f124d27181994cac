//! What a node of a network takes of memory, with all that it knows.

use std::alloc::System;

use cap::Cap;
use p2p_protocols::kademlia::Config;

use net::Net;

#[path = "kademlia/net.rs"]
mod net;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// One test in this file, so that nothing else takes memory meanwhile.
#[test]
fn a_node_takes_less_than_64_kib() {
    let before = MEMORY.allocated();
    let net = Net::joined(15, 400, &Config::default());
    let each = (MEMORY.allocated() - before) / net.live.len();
    println!("{each} bytes a node");
    assert!(each < 64 << 10, "{each} bytes");
}
