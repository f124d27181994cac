//! Any bytes are served, refused or processed as an answer, and the node stays within its limits.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use p2p::PeerId;
use p2p_protocols::chord::{Config, Engine, Rules};

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (as_request, bytes) = input;
    let parse = |text: &str| text.parse::<PeerId>().ok();
    let valid = |_: &PeerId, value: &[u8]| !value.is_empty();
    let rules = Arc::new(Rules::new(Config::default(), parse, valid));
    let (now, from) = (Duration::ZERO, PeerId::new([1; 32]));
    let mut engine = Engine::new(PeerId::ZERO, rules, now, 0);
    if as_request {
        // The second time, it may find state of the first.
        for _ in 0..2 {
            let _ = engine.handle_request(now, &from, &bytes);
        }
    } else {
        engine.join(now, &[from]).expect("room");
        for round in 0..64 {
            let Some(transmit) = engine.poll_transmit() else {
                break;
            };
            engine.handle_answer(now, transmit.id, &bytes);
            if round == 8 {
                engine.lookup(now, from).expect("room");
                engine.get(now, from).expect("room");
                engine
                    .put(now, from, b"value", Duration::from_secs(1))
                    .expect("room");
            }
        }
    }
    assert!(engine.successors().len() <= 20 && engine.stored().0 <= 300 && engine.in_flight() <= 100);
});
