//! The engine's invariants hold for any sequence of inputs.

use crate::ops::{Op, World};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn invariants_hold_after_any_steps(
        seed: u64,
        // Some peers and subscriptions first, because little happens without them.
        peers in vec((Just(2_u8), 0..12_u8, any::<u8>(), any::<u16>()), 4..10),
        steps in vec(any::<Op>(), 0..400),
    ) {
        let mut world = World::new(seed);
        for peer in &peers {
            world.step(*peer);
        }
        for topic in 0..2 {
            world.step((0, 0, topic, 0));
            for peer in &peers {
                world.step((15, peer.1, topic, 0));
            }
        }
        for step in steps {
            world.step(step);
        }
    }
}
