//! Whatever happens to packets on the way: no panic, nothing read that was not said, and no stuck state.

#[path = "p2pke/net.rs"]
mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use net::{Net, millis, secs};
use p2p_protocols::p2pke::wire::{self, InitHello};
use p2p_protocols::p2pke::{Config, Error};
use proptest::prelude::*;
use proptest::sample::Index;

/// What may happen to two nodes and to what is between them.
#[derive(Clone, Debug)]
enum Op {
    Connect(u32),
    Tell(u32),
    Renew(u32),
    /// The packet at this place of the queue arrives.
    Arrive(Index),
    /// It arrives, and stays on its way.
    Repeat(Index),
    Lose(Index),
    /// A packet of any time arrives at a node, as if from the other.
    Replay(Index, u32),
    /// So it does with some bytes changed, and perhaps cut.
    Mangle(Index, u32, Vec<(Index, u8)>, Index),
    /// So do any bytes.
    Garbage(u32, Vec<u8>),
    Pass(u32),
    Restart(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let node = || 0..2u32;
    let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4);
    let garbage = (0..20u32, proptest::collection::vec(any::<u8>(), 0..60))
        .prop_map(|(counter, body)| [&counter.to_be_bytes()[..], &body].concat());
    prop_oneof![
        2 => node().prop_map(Op::Connect),
        4 => node().prop_map(Op::Tell),
        1 => node().prop_map(Op::Renew),
        12 => any::<Index>().prop_map(Op::Arrive),
        3 => any::<Index>().prop_map(Op::Repeat),
        2 => any::<Index>().prop_map(Op::Lose),
        3 => (any::<Index>(), node()).prop_map(|(at, node)| Op::Replay(at, node)),
        3 => (any::<Index>(), node(), changes, any::<Index>())
            .prop_map(|(at, node, changes, cut)| Op::Mangle(at, node, changes, cut)),
        1 => (node(), garbage).prop_map(|(node, bytes)| Op::Garbage(node, bytes)),
        2 => prop_oneof![0..300u32, 0..20_000u32, Just(200_000)].prop_map(Op::Pass),
        1 => node().prop_map(Op::Restart),
    ]
}

/// Delivers and checks what comes out: it was said, by the other one, and was not read before.
fn deliver(net: &mut Net, said: &mut [BTreeSet<Vec<u8>>; 2], from: u32, to: u32, bytes: &[u8]) {
    if let Ok(Some(data)) = net.deliver(from, to, bytes) {
        assert!(
            said[from as usize].remove(&data),
            "{data:?} was not said, or was read before"
        );
    }
    net.collect();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_packets_forges_repeats_or_gets_stuck(seed in any::<u64>(),
                                                          ops in proptest::collection::vec(op(), 0..120)) {
        let config = Config { rekey_after_messages: 7, hello_rate_per_source: 1000, ..Config::default() };
        let mut net = Net::new(2, seed, &config);
        let mut said = [BTreeSet::new(), BTreeSet::new()];
        for (count, op) in ops.into_iter().enumerate() {
            match op {
                Op::Connect(node) => net.connect(node, 1 - node),
                Op::Tell(node) => {
                    let data = format!("message {count}").into_bytes();
                    net.tell(node, 1 - node, &data);
                    said[node as usize].insert(data);
                    net.log.extend(net.wire.back().cloned());
                }
                Op::Renew(node) => net.renew(node, 1 - node),
                Op::Arrive(at) if !net.wire.is_empty() => {
                    let at = at.index(net.wire.len());
                    if let Some((from, to, bytes)) = net.wire.remove(at) {
                        deliver(&mut net, &mut said, from, to, &bytes);
                    }
                }
                Op::Repeat(at) if !net.wire.is_empty() => {
                    let (from, to, bytes) = net.wire[at.index(net.wire.len())].clone();
                    deliver(&mut net, &mut said, from, to, &bytes);
                }
                Op::Lose(at) if !net.wire.is_empty() => {
                    net.wire.remove(at.index(net.wire.len()));
                }
                Op::Replay(at, to) if !net.log.is_empty() => {
                    let (_, _, bytes) = net.log[at.index(net.log.len())].clone();
                    deliver(&mut net, &mut said, 1 - to, to, &bytes);
                }
                Op::Mangle(at, to, changes, cut) if !net.log.is_empty() => {
                    let (_, _, mut bytes) = net.log[at.index(net.log.len())].clone();
                    for (at, byte) in changes {
                        let at = at.index(bytes.len());
                        bytes[at] ^= byte;
                    }
                    bytes.truncate(bytes.len() - cut.index(bytes.len()) / 8);
                    deliver(&mut net, &mut said, 1 - to, to, &bytes);
                }
                Op::Garbage(to, bytes) => deliver(&mut net, &mut said, 1 - to, to, &bytes),
                Op::Pass(time) => {
                    net.now += millis(time.into());
                    for node in &mut net.nodes {
                        node.endpoint.handle_timeout(net.now, &mut node.rng);
                    }
                }
                Op::Restart(node) => {
                    // What waited there will never be sent.
                    let local = net::local(node, config.clone());
                    net.replace(node, local);
                }
                _ => {}
            }
            net.collect();
            prop_assert!(net.nodes.iter().all(|node| node.endpoint.channels() <= 1));
        }
        // From here on every packet arrives. A node that was forgotten learns of it by the other's silence.
        net.wire.clear();
        net.run_for(secs(35));
        for node in 0..2 {
            net.tell(node, 1 - node, b"in the end");
            net.run_for(secs(5));
            let (from, data) = net.nodes[1 - node as usize].inbox.last().expect("it arrives");
            prop_assert_eq!((*from, &data[..]), (node, &b"in the end"[..]));
        }
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
    fn a_hello_with_any_bytes_changed_opens_nothing(changes in proptest::collection::vec((any::<Index>(), 1..255u8), 1..4),
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
        // Whatever it left behind, the right one works and is answered to the right one.
        net.now += Duration::from_secs(1);
        let verdict = net.deliver(0, 1, &original);
        prop_assert!(matches!(verdict, Ok(None) | Err(Error::Superseded)), "{:?}", verdict);
        prop_assert!(net.nodes[1].endpoint.path(&0).is_none());
    }
}
