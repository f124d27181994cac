//! Any sequence of steps of a dialer: each dial has one result, and its limits hold.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/host/dial_ops.rs"]
mod dial_ops;

use dial_ops::{Op, World};
use libfuzzer_sys::fuzz_target;
use p2p_fuzz::Steps;

fuzz_target!(|steps: Steps<Op>| {
    let mut world = World::new(steps.seed);
    for step in steps.steps.into_iter().take(2000) {
        world.step(step);
    }
    world.finish();
});
