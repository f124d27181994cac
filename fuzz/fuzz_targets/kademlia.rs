//! Any bytes are served, refused or processed as an answer, and the node stays within its limits.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use p2p::PeerId;
use p2p_fuzz::requests::{SENDER, feed};
use p2p_protocols::kademlia::{Config, Engine, Rules};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (as_request, bytes) = input;
    let parse = |text: &str| text.parse::<PeerId>().ok();
    let valid = |_: &PeerId, value: &[u8]| !value.is_empty();
    let rules = Arc::new(Rules::new(Config::default(), parse, valid));
    let mut engine = Engine::new(PeerId::ZERO, rules, Duration::ZERO, 0);
    feed(&mut engine, as_request, &bytes, |engine, answers| {
        let now = Duration::ZERO;
        if answers > 0 {
            return;
        }
        let ops = [
            engine.find_node(now, SENDER),
            engine.locate(now, SENDER),
            engine.get(now, SENDER),
            engine.providers(now, SENDER),
        ];
        assert!(ops.iter().all(Result::is_ok), "there is room: {ops:?}");
        engine.join(now, &[SENDER]).expect("room");
    });
    assert!(engine.stored().0 <= 1 && engine.kept_providers().1 <= 1 && engine.in_flight() <= 256);
});
