//! Parsing, verifying and encoding outside the engine: the results are equal, and no unnecessary work is
//! done.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::net::{Node, alone, events, messages, ms, secs, sent, signing};
use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{ControlIWant, ControlMessage, Limits, Message, Rpc, frame};
use p2p_protocols::gossipsub::{Codec, Config, Engine, Event, MessageId, PolicyError, Refused, Signing};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

/// Returns a message of this node as an RPC.
fn written(author: u32, topic: &str, number: u64) -> Bytes {
    let message = signing(author).make(topic, Bytes::from_static(b"hello"), number);
    frame(&message.encode_to_vec())
}

/// Returns a message of a kind: valid ones, some of them twice; own ones; forged, truncated, of other topics,
/// unsigned, control.
fn rpc(kind: u8, number: u8) -> Bytes {
    let (author, seqno) = (20 + u32::from(number % 3), u64::from(number % 16));
    let good = written(author, "t", seqno);
    match kind {
        0..=3 => good,
        4 => written(0, "t", seqno),
        5 => {
            let mut forged = good.to_vec();
            forged[45] ^= 1;
            forged.into()
        }
        6 => good.slice(..usize::from(number) % good.len()),
        7 => written(author, "u", seqno),
        8 => frame(&Signing::StrictNoSign.make("t", Bytes::new(), 0).encode_to_vec()),
        9 => Bytes::from_static(b"\x1a\x05\x1a\x03\x0a\x01t"),
        10 => [good, written(author, "t", seqno + 100)].concat().into(),
        _ => {
            let mut message = signing(author).make("t", Bytes::new(), seqno);
            message.key = Some(Bytes::from_static(b"another"));
            frame(&message.encode_to_vec())
        }
    }
}

fn in_steps(engine: &mut Engine<Node>, codec: &Codec, now: Duration, from: Node, rpc: &Bytes) {
    let mut incoming = codec.read(rpc);
    assert_eq!(incoming.len(), rpc.len());
    if engine.select(now, &from, &mut incoming) {
        incoming.verify();
    }
    engine.handle_incoming(now, &from, incoming);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn processing_in_steps_gives_the_same_result(
        policy: bool,
        rpcs in vec((0..12_u8, any::<u8>(), 1..6_u32), 0..60),
    ) {
        let policy = if policy { signing(0) } else { Signing::StrictNoSign };
        let [mut whole, mut steps] = [(); 2].map(|()| alone(Config::default(), policy.clone(), 4));
        let codec = steps.codec().clone();
        for (at, (kind, number, from)) in rpcs.into_iter().enumerate() {
            let (now, from, rpc) = (ms(at as u64), Node(from), rpc(kind, number));
            whole.handle_rpc(now, &from, &rpc);
            in_steps(&mut steps, &codec, now, from, &rpc);
            prop_assert_eq!(events(&mut whole), events(&mut steps));
            prop_assert_eq!(sent(&mut whole, now), sent(&mut steps, now));
            prop_assert_eq!(whole.counts(), steps.counts());
            prop_assert!(whole.score(now, &from).total_cmp(&steps.score(now, &from)).is_eq());
        }
    }
}

#[test]
fn only_new_messages_of_joined_topics_are_selected() {
    let mut engine = alone(Config::default(), signing(0), 3);
    let codec = engine.codec().clone();
    let mut selects = |from: u32, rpc: &Bytes| engine.select(ms(0), &Node(from), &mut codec.read(rpc));
    let good = written(20, "t", 1);
    assert!(selects(1, &good));
    assert!(!selects(9, &good), "from an address that is not a peer");
    assert!(!selects(1, &written(20, "u", 1)), "of another topic");
    assert!(!selects(1, &written(0, "t", 1)), "an own message");
    assert!(!selects(1, &rpc(8, 0)), "without a signature");
    assert!(!selects(1, &rpc(11, 0)), "with another's key");
    assert!(!selects(1, &good.slice(..20)), "not an RPC");
    engine.handle_rpc(ms(0), &Node(1), &good);
    assert!(!engine.select(ms(0), &Node(2), &mut codec.read(&good)), "again");
    engine.set_app_specific_score(&Node(3), -1e9);
    assert!(
        !engine.select(ms(0), &Node(3), &mut codec.read(&written(20, "t", 2))),
        "from a graylisted peer"
    );

    let mut unsigned = alone(Config::default(), Signing::StrictNoSign, 1);
    let message = Signing::StrictNoSign.make("t", Bytes::new(), 0);
    let mut incoming = unsigned.codec().read(&frame(&message.encode_to_vec()));
    assert!(
        !unsigned.select(ms(0), &Node(1), &mut incoming),
        "messages are unsigned"
    );
}

/// A change after the selection may make a message wanted; a forged one is still refused.
#[test]
fn an_unverified_message_is_verified_when_it_is_handled() {
    let mut engine = alone(Config::default(), signing(0), 2);
    engine.unsubscribe(ms(0), "t");
    let codec = engine.codec().clone();
    let (forged, good) = (rpc(5, 1), written(20, "t", 9));
    let read = [&forged, &good].map(|rpc| {
        let mut incoming = codec.read(rpc);
        assert!(!engine.select(ms(0), &Node(1), &mut incoming));
        incoming.verify();
        incoming
    });
    engine.subscribe(secs(1), "t").expect("a topic");
    events(&mut engine);
    for incoming in read {
        engine.handle_incoming(secs(1), &Node(1), incoming);
    }
    let reason = Refused::Policy(PolicyError::BadSignature);
    let got = events(&mut engine);
    assert!(
        matches!(&got[..], [Event::Rejected { reason: why, .. }, Event::Message(received)]
            if *why == reason && received.data == "hello"),
        "{got:?}"
    );
}

/// Encoding in one pass equals encoding field by field.
#[test]
fn one_pass_encoding_equals_field_by_field_encoding() {
    for policy in [signing(0), Signing::StrictNoSign] {
        let codec = alone(Config::default(), policy.clone(), 0).codec().clone();
        for (number, len) in [(1, 0), (2, 1), (3, 127), (4, 128), (5, 1024), (6, 20_000)] {
            let data = Bytes::from(vec![number; len]);
            for topic in ["t".to_owned(), "x".repeat(200)] {
                let outgoing = codec.write(&*topic, &data).expect("it fits");
                let mut engine = alone(Config::default(), policy.clone(), 1);
                sent(&mut engine, ms(0));
                engine.send(ms(0), outgoing.clone()).expect("sent");
                engine.subscribe(ms(0), &topic).expect("a topic");
                let rpc = sent_to_asker(&mut engine, outgoing.id());
                let written = rpc.publish.first().expect("the message");
                let message = Message::parse(written, &Limits::default()).expect("a message");
                let seqno = message
                    .seqno
                    .as_deref()
                    .map(|seqno| seqno.try_into().expect("8 bytes"));
                let again = policy.make(&topic, data.clone(), seqno.map_or(0, u64::from_be_bytes));
                assert_eq!(&again.encode_to_vec(), written);
                assert_eq!(&policy.message_id(&again), outgoing.id());
            }
        }
    }
}

/// Returns the answer to a peer's IWANT for a message.
fn sent_to_asker(engine: &mut Engine<Node>, id: &MessageId) -> Rpc {
    sent(engine, ms(0));
    let iwant = ControlIWant {
        message_ids: vec![id.to_bytes()],
    };
    let control = ControlMessage {
        iwant: vec![iwant],
        ..ControlMessage::default()
    };
    let asking = Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    engine.handle_rpc(ms(0), &Node(1), &asking.emit());
    let mut answers = sent(engine, ms(0));
    answers.pop().expect("an answer").1
}

/// A message that was verified is not verified again, so nothing can be substituted for it.
#[test]
fn two_copies_verified_at_once_are_delivered_once() {
    let mut engine = alone(Config::default(), signing(0), 2);
    let codec = engine.codec().clone();
    let good = written(20, "t", 1);
    let mut copies = [codec.read(&good), codec.read(&good)];
    for (from, copy) in (1..).zip(&mut copies) {
        assert!(engine.select(ms(0), &Node(from), copy));
        copy.verify();
    }
    events(&mut engine);
    for (from, copy) in (1..).zip(copies) {
        engine.handle_incoming(ms(0), &Node(from), copy);
    }
    assert_eq!(events(&mut engine).len(), 1);
    assert_eq!((engine.counts().delivered, engine.counts().duplicates), (1, 1));
}

#[test]
fn sequence_numbers_are_unique_across_threads() {
    let mut engine = alone(Config::default(), signing(0), 1);
    let codec = engine.codec().clone();
    let write = |codec: &Codec| {
        let messages = (0..100).map(|_| codec.write("t", &[]).expect("a message"));
        messages.collect::<Vec<_>>()
    };
    let outgoing: Vec<_> = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| write(&codec)));
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("it ends"))
            .collect()
    });
    let ids: BTreeSet<MessageId> = outgoing.iter().map(|outgoing| outgoing.id().clone()).collect();
    assert_eq!(ids.len(), 400);
    sent(&mut engine, ms(0));
    for outgoing in outgoing {
        let (id, topic) = (outgoing.id().clone(), outgoing.topic().to_owned());
        assert_eq!(topic, "t");
        assert_eq!(engine.send(ms(0), outgoing).expect("sent").id, id);
    }
    let signing = signing(0);
    let written = messages(sent(&mut engine, ms(0)));
    assert_eq!(written.len(), 400);
    for (_, bytes) in written {
        let message = Message::parse(&bytes, &Limits::default()).expect("a message");
        assert_eq!(signing.check_signature(&message, &bytes), Ok(()));
        assert!(ids.contains(&signing.message_id(&message)));
    }
}

#[test]
fn invalid_messages_are_not_encoded() {
    let limits = Limits {
        rpc: 1000,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let engine = alone(config, signing(0), 1);
    let codec = engine.codec();
    assert!(codec.write("", &[]).is_err());
    assert!(codec.write(&*"x".repeat(257), &[]).is_err());
    let largest = (0..1000)
        .rev()
        .find(|len| codec.write("t", &vec![0; *len]).is_ok());
    let largest = largest.expect("some fit");
    let outgoing = codec.write("t", &vec![0; largest]).expect("it fits");
    assert_eq!(outgoing.topic(), "t");
    assert!(codec.write("t", &vec![0; largest + 1]).is_err());
    let mut engine = engine;
    sent(&mut engine, ms(0));
    engine.send(ms(0), outgoing).expect("sent");
    let rpc = engine.poll_transmit(ms(0)).expect("it").rpc;
    assert_eq!(rpc.len(), limits.rpc);
    Rpc::parse(&rpc, &limits).expect("an RPC");
}
