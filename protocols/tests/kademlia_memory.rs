//! The memory of a node in a network, with all its state.

use std::alloc::System;

use cap::Cap;
use p2p_protocols::kademlia::Config;

use net::Net;

#[path = "kademlia/net.rs"]
mod net;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// The only test in this file, so that no other test allocates at the same time.
#[test]
fn a_node_takes_less_than_64_kib() {
    let before = MEMORY.allocated();
    let net = Net::joined(15, 400, &Config::default());
    let each = (MEMORY.allocated() - before) / net.live.len();
    println!("{each} bytes a node");
    assert!(each < 64 << 10, "{each} bytes");
}
