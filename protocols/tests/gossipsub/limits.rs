//! The resources that one identity, one network or many of them can take from a gossipsub node, and what
//! other peers then still get.

mod floods;

use std::time::Duration;

use crate::net::{Node, add, alone, beat, connection, events, messages, ms, secs, sent};
use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Hello, Rpc,
    SubOpts,
};
use p2p_protocols::gossipsub::{Codec, Config, Engine, Event, Signing, Version};

fn control(control: ControlMessage) -> Bytes {
    let rpc = Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    rpc.emit()
}

fn iwant(ids: Vec<Bytes>) -> Bytes {
    control(ControlMessage {
        iwant: vec![ControlIWant { message_ids: ids }],
        ..ControlMessage::default()
    })
}

fn hello(hello: Hello) -> Bytes {
    let rpc = Rpc {
        hello: Some(hello),
        ..Rpc::default()
    };
    rpc.emit()
}

/// Returns the number of a node at the `at`-th address in the /24 of 203.`net`.0.0; each node has its own id.
fn in_network(net: u8, at: u8) -> u32 {
    u32::from_be_bytes([203, net, 0, at])
}

fn add_inbound(engine: &mut Engine<Node>, now: Duration, number: u32) -> bool {
    let connection = connection(Version::V1_2, false);
    engine.add_peer(now, &Node(number), connection).is_ok()
}

/// Returns the bytes queued for a peer.
fn bytes_sent(engine: &mut Engine<Node>, now: Duration) -> usize {
    std::iter::from_fn(|| engine.poll_transmit(now))
        .map(|transmit| transmit.rpc.len())
        .sum()
}

#[test]
fn reconnecting_does_not_reset_the_limit_of_iwant() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 2);
    let published: Vec<Bytes> = (0..20_u8)
        .map(|number| {
            let data = vec![number; 1000].into();
            engine.publish(ms(0), "t", data).expect("published").id.to_bytes()
        })
        .collect();
    sent(&mut engine, ms(0));
    let (mut asked, mut copies) = (0, 0);
    for round in 0..100 {
        let now = ms(round);
        let rpc = iwant(published.clone());
        asked += rpc.len();
        engine.handle_rpc(now, &Node(1), &rpc);
        copies += messages(sent(&mut engine, now)).len();
        engine.remove_peer(now, &Node(1));
        add(&mut engine, now, 1, false);
    }
    let limit = engine.config().gossip_retransmission as usize;
    assert_eq!(copies, limit * published.len(), "of {asked} bytes asked");
    // Other peers have their own share.
    engine.handle_rpc(ms(100), &Node(2), &iwant(published.clone()));
    assert_eq!(messages(sent(&mut engine, ms(100))).len(), published.len());
}

#[test]
fn reconnecting_does_not_reset_the_limits_of_a_heartbeat() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 1);
    let max = engine.config().max_ihave_messages;
    let mut wanted = 0;
    for round in 0..200_u32 {
        let now = ms(u64::from(round) / 10);
        let ihave = ControlIHave {
            topic_id: Some("t".into()),
            message_ids: vec![Bytes::copy_from_slice(&round.to_be_bytes())],
        };
        engine.handle_rpc(
            now,
            &Node(1),
            &control(ControlMessage {
                ihave: vec![ihave],
                ..ControlMessage::default()
            }),
        );
        wanted += sent(&mut engine, now)
            .iter()
            .filter_map(|(_, rpc)| rpc.control.as_ref())
            .map(|control| control.iwant.len())
            .sum::<usize>();
        engine.remove_peer(now, &Node(1));
        add(&mut engine, now, 1, false);
    }
    assert_eq!(wanted, max);
    assert_eq!(engine.counts().ihave_ignored, 200 - max as u64);
}

#[test]
fn a_crowd_that_leaves_does_not_reset_what_a_heartbeat_allows_one_peer() {
    let config = Config {
        max_peers: 16,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 1);
    let max = engine.config().max_ihave_messages;
    // More identities than may be peers come and go.
    for number in 100..200 {
        add_inbound(&mut engine, ms(0), number);
        engine.remove_peer(ms(0), &Node(number));
    }
    for round in 0..200_u32 {
        let ihave = ControlIHave {
            topic_id: Some("t".into()),
            message_ids: vec![Bytes::copy_from_slice(&round.to_be_bytes())],
        };
        let rpc = control(ControlMessage {
            ihave: vec![ihave],
            ..ControlMessage::default()
        });
        engine.handle_rpc(ms(1), &Node(1), &rpc);
        engine.remove_peer(ms(1), &Node(1));
        add(&mut engine, ms(1), 1, false);
    }
    assert_eq!(engine.counts().ihave_ignored, 200 - max as u64);
}

#[test]
fn alternating_goodbyes_and_hellos_are_not_answered_with_all_subscriptions_each_time() {
    let config = Config {
        direct: true,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 0);
    for number in 0..100 {
        engine
            .subscribe(ms(0), &format!("topic number {number}"))
            .expect("a topic");
    }
    let asks = hello(Hello {
        asks: Some(true),
        ..Hello::default()
    });
    let leaves = hello(Hello {
        leaves: Some(true),
        ..Hello::default()
    });
    let (mut came, mut went) = (0, 0);
    for round in 0..1000 {
        let now = ms(round / 10);
        assert!(add_inbound(&mut engine, now, 1));
        for rpc in [&asks, &leaves] {
            came += rpc.len();
            engine.handle_rpc(now, &Node(1), rpc);
            went += bytes_sent(&mut engine, now);
        }
    }
    assert!(went <= came * 3, "{went} bytes answer {came}");
    // A peer that reconnected too often learns all of it at the next heartbeat.
    assert!(add_inbound(&mut engine, ms(200), 1));
    engine.handle_rpc(ms(200), &Node(1), &asks);
    sent(&mut engine, ms(200));
    beat(&mut engine, secs(2));
    let topics: usize = sent(&mut engine, secs(2))
        .iter()
        .map(|(_, rpc)| rpc.subscriptions.len())
        .sum();
    assert!(topics >= 101, "{topics}");
}

#[test]
fn many_peers_in_one_network_do_not_exclude_newcomers_of_others() {
    for now in [ms(0), secs(60)] {
        let config = Config {
            max_inbound_per_prefix: 768,
            ..Config::default()
        };
        let mut engine = alone(config, Signing::StrictNoSign, 0);
        // 768 ids at one IP address: the lowest byte does not count, so all are in one network.
        let crowd = (0..=255_u8).flat_map(|at| (0..3).map(move |more| (at, more)));
        for (at, more) in crowd {
            // The IP address is that of the /24; ids differ.
            let number = in_network(more, at);
            assert!(add_inbound(&mut engine, ms(0), number));
        }
        assert_eq!(engine.peers().count(), 768);
        beat(&mut engine, now);
        for newcomer in 10..200 {
            assert!(
                add_inbound(&mut engine, now, in_network(newcomer, 1)),
                "{newcomer} is refused"
            );
            assert!(engine.is_peer(&Node(in_network(newcomer, 1))));
        }
        let left = events(&mut engine)
            .into_iter()
            .filter(|event| matches!(event, Event::Left { .. }));
        assert_eq!(left.count(), 190);
        assert_eq!(engine.counts().peers_evicted, 190);
        // The group gets none of these places back, however often it connects.
        for at in 0..=255 {
            add_inbound(&mut engine, now, in_network(0, at));
        }
        assert!((10..200).all(|newcomer| engine.is_peer(&Node(in_network(newcomer, 1)))));
        // Outbound peers find room beside them.
        for number in 1..=200 {
            let outbound = connection(Version::V1_2, true);
            engine.add_peer(now, &Node(number), outbound).expect("room");
        }
        assert_eq!(engine.peers().count(), 768 + 200);
    }
}

#[test]
fn one_network_has_its_share_of_inbound_places() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 0);
    let share = engine.config().max_inbound_per_prefix;
    assert_eq!(
        (0..=255)
            .filter(|at| add_inbound(&mut engine, ms(0), in_network(1, *at)))
            .count(),
        share
    );
    // The numbers of one /24 end here, so the other limit applies.
    let config = Config {
        max_inbound_per_prefix: 16,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 0);
    assert_eq!(
        (0..=255)
            .filter(|at| add_inbound(&mut engine, ms(0), in_network(1, *at)))
            .count(),
        16
    );
    assert!(add_inbound(&mut engine, ms(0), in_network(2, 1)));
}

#[test]
fn idle_peers_of_equal_networks_are_replaced_and_active_peers_stay() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 0);
    for number in 1..=768 {
        add(&mut engine, ms(0), number, false);
    }
    beat(&mut engine, secs(30));
    let mesh: Vec<Node> = engine.mesh("t").copied().collect();
    assert!(!mesh.is_empty());
    let mut taken = 0;
    for round in 0..20 {
        let now = secs(30 + round);
        beat(&mut engine, now);
        taken += (0..500)
            .filter(|at| add_inbound(&mut engine, now, 10_000 + round as u32 * 500 + at))
            .count();
    }
    // Up to a 64th of the places in each heartbeat.
    assert!((100..=21 * 12).contains(&taken), "{taken}");
    assert_eq!(engine.peers().count(), 768);
    assert!(
        mesh.iter().all(|peer| engine.is_peer(peer)),
        "a mesh peer was removed"
    );
}

/// Returns the RPCs of a peer with the maximum of each kind of content.
fn everything(from: u32, round: u32) -> Vec<Bytes> {
    let id =
        |number: u32| Bytes::from([from.to_be_bytes(), round.to_be_bytes(), number.to_be_bytes()].concat());
    let subscriptions = (0..200).map(|number| SubOpts {
        subscribe: Some(true),
        topicid: Some(format!("topic {number} of {from} in {round}")),
    });
    let subscriptions = Rpc {
        subscriptions: subscriptions.collect(),
        ..Rpc::default()
    };
    let ids = |count| (0..count).map(id).collect::<Vec<_>>();
    let topic = || Some("t".to_owned());
    vec![
        subscriptions.emit(),
        control(ControlMessage {
            ihave: vec![ControlIHave {
                topic_id: topic(),
                message_ids: ids(6000),
            }],
            ..ControlMessage::default()
        }),
        iwant(ids(6000)),
        control(ControlMessage {
            idontwant: vec![ControlIDontWant {
                message_ids: ids(3000),
            }],
            ..ControlMessage::default()
        }),
        control(ControlMessage {
            graft: vec![ControlGraft { topic_id: topic() }; 100],
            prune: vec![
                ControlPrune {
                    topic_id: topic(),
                    peers: Vec::new(),
                    backoff: Some(u64::MAX),
                };
                100
            ],
            ..ControlMessage::default()
        }),
    ]
}

/// Floods of every kind, from one identity, from one network and from many: state stays within its limits, no
/// duration overflows, and an honest peer gets what this node publishes.
#[test]
fn floods_of_every_kind_leave_an_honest_peer_served() {
    let one = |_: u32| 5_u32;
    let prefix = |number: u32| in_network(7, (number % 16) as u8);
    let many = |number: u32| 100 + number;
    let sources: [(&str, &dyn Fn(u32) -> u32); 3] =
        [("one id", &one), ("one network", &prefix), ("many ids", &many)];
    for (name, source) in sources {
        let mut engine = alone(Config::default(), Signing::StrictNoSign, 0);
        add(&mut engine, ms(0), 1, false);
        for round in 0..16_u32 {
            let now = ms(u64::from(round) * 100);
            beat(&mut engine, now);
            let from = source(round);
            add_inbound(&mut engine, now, from);
            for rpc in everything(from, round) {
                engine.handle_rpc(now, &Node(from), &rpc);
            }
            sent(&mut engine, now);
            let (kept, config) = (engine.kept(), engine.config());
            assert!(kept.topics <= config.max_topics + 1, "{name}: {kept:?}");
            assert!(kept.backoffs <= config.max_backoffs, "{name}: {kept:?}");
            assert!(
                kept.promises <= 16 * config.max_ihave_messages,
                "{name}: {kept:?}"
            );
            assert!(engine.peers().count() <= config.max_peers);
        }
        let now = secs(10);
        beat(&mut engine, now);
        sent(&mut engine, now);
        engine
            .publish(now, "t", Bytes::from_static(b"own"))
            .expect("published");
        let got = messages(sent(&mut engine, now));
        assert!(
            got.iter().any(|(to, _)| *to == 1),
            "{name}: the honest peer got nothing"
        );
        // It also reconnects at once after a restart.
        engine.remove_peer(now, &Node(1));
        add(&mut engine, now, 1, false);
        engine
            .publish(now, "t", Bytes::from_static(b"another"))
            .expect("published");
        let got = messages(sent(&mut engine, now));
        assert!(
            got.iter().any(|(to, _)| *to == 1),
            "{name}: the honest peer was refused"
        );
    }
}

/// Times that a peer names are clamped before anything is added to them, also near the end of all time.
#[test]
fn backoffs_of_peers_never_overflow_a_time() {
    let late = Duration::MAX.saturating_sub(secs(1));
    let mut engine =
        Engine::new(Config::default(), Signing::StrictNoSign, 0, late, 5).expect("a configuration");
    engine.subscribe(late, "t").expect("a topic");
    add(&mut engine, late, 1, false);
    for rpc in everything(1, 0) {
        engine.handle_rpc(late, &Node(1), &rpc);
    }
    engine.handle_timeout(engine.poll_timeout());
    engine.handle_timeout(Duration::MAX);
    sent(&mut engine, Duration::MAX);
}

/// The memory charged for an RPC before parsing is at least what it holds after parsing.
#[test]
fn short_messages_are_charged_what_they_hold() {
    let engine = alone(Config::default(), Signing::StrictNoSign, 0);
    let message = b"\x12\x03\x22\x01t";
    let rpc = Bytes::from(message.repeat(4000));
    let charged = Codec::held(&rpc);
    // 20 kB held 1.5 MB when they were parsed.
    assert!(charged >= 1_200_000, "{charged} for {}", rpc.len());
    assert!(engine.codec().read(&rpc).error().is_none());
    assert!(Codec::held(b"") == 0 && Codec::held(b"\xff\xff") <= 2048);
}
