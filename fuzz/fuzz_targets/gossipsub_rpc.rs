//! Any bytes are an error or an RPC within the limits that round-trips, as are its messages; a node that
//! receives them stays within its limits, with and without hellos and direct messages.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/gossipsub/net.rs"]
mod net;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use net::{Node, alone, ms, signing};
use p2p_protocols::gossipsub::wire::{Limits, Message, Rpc};
use p2p_protocols::gossipsub::{Config, Event, Signing};
use prost::Message as _;

fuzz_target!(|input: (bool, bool, Vec<u8>)| {
    let (signed, direct, bytes) = (input.0, input.1, Bytes::from(input.2));
    let limits = Limits::default();
    if let Ok(rpc) = Rpc::parse(&bytes, &limits) {
        let written = rpc.emit();
        assert_eq!(Rpc::parse(&written, &limits).as_ref(), Ok(&rpc));
        assert!(rpc.publish.len() + rpc.direct.len() <= limits.messages);
        assert!(rpc.subscriptions.len() <= limits.subscriptions);
        for message in rpc.publish.iter().chain(&rpc.direct) {
            if let Ok(parsed) = Message::parse(message, &limits) {
                let written = parsed.encode_to_vec().into();
                assert_eq!(Message::parse(&written, &limits), Ok(parsed));
            }
        }
    }
    let signing = if signed { signing(0) } else { Signing::StrictNoSign };
    let config = Config {
        direct,
        ..Config::default()
    };
    let mut engine = alone(config, signing, 3);
    engine.handle_rpc(ms(0), &Node(1), &bytes);
    while let Some(event) = engine.poll_event() {
        let is_direct = matches!(
            event,
            Event::Direct(_) | Event::Introduced { .. } | Event::Left { .. }
        );
        assert!(direct || !is_direct);
    }
    while let Some(transmit) = engine.poll_transmit(ms(0)) {
        let rpc = Rpc::parse(&transmit.rpc, &limits).expect("an RPC");
        assert!(rpc.direct.is_empty() && (direct || rpc.hello.is_none()));
    }
    assert!(engine.mesh("t").count() <= 3 && engine.kept().topics <= engine.config().max_topics_per_peer + 1);
});
