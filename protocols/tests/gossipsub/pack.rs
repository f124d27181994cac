//! Messages that are queued for one peer at the same time are sent together: in order, within limits, and
//! readable by any implementation.

use crate::RPC;
use crate::net::{Node, alone, beat, events, ms, secs, sent, signing};
use crate::schema::Schema;
use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{
    ControlIDontWant, ControlIWant, ControlMessage, Limits, Rpc, frame, is_message,
};
use p2p_protocols::gossipsub::{Config, Engine, Event, RpcBatch, Signing};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

const AGED: u64 = 0;
const FRESH: u64 = 3;
const LATE: u64 = 6;

fn data(number: usize, len: usize) -> Bytes {
    let mut data = vec![7; len + 8];
    data[..8].copy_from_slice(&number.to_be_bytes());
    data.into()
}

fn control(control: ControlMessage) -> Bytes {
    let control = Some(control);
    Rpc {
        control,
        ..Rpc::default()
    }
    .emit()
}

/// Returns a node with a peer that accepts nothing yet.
fn held(pack: usize, messages: usize, policy: Signing) -> Engine<Node> {
    let limits = Limits {
        messages,
        ..Limits::default()
    };
    let config = Config {
        pack,
        limits,
        ..Config::default()
    };
    let mut engine = alone(config, policy, 1);
    sent(&mut engine, secs(AGED));
    engine.set_writable(&Node(1), false);
    engine
}

fn released(engine: &mut Engine<Node>) -> Vec<Bytes> {
    engine.set_writable(&Node(1), true);
    let rpcs = std::iter::from_fn(|| engine.poll_transmit(secs(LATE)));
    rpcs.map(|transmit| transmit.rpc)
        .filter(|rpc| is_message(rpc))
        .collect()
}

/// Returns the data that another node receives from these RPCs; none of it shares a pack's buffer.
fn delivered(rpcs: &[Bytes], policy: Signing) -> Vec<Bytes> {
    let mut other = alone(Config::default(), policy, 2);
    sent(&mut other, secs(LATE));
    for rpc in rpcs {
        other.handle_rpc(secs(LATE), &Node(1), rpc);
    }
    let forwarded = sent(&mut other, secs(LATE));
    let forwarded: usize = forwarded.iter().map(|(_, rpc)| rpc.publish.len()).sum();
    let received = events(&mut other).into_iter().filter_map(|event| match event {
        Event::Message(received) => Some(received.data),
        _ => None,
    });
    let received: Vec<Bytes> = received.collect();
    assert_eq!(forwarded, received.len(), "forwarded to the other peer");
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn messages_are_sent_together_in_order_and_within_limits(
        messages in vec((0..400_usize, prop::bool::weighted(0.2)), 1..60),
        aged in 0..10_usize,
        pack in prop_oneof![Just(0), 200..3000_usize],
        most in 1..12_usize,
        signed: bool,
    ) {
        let policy = |number| if signed { signing(number) } else { Signing::StrictNoSign };
        let mut engine = held(pack, most, policy(0));
        let (mut due, mut unwanted): (Vec<Bytes>, Vec<Bytes>) = (Vec::new(), Vec::new());
        for (number, (len, is_unwanted)) in messages.iter().enumerate() {
            let at = secs(if number < aged { AGED } else { FRESH });
            let data = data(number, *len);
            let published = engine.publish(at, "t", data.clone()).expect("published");
            if *is_unwanted {
                unwanted.push(published.id.into());
            } else if number >= aged {
                due.push(data);
            }
        }
        let message_ids = unwanted;
        let idontwant = vec![ControlIDontWant { message_ids }];
        engine.handle_rpc(secs(FRESH), &Node(1), &control(ControlMessage { idontwant, ..ControlMessage::default() }));
        let dropped = engine.counts().messages_dropped;
        let rpcs = released(&mut engine);
        prop_assert_eq!(engine.counts().messages_dropped - dropped, (messages.len() - due.len()) as u64);

        let schema = Schema::new(RPC);
        let mut last: Option<(usize, usize)> = None;
        for rpc in &rpcs {
            let parsed = Rpc::parse(rpc, &Limits::default()).expect("an RPC");
            prop_assert_eq!(&schema.read_and_write("RPC", rpc), rpc);
            let count = parsed.publish.len();
            prop_assert!(count <= most && (count == 1 || rpc.len() <= pack), "{} in {}", count, rpc.len());
            // The first one did not fit into the RPC before.
            if let Some((before, bytes)) = last {
                let first = frame(&parsed.publish[0]).len();
                prop_assert!(before == most || bytes + first > pack);
            }
            last = Some((count, rpc.len()));
        }
        let got = delivered(&rpcs, policy(9));
        prop_assert_eq!(&got, &due);
    }
}

#[test]
fn parts_concatenate_to_the_rpcs_and_only_messages_are_packed() {
    let mut engine = held(1 << 10, 100, Signing::StrictNoSign);
    let mut twin = held(1 << 10, 100, Signing::StrictNoSign);
    for engine in [&mut engine, &mut twin] {
        for number in 0..40 {
            engine.publish(ms(0), "t", data(number, 100)).expect("published");
        }
        engine.subscribe(ms(0), "u").expect("a topic");
        engine.subscribe(ms(0), "v").expect("a topic");
        engine.set_writable(&Node(1), true);
    }
    let mut batch = RpcBatch::default();
    let mut rpcs: Vec<Bytes> = Vec::new();
    while let Some(peer) = engine.poll_transmits(ms(0), 3, &mut batch) {
        assert_eq!(peer, Node(1));
        assert!((1..=3).contains(&batch.rpcs().count()));
        for parts in batch.rpcs() {
            assert!(parts.len() == 1 || parts.iter().all(|part| is_message(part)));
            rpcs.push(parts.concat().into());
        }
    }
    assert!(
        !is_message(&rpcs[0]) && !is_message(&rpcs[1]),
        "two subscriptions first"
    );
    assert!(rpcs[2..].iter().all(|rpc| is_message(rpc)));
    let others = std::iter::from_fn(|| twin.poll_transmit(ms(0)));
    let others: Vec<Bytes> = others.map(|transmit| transmit.rpc).collect();
    assert_eq!(rpcs, others);
    // Eight messages of about 120 bytes fit into 1024 bytes.
    assert_eq!(rpcs.len(), 2 + 40_usize.div_ceil(8));
}

#[test]
fn messages_of_a_pack_are_kept_separately() {
    for policy in [signing(0), Signing::StrictNoSign] {
        let mut engine = held(1 << 16, 100, policy.clone());
        let mut ids = Vec::new();
        for number in 0..20 {
            let data = data(number, 1000);
            ids.push(engine.publish(secs(FRESH), "t", data).expect("published").id);
        }
        let rpcs = released(&mut engine);
        let [pack] = &rpcs[..] else {
            panic!("{} RPCs", rpcs.len())
        };
        let publish = Rpc::parse(pack, &Limits::default()).expect("an RPC").publish;
        let policy = policy.author().map_or(Signing::StrictNoSign, |_| signing(9));
        let mut other = alone(Config::default(), policy, 2);
        sent(&mut other, secs(LATE));
        events(&mut other);
        other.handle_rpc(secs(LATE), &Node(1), pack);
        let within = pack.as_ptr_range();
        for event in events(&mut other) {
            let Event::Message(received) = event else {
                panic!("{event:?}")
            };
            assert!(!within.contains(&received.data.as_ptr()));
        }
        sent(&mut other, secs(LATE));
        // A peer that requests one gets exactly this one, encoded as it arrived.
        for (id, message) in ids.into_iter().zip(publish) {
            let message_ids = vec![id.into()];
            let iwant = vec![ControlIWant { message_ids }];
            let asked = control(ControlMessage {
                iwant,
                ..ControlMessage::default()
            });
            other.handle_rpc(secs(LATE), &Node(2), &asked);
            let answer = other.poll_transmit(secs(LATE)).expect("an answer");
            assert_eq!((answer.to, answer.rpc), (Node(2), frame(&message)));
        }
    }
}

/// Returns the peers that get an IDONTWANT when a message of this length arrives, and those that get the
/// message.
fn told(engine: &mut Engine<Node>, len: usize) -> (Vec<u32>, Vec<u32>) {
    let message = Signing::StrictNoSign.make("t", data(len, len), 0);
    engine.handle_rpc(secs(LATE), &Node(1), &frame(&message.encode_to_vec()));
    let sent = sent(engine, secs(LATE));
    let is_told = |rpc: &Rpc| {
        rpc.control
            .as_ref()
            .is_some_and(|control| !control.idontwant.is_empty())
    };
    let to = |is: &dyn Fn(&Rpc) -> bool| {
        sent.iter()
            .filter(|(_, rpc)| is(rpc))
            .map(|(to, _)| *to)
            .collect()
    };
    (to(&is_told), to(&|rpc| !rpc.publish.is_empty()))
}

#[test]
fn a_peer_that_gets_a_message_at_once_gets_no_idontwant() {
    let config = Config {
        pack: 2000,
        idontwant_threshold: 1000,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 5);
    beat(&mut engine, secs(2));
    sent(&mut engine, secs(LATE));
    assert_eq!(told(&mut engine, 900), (vec![], vec![2, 3, 4, 5]));
    assert_eq!(told(&mut engine, 1100), (vec![], vec![2, 3, 4, 5]));
    assert_eq!(
        told(&mut engine, 2000),
        (vec![2, 3, 4, 5], vec![2, 3, 4, 5]),
        "a message that is not sent at once"
    );
    // One peer has a long queue, and gets the IDONTWANT as soon as it accepts anything.
    engine.set_writable(&Node(3), false);
    for len in 1200..1202 {
        told(&mut engine, len);
    }
    assert_eq!(told(&mut engine, 1300), (vec![], vec![2, 4, 5]));
    engine.set_writable(&Node(3), true);
    let first = sent(&mut engine, secs(LATE))
        .into_iter()
        .next()
        .map(|(_, rpc)| rpc);
    let control = first.and_then(|rpc| rpc.control).expect("it is told first");
    assert_eq!(control.idontwant.len(), 1);
}
