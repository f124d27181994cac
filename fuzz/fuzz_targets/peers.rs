//! Any sequence of steps of a peer store: its limits hold, protected and connected peers stay, and addresses expire as a
//! naive model says.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/host/peer_ops.rs"]
mod peer_ops;

use libfuzzer_sys::fuzz_target;
use p2p_fuzz::Steps;
use peer_ops::{Op, World};

fuzz_target!(|steps: Steps<Op>| {
    let mut world = World::new(steps.seed);
    for step in steps.steps.into_iter().take(2000) {
        world.step(step);
    }
});
