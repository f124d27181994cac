//! Direct messages and hellos: which nodes receive them, and which are refused.

use std::time::Duration;

use crate::net::{Node, beat, connection, events, secs, sent, signing};
use bytes::Bytes;
use p2p::{Addr as _, Error};
use p2p_protocols::gossipsub::wire::{DIRECT, Hello, Limits, Message, Rpc, frame, is_message, overhead};
use p2p_protocols::gossipsub::{Config, Engine, Event, PolicyError, Refused, Signing, Version};
use prost::Message as _;

const NOW: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        direct: true,
        ..Config::default()
    }
}

fn policy(number: u32, signed: bool) -> Signing {
    if signed {
        signing(number)
    } else {
        Signing::StrictNoSign
    }
}

/// A row of engines, each a peer of the next, all subscribed. Node 0 is the first.
struct Row(Vec<Engine<Node>>);

impl Row {
    fn new(count: u32, signed: bool, config: &Config) -> Self {
        let engine = |number| {
            let signing = policy(number, signed);
            let mut engine =
                Engine::new(config.clone(), signing, 0, Duration::ZERO, 7).expect("a configuration");
            engine.subscribe(NOW, "t").expect("a topic");
            engine
        };
        let mut row = Self((0..count).map(engine).collect());
        for one in 1..count {
            row.0[one as usize]
                .add_peer(NOW, &Node(one - 1), connection(Version::V1_2, true))
                .expect("room");
            row.0[one as usize - 1]
                .add_peer(NOW, &Node(one), connection(Version::V1_2, false))
                .expect("room");
        }
        row.exchange(NOW);
        row.0.iter_mut().for_each(|engine| drop(events(engine)));
        row
    }

    /// Delivers all RPCs until there are none. Returns them with their sources and destinations.
    fn exchange(&mut self, now: Duration) -> Vec<(u32, u32, Bytes)> {
        let mut carried = Vec::new();
        loop {
            let mut any = false;
            for from in 0..self.0.len() {
                while let Some(transmit) = self.0[from].poll_transmit(now) {
                    any = true;
                    let (to, from) = (transmit.to.0, from as u32);
                    self.0[to as usize].handle_rpc(now, &Node(from), &transmit.rpc);
                    carried.push((from, to, transmit.rpc));
                }
            }
            if !any {
                return carried;
            }
        }
    }

    /// Returns the direct messages of each node, with their sources.
    fn told(&mut self) -> Vec<(usize, u32, Bytes)> {
        let mut told = Vec::new();
        for (at, engine) in self.0.iter_mut().enumerate() {
            for event in events(engine) {
                match event {
                    Event::Direct(received) => told.push((at, received.via.0, received.data)),
                    Event::Message(received) => panic!("{received:?}"),
                    _ => {}
                }
            }
        }
        told
    }
}

/// Returns the encoded direct message from one node to another.
fn direct(row: &mut Row, from: usize, to: u32) -> Bytes {
    row.0[from]
        .tell(NOW, &Node(to), "t", "secret".into())
        .expect("a neighbour");
    let transmit = row.0[from].poll_transmit(NOW).expect("an RPC");
    assert!(is_message(&transmit.rpc));
    transmit.rpc
}

#[test]
fn a_direct_message_reaches_only_its_neighbour() {
    for signed in [false, true] {
        let mut row = Row::new(4, signed, &config());
        row.0[1]
            .tell(NOW, &Node(2), "t", "hello".into())
            .expect("a neighbour");
        row.0[1]
            .tell(NOW, &Node(2), "t", "hello".into())
            .expect("another message");
        let carried = row.exchange(NOW);
        let messages = carried
            .iter()
            .map(|(.., rpc)| Rpc::parse(rpc, &Limits::default()).expect("an RPC").direct.len());
        assert_eq!(messages.sum::<usize>(), 2, "direct messages are not forwarded");
        let hello = Bytes::from("hello");
        assert_eq!(row.told(), [(2, 1, hello.clone()), (2, 1, hello)]);
        // It is not gossiped either.
        for at in 0..4 {
            beat(&mut row.0[at], secs(10));
        }
        assert!(row.exchange(secs(10)).iter().all(|(.., rpc)| !is_message(rpc)));
        assert_eq!(row.told(), []);
        assert_eq!(row.0[1].counts().told, 2);
        assert_eq!(row.0[2].counts().direct, 2);
    }
}

#[test]
fn telling_a_peer_that_accepts_no_direct_messages_fails() {
    let mut row = Row::new(3, true, &config());
    let told = row.0[0].tell(NOW, &Node(2), "t", "hello".into());
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    // A peer that implements only gossipsub.
    row.0[0]
        .add_peer(NOW, &Node(9), connection(Version::V1_2, false))
        .expect("room");
    let told = row.0[0].tell(NOW, &Node(9), "t", "hello".into());
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    // A peer that accepts direct messages and has not sent its identity.
    let hello = Rpc {
        hello: Some(Hello::default()),
        ..Rpc::default()
    };
    row.0[0].handle_rpc(NOW, &Node(9), &hello.emit());
    let told = row.0[0].tell(NOW, &Node(9), "t", "hello".into());
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
}

#[test]
fn a_direct_message_is_delivered_once() {
    for signed in [false, true] {
        let mut row = Row::new(2, signed, &config());
        let rpc = direct(&mut row, 0, 1);
        for _ in 0..3 {
            row.0[1].handle_rpc(NOW, &Node(0), &rpc);
        }
        assert_eq!(row.told().len(), 1);
        assert_eq!(row.0[1].counts().duplicates, 2);
    }
}

#[test]
fn a_direct_message_for_another_is_refused_and_cannot_be_published() {
    let mut row = Row::new(3, true, &config());
    let rpc = direct(&mut row, 0, 1);
    // The recipient's neighbour forwards it unchanged.
    row.0[2].handle_rpc(NOW, &Node(1), &rpc);
    assert_eq!(row.told(), []);
    assert_eq!(row.0[2].counts().rejected, 1);
    assert!(
        row.0[2].score(NOW, &Node(1)) >= 0.0,
        "the sender may have been misinformed"
    );
    // Or as a message of the topic.
    let message = Rpc::parse(&rpc, &Limits::default())
        .expect("an RPC")
        .direct
        .remove(0);
    row.0[2].handle_rpc(NOW, &Node(1), &frame(&message));
    let refused = events(&mut row.0[2]);
    let reason = Refused::Policy(PolicyError::Unwanted("the recipient"));
    assert!(
        refused.contains(&Event::Rejected {
            peer: Node(1),
            reason
        }),
        "{refused:?}"
    );
}

#[test]
fn a_published_message_is_not_accepted_as_a_direct_one() {
    let mut row = Row::new(2, true, &config());
    row.0[0].publish(NOW, "t", "hello".into()).expect("published");
    let published = row.0[0].poll_transmit(NOW).expect("an RPC").rpc;
    let message = Rpc::parse(&published, &Limits::default())
        .expect("an RPC")
        .publish
        .remove(0);
    let rpc = Rpc {
        direct: vec![message],
        ..Rpc::default()
    };
    row.0[1].handle_rpc(NOW, &Node(0), &rpc.emit());
    assert_eq!(row.told(), []);
    assert_eq!(row.0[1].counts().rejected, 1);
}

#[test]
fn a_forged_direct_message_is_refused_and_scored_and_does_not_suppress_the_authentic_one() {
    let rpc = direct(&mut Row::new(2, true, &config()), 0, 1);
    for at in 0..rpc.len() {
        let mut forged = rpc.to_vec();
        forged[at] ^= 1;
        let mut row = Row::new(2, true, &config());
        row.0[1].handle_rpc(NOW, &Node(0), &forged.into());
        assert_eq!(row.told(), [], "byte {at}");
    }
    // One after another, at the same node.
    let mut row = Row::new(2, true, &config());
    for at in 0..rpc.len() {
        let mut forged = rpc.to_vec();
        forged[at] ^= 1;
        row.0[1].handle_rpc(NOW, &Node(0), &forged.into());
    }
    assert_eq!(row.told(), []);
    // By now the sender is graylisted.
    assert!(row.0[1].score(NOW, &Node(0)) < 0.0);
    assert!(row.0[1].counts().graylisted > 0);
    row.0[1].handle_rpc(NOW, &Node(0), &rpc);
    assert_eq!(row.told(), []);
    // A node that received a single forgery accepts the authentic message.
    let mut row = Row::new(2, true, &config());
    let rpc = direct(&mut row, 0, 1);
    let mut forged = rpc.to_vec();
    let last = forged.len() - 1;
    // The recipient is the last field; the data is before the signature.
    let data = forged
        .windows(6)
        .position(|part| part == b"secret")
        .expect("the data");
    assert!(data < last);
    forged[data] ^= 1;
    row.0[1].handle_rpc(NOW, &Node(0), &forged.into());
    row.0[1].handle_rpc(NOW, &Node(0), &rpc);
    assert_eq!(row.told().len(), 1);
}

#[test]
fn an_unsigned_direct_message_names_no_node() {
    let message = |change: fn(&mut Message)| {
        let mut message = Message {
            topic: Some("t".into()),
            data: Some("hello".into()),
            seqno: Some(Bytes::from_static(&[0; 8])),
            ..Message::default()
        };
        change(&mut message);
        let rpc = Rpc {
            direct: vec![message.encode_to_vec().into()],
            ..Rpc::default()
        };
        rpc.emit()
    };
    let changes: [fn(&mut Message); 6] = [
        |message| message.from = Some("somebody".into()),
        |message| message.signature = Some("a signature".into()),
        |message| message.key = Some("a key".into()),
        |message| message.to = Some("somebody".into()),
        |message| message.seqno = None,
        |message| message.topic = None,
    ];
    for change in changes {
        let mut row = Row::new(2, false, &config());
        row.0[1].handle_rpc(NOW, &Node(0), &message(change));
        assert_eq!((row.told(), row.0[1].counts().rejected), (vec![], 1));
    }
    let mut row = Row::new(2, false, &config());
    row.0[1].handle_rpc(NOW, &Node(0), &message(|_| ()));
    assert_eq!(row.told().len(), 1);
}

#[test]
fn direct_messages_of_other_topics_are_ignored() {
    let mut row = Row::new(2, true, &config());
    row.0[0]
        .tell(NOW, &Node(1), "other", "hello".into())
        .expect("a neighbour");
    row.exchange(NOW);
    assert_eq!((row.told(), row.0[1].counts().unrequested), (vec![], 1));
    // It accepts answers for topics that it sent to, also for a topic that it left.
    row.0[1]
        .publish(NOW, "other", "a question".into())
        .expect("published");
    row.0[1].unsubscribe(NOW, "t");
    row.0[0]
        .tell(NOW, &Node(1), "other", "hello".into())
        .expect("a neighbour");
    row.0[0]
        .tell(NOW, &Node(1), "t", "hello".into())
        .expect("a neighbour");
    row.exchange(NOW);
    assert_eq!(row.told().len(), 1);
    let topics: Vec<String> = row.0[1].local_topics().map(ToString::to_string).collect();
    assert_eq!(topics, ["other"]);
}

#[test]
fn the_number_of_topics_sent_to_is_bounded() {
    let mut row = Row::new(1, true, &config());
    for number in 0..1000 {
        let _ = row.0[0].publish(NOW, &format!("topic {number}"), "hello".into());
    }
    assert_eq!(row.0[0].local_topics().count(), 1 + config().max_spoken);
}

#[test]
fn oversize_messages_are_refused_and_the_overhead_is_an_upper_bound() {
    for signed in [false, true] {
        for rpc in [1000, 1200, 16_500, 70_000] {
            let mut config = config();
            config.limits.rpc = rpc;
            let mut row = Row::new(2, signed, &config);
            let topic = "t".repeat(config.limits.topic);
            row.0[1]
                .publish(NOW, &topic, "so that it is taken".into())
                .expect("published");
            let most = rpc - overhead(config.limits.topic, rpc, signed);
            let data = |len: usize| Bytes::from(vec![7; len]);
            row.0[0].tell(NOW, &Node(1), &topic, data(most)).expect("it fits");
            row.0[0].publish(NOW, &topic, data(most)).expect("it fits");
            row.exchange(NOW);
            assert_eq!(row.told().len(), 1);
            // Too long for any topic.
            let told = row.0[0].tell(NOW, &Node(1), "t", data(rpc));
            assert!(matches!(told, Err(Error::MtuExceeded { .. })), "{told:?}");
            // A few bytes are lost because some lengths are encoded shorter.
            let told = row.0[0].tell(NOW, &Node(1), &topic, data(most + 16));
            assert!(matches!(told, Err(Error::MtuExceeded { .. })), "{told:?}");
        }
    }
}

#[test]
fn without_the_extension_no_hello_is_sent_or_accepted() {
    let mut row = Row::new(2, true, &config());
    let rpc = direct(&mut row, 0, 1);
    let mut plain = crate::net::alone(Config::default(), signing(1), 0);
    plain
        .add_peer(NOW, &Node(0), connection(Version::V1_2, false))
        .expect("room");
    let said = sent(&mut plain, NOW);
    assert!(said.iter().all(|(_, rpc)| rpc.hello.is_none()), "{said:?}");
    plain.handle_rpc(NOW, &Node(0), &rpc);
    assert_eq!((plain.counts().unrequested, events(&mut plain)), (1, vec![]));
}

#[test]
fn lost_hellos_are_repeated_at_increasing_intervals() {
    let mut row = Row::new(1, true, &config());
    row.0[0]
        .add_peer(NOW, &Node(5), connection(Version::V1_2, true))
        .expect("room");
    let mut hellos = 0;
    for second in 1..=100 {
        beat(&mut row.0[0], secs(second));
        hellos += sent(&mut row.0[0], secs(second))
            .iter()
            .filter(|(_, rpc)| rpc.hello.as_ref().is_some_and(Hello::asks))
            .count();
    }
    // At once, and after 1, 2, 4, 8, 16, 32 and 64 heartbeats.
    assert_eq!(hellos, 8);
    let answer = Rpc {
        hello: Some(Hello::default()),
        ..Rpc::default()
    };
    row.0[0].handle_rpc(secs(100), &Node(5), &answer.emit());
    assert!(row.0[0].is_met(&Node(5)));
}

#[test]
fn a_message_lost_on_a_mesh_link_is_announced_on_that_link() {
    let mut row = Row::new(2, false, &config());
    for second in 2..5 {
        row.0.iter_mut().for_each(|engine| beat(engine, secs(second)));
        row.exchange(secs(second));
    }
    assert_eq!(row.0[0].mesh("t").count(), 1);
    row.0.iter_mut().for_each(|engine| drop(events(engine)));
    row.0[0].publish(secs(5), "t", "lost".into()).expect("published");
    assert_eq!(sent(&mut row.0[0], secs(5)).len(), 1, "the RPC is lost");
    row.0.iter_mut().for_each(|engine| beat(engine, secs(6)));
    row.exchange(secs(6));
    let got = events(&mut row.0[1]);
    assert!(
        matches!(&got[..], [Event::Message(received)] if received.data == "lost"),
        "{got:?}"
    );
}

/// Returns the seconds at which a node announces to node 5 that it subscribed to "t", or left it.
fn said(engine: &mut Engine<Node>, from: u64, subscribe: bool) -> Vec<u64> {
    let mut said = Vec::new();
    for second in from..from + 100 {
        beat(engine, secs(second));
        for (to, rpc) in sent(engine, secs(second)) {
            let of_topic = rpc.subscriptions.iter().filter(|change| change.topicid() == "t");
            assert!(of_topic.clone().all(|change| change.subscribe() == subscribe));
            assert!(of_topic.clone().count() <= 1, "{rpc:?}");
            said.extend(of_topic.filter(|_| to == 5).map(|_| second - from));
        }
    }
    said
}

#[test]
fn changes_of_subscriptions_are_repeated_at_increasing_intervals() {
    let mut engine =
        Engine::new(config(), Signing::StrictNoSign, 0, Duration::ZERO, 7).expect("a configuration");
    beat(&mut engine, secs(1));
    let peer = Node(5);
    engine
        .add_peer(NOW, &peer, connection(Version::V1_2, true))
        .expect("room");
    let hello = Rpc {
        hello: Some(Hello::default()),
        ..Rpc::default()
    };
    engine.handle_rpc(NOW, &peer, &hello.emit());
    // Unchanged subscriptions are not repeated.
    assert_eq!(said(&mut engine, 2, true), []);
    engine.subscribe(secs(101), "t").expect("a topic");
    // At once; after 1, 2, 4, 8, 16, 32 and 64 heartbeats; and at 120 seconds, as always.
    let times = said(&mut engine, 102, true);
    assert_eq!(times, [0, 0, 1, 3, 7, 15, 19, 31, 63]);
    engine.unsubscribe(secs(201), "t");
    assert_eq!(said(&mut engine, 202, false), [0, 0, 1, 3, 7, 15, 31, 63]);
    // A new peer gets all of it as often.
    engine.subscribe(secs(301), "t").expect("a topic");
    said(&mut engine, 302, true);
    engine.remove_peer(secs(401), &peer);
    engine
        .add_peer(secs(401), &peer, connection(Version::V1_2, true))
        .expect("room");
    engine.handle_rpc(secs(401), &peer, &hello.emit());
    let times = said(&mut engine, 402, true);
    assert!(times.len() >= 8 && times[..6] == [0, 0, 1, 3, 7, 15], "{times:?}");
}

#[test]
fn a_flood_of_hellos_is_answered_once_per_heartbeat() {
    let mut row = Row::new(1, true, &config());
    row.0[0]
        .add_peer(NOW, &Node(5), connection(Version::V1_2, false))
        .expect("room");
    let _ = sent(&mut row.0[0], NOW);
    let hello = Rpc {
        hello: Some(Hello {
            asks: Some(true),
            ..Hello::default()
        }),
        ..Rpc::default()
    };
    for _ in 0..100 {
        row.0[0].handle_rpc(NOW, &Node(5), &hello.emit());
    }
    let said = sent(&mut row.0[0], NOW);
    assert_eq!(said.iter().filter(|(_, rpc)| rpc.hello.is_some()).count(), 1);
}

#[test]
fn a_peer_that_leaves_is_removed() {
    let mut row = Row::new(3, true, &config());
    row.0[1].leave(NOW);
    row.exchange(NOW);
    for at in [0, 2] {
        assert!(events(&mut row.0[at]).contains(&Event::Left { peer: Node(1) }));
        assert!(!row.0[at].is_peer(&Node(1)));
        assert_eq!(row.0[at].subscribers("t").count(), 0);
    }
}

#[test]
fn a_silent_peer_is_removed() {
    let config = Config {
        peer_idle: secs(30),
        ..config()
    };
    let mut row = Row::new(2, true, &config);
    beat(&mut row.0[0], secs(30));
    assert!(row.0[0].is_peer(&Node(1)));
    beat(&mut row.0[0], secs(33));
    assert!(!row.0[0].is_peer(&Node(1)));
    assert!(events(&mut row.0[0]).contains(&Event::Left { peer: Node(1) }));
}

#[test]
fn hellos_and_signatures_name_the_same_author() {
    let mut row = Row::new(2, true, &config());
    let author = *signing(0).author().expect("it signs");
    assert_eq!(row.0[1].author(&Node(0)), Some(author));
    row.0[0]
        .tell(NOW, &Node(1), "t", "hello".into())
        .expect("a neighbour");
    row.exchange(NOW);
    let heard = events(&mut row.0[1]).into_iter().find_map(|event| match event {
        Event::Direct(received) => received.author,
        _ => None,
    });
    assert_eq!(heard, Some(author));
    assert_eq!(row.0[1].author(&Node(9)), None);
    assert!(Node(9).peer_id().is_some(), "an authenticated id is different");
}

#[test]
fn the_extension_fields_have_four_byte_tags() {
    const { assert!(DIRECT > 0x20_0000 && DIRECT << 3 < 1 << 28) }
}
