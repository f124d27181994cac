//! Any sequence of steps of a gossipsub engine among a few peers: the invariants of meshes hold, nothing is
//! delivered twice, direct messages are for this node only, backoffs are honoured, and all state is bounded.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/gossipsub/net.rs"]
mod net;
#[path = "../../protocols/tests/gossipsub/ops.rs"]
mod ops;

use libfuzzer_sys::fuzz_target;
use ops::{Op, World};
use p2p_fuzz::Steps;

fuzz_target!(|steps: Steps<Op>| {
    let mut world = World::new(steps.seed);
    for step in steps.steps.into_iter().take(1000) {
        world.step(step);
    }
});
