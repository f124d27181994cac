//! Any bytes are an error or a message of `/ipfs/kad/1.0.0` within the limits, which is written and read again.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_protocols::kademlia::libp2p::{MAX_ADDR, MAX_ADDRS, MAX_ID, MAX_KEY, MAX_PEERS, Message};

fuzz_target!(|bytes: &[u8]| {
    let Ok(received) = Message::read(bytes) else {
        return;
    };
    let message = received.message;
    assert!(message.key.len() <= MAX_KEY);
    assert!(message.record.is_none_or(|record| record.key.len() <= MAX_KEY));
    for peers in [&message.closer_peers, &message.provider_peers] {
        assert!(peers.len() <= MAX_PEERS);
        for peer in peers {
            assert!(peer.id.len() <= MAX_ID && peer.addrs.len() <= MAX_ADDRS);
            assert!(peer.addrs.iter().all(|addr| addr.len() <= MAX_ADDR));
        }
    }
    let written = message.write();
    assert!(written.len() <= message.encoded_len());
    let again = Message::read(&written).expect("this side wrote it");
    assert_eq!(again.message, message);
    assert_eq!((again.ignored_peers, again.ignored_addrs), (0, 0));
});
