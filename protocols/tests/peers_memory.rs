//! The memory of a peer store is at most the bytes that it charges, and what it charges is bounded.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use p2p_protocols::peers::{Config, PeerStore, Source};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const NOW: Duration = Duration::from_secs(1);

/// A peer's key of 32 bytes.
fn key(number: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key
}

/// An address on the heap, as libp2p's are.
fn addr(number: u32, len: usize) -> Box<[u8]> {
    let mut addr = vec![7; len.max(4)];
    addr[..4].copy_from_slice(&number.to_le_bytes());
    addr.into()
}

/// The only test in this file, so that no other test allocates at the same time.
#[test]
fn a_store_holds_no_more_than_it_charges_whatever_its_peers_say() {
    // Numbers of addresses and their length, of protocols and their length, and bytes of the other values.
    for shape in [
        (1, 8, 0, 0, 0),
        (100, 30, 0, 0, 0),
        (2, 30, 40, 20, 200),
        (1, 8, 1000, 1, 10),
        (1, 8, 0, 0, 9000),
    ] {
        let (addrs, addr_len, protocols, text, other) = shape;
        let config = Config {
            bytes: 8 << 20,
            ..Config::default()
        };
        let before = MEMORY.allocated();
        let mut store = PeerStore::<_, Box<[u8]>>::new(config, |addr| addr.len() + 16);
        for number in 0..20_000 {
            let peer = key(number);
            let all = (0..addrs).map(|at| addr(at, addr_len));
            store.add_addrs(NOW, &peer, all, Source::Learnt);
            if protocols > 0 {
                let all = (0..protocols).map(|_| "p".repeat(text)).collect();
                let _ = store.set_protocols(NOW, &peer, all);
            }
            if other > 0 {
                let _ = store.set_agent(NOW, &peer, "a".repeat(other));
                let _ = store.set_key(NOW, &peer, &vec![1; other]);
                let _ = store.put_record(NOW, &peer, 1, &vec![1; other], [], Source::Learnt);
            }
        }
        let held = MEMORY.allocated() - before;
        let (peers, charged) = (store.len(), store.bytes());
        println!("{shape:?}: {peers} peers hold {held} bytes, charged {charged}");
        assert!(
            held <= charged,
            "{shape:?}: {peers} peers hold {held} bytes, charged {charged}"
        );
        assert!(charged <= config.bytes);
    }
}
