//! Any sequence of steps of a connection manager: its limits hold, protected peers are never trimmed, and it agrees with a
//! naive model.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/host/connection_ops.rs"]
mod connection_ops;

use connection_ops::{Op, World};
use libfuzzer_sys::fuzz_target;
use p2p_fuzz::Steps;

fuzz_target!(|steps: Steps<Op>| {
    let mut world = World::new();
    for step in steps.steps.into_iter().take(2000) {
        world.step(step);
    }
});
