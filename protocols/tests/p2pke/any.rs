//! Arbitrary packets on the path: no panic, no forged data is delivered, and no state is stuck.

use std::time::Duration;

use p2p_protocols::p2pke::wire::{self, InitHello};
use p2p_protocols::p2pke::{Config, Error};
use proptest::prelude::*;
use proptest::sample::Index;

use super::net::{self, Net};
use super::ops::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    let node = || 0..2u8;
    let at = any::<u16>;
    let changes = proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4);
    let garbage = proptest::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        2 => node().prop_map(Op::Connect),
        1 => (node(), any::<u8>()).prop_map(|(node, id)| Op::ConnectWrongly(node, id)),
        1 => (node(), any::<bool>()).prop_map(|(node, all)| Op::Release(node, all)),
        1 => (node(), any::<u8>()).prop_map(|(node, counter)| Op::Hint(node, counter)),
        4 => node().prop_map(Op::Tell),
        1 => node().prop_map(Op::Rekey),
        12 => at().prop_map(Op::Arrive),
        3 => at().prop_map(Op::Repeat),
        2 => at().prop_map(Op::Lose),
        3 => (at(), node()).prop_map(|(at, node)| Op::Replay(at, node)),
        3 => (at(), node(), changes, any::<u8>())
            .prop_map(|(at, node, changes, cut)| Op::Mangle(at, node, changes, cut)),
        1 => (node(), any::<u8>(), garbage).prop_map(|(node, counter, body)| Op::Garbage(node, counter, body)),
        2 => prop_oneof![0..300u32, 0..20_000u32, Just(200_000)].prop_map(Op::Pass),
        1 => node().prop_map(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_packets_forges_or_replays_data_or_gets_stuck(seed in any::<u64>(),
                                                          ops in proptest::collection::vec(op(), 0..120)) {
        let mut world = World::new(seed);
        for op in ops {
            world.step(op);
        }
        world.finish();
    }

    #[test]
    fn any_bytes_are_a_hello_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = InitHello::parse(&bytes);
        let framed = [&[0; 36][..], &bytes, &(bytes.len() as u16).to_be_bytes()].concat();
        if let Ok(hello) = InitHello::parse(&framed) {
            prop_assert!(hello.key.len() + hello.signature.len() <= bytes.len());
        }
        let _ = wire::counter(&bytes);
    }

    #[test]
    fn a_modified_hello_opens_no_session(changes in proptest::collection::vec((any::<Index>(), 1..255u8), 1..4),
                                                    cut in 0..40usize) {
        let mut net = Net::new(2, 1, &Config::default());
        let mut hello = net::hello_of(&mut net, 0, 1);
        let original = hello.clone();
        for (at, byte) in changes {
            let at = at.index(hello.len());
            hello[at] ^= byte;
        }
        hello.truncate(hello.len() - cut);
        let _ = net.deliver(0, 1, &hello);
        // In any state, the correct message works and the answer goes to the right node.
        net.now += Duration::from_secs(1);
        let verdict = net.deliver(0, 1, &original);
        prop_assert!(matches!(verdict, Ok(None) | Err(Error::Superseded)), "{:?}", verdict);
        prop_assert!(net.nodes[1].endpoint.path(&0).is_none());
    }
}
