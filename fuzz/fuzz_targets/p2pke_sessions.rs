//! Any sequence of valid, stale, duplicated, reordered and corrupted packets between two nodes: no data is
//! delivered that was not sent, and after valid packets flow again, the nodes can communicate.
#![no_main]
#![forbid(unsafe_code)]

#[path = "../../protocols/tests/p2pke/net.rs"]
mod net;
#[path = "../../protocols/tests/p2pke/ops.rs"]
mod ops;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ops::{Op, World};
use p2p_fuzz::Steps;

/// A step; steps that deliver packets are more frequent.
#[derive(Debug)]
enum Step {
    One(Op),
    /// A number of packets arrive one after another, so that few bytes complete a handshake.
    Flow(u8),
}

impl Arbitrary<'_> for Step {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self::One(match bytes.int_in_range(0..=18)? {
            0 => Op::Connect(bytes.arbitrary()?),
            1 | 2 => Op::Tell(bytes.arbitrary()?),
            3 => Op::Rekey(bytes.arbitrary()?),
            4 => Op::Repeat(bytes.arbitrary()?),
            5 => Op::Lose(bytes.arbitrary()?),
            6 => Op::Replay(bytes.arbitrary()?, bytes.arbitrary()?),
            7 => Op::Mangle(
                bytes.arbitrary()?,
                bytes.arbitrary()?,
                bytes.arbitrary()?,
                bytes.arbitrary()?,
            ),
            8 => Op::Garbage(bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?),
            9 => Op::Pass(u32::from(bytes.arbitrary::<u16>()?)),
            10 => Op::Pass(bytes.int_in_range(0..=250_000)?),
            11 => Op::Restart(bytes.arbitrary()?),
            16 => Op::ConnectWrongly(bytes.arbitrary()?, bytes.arbitrary()?),
            17 => Op::Release(bytes.arbitrary()?, bytes.arbitrary()?),
            18 => Op::Hint(bytes.arbitrary()?, bytes.arbitrary()?),
            12 | 13 => return Ok(Self::Flow(bytes.int_in_range(1..=8)?)),
            _ => Op::Arrive(bytes.arbitrary()?),
        }))
    }
}

fuzz_target!(|steps: Steps<Step>| {
    let mut world = World::new(steps.seed);
    for step in steps.steps.into_iter().take(400) {
        match step {
            Step::One(op) => world.step(op),
            Step::Flow(packets) => (0..packets).for_each(|_| world.step(Op::Arrive(0))),
        }
    }
    world.finish();
});
