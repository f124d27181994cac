//! Floods of one limit each: from one identity, from one network, and from many networks.

use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr, PeerId};
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlMessage, ControlPrune, Hello, Message, PeerInfo, Rpc, SubOpts,
};
use p2p_protocols::gossipsub::{
    Config, Engine, Event, MessageAcceptance, ScoreConfig, Signing, Validation, Version,
};
use prost::Message as _;

use super::{add_inbound, control, hello, in_network, iwant};
use crate::net::{Node, add, alone, beat, connection, events, messages, ms, secs, sent};

/// The name of a group of attackers, and the node for each number.
type Crowd = (&'static str, fn(u32) -> u32);

/// A flooding node. Numbers from 2^24 on are addresses, of which 2^8 share a network.
const CROWDS: [Crowd; 3] = [
    ("one identity", |_| in_network(7, 1)),
    ("one network", |at| in_network(7, (at % 250) as u8)),
    ("many networks", |at| 0x3000_0000 + (at % 700) * 256),
];

/// An honest inbound peer, and an honest outbound one.
const HONEST: u32 = 0x5000_0000;
const CHOSEN: u32 = 0x5100_0000;

/// Returns whether this group is ignored, because so many peers at one IP address have low scores.
fn is_graylisted(crowd: &str) -> bool {
    crowd == "one network"
}

/// Makes a node an inbound peer, if it is not one and there is room.
fn join(engine: &mut Engine<Node>, now: Duration, number: u32) {
    if !engine.is_peer(&Node(number)) {
        add_inbound(engine, now, number);
    }
}

fn subscribe(topics: impl IntoIterator<Item = String>) -> Bytes {
    let subscriptions = topics.into_iter().map(|topic| SubOpts {
        subscribe: Some(true),
        topicid: Some(topic),
    });
    let subscriptions = subscriptions.collect();
    let rpc = Rpc {
        subscriptions,
        ..Rpc::default()
    };
    rpc.emit()
}

fn publish(topic: &str, data: Vec<u8>) -> Bytes {
    let message = Message {
        topic: Some(topic.to_owned()),
        data: Some(data.into()),
        ..Message::default()
    };
    let rpc = Rpc {
        publish: vec![message.encode_to_vec().into()],
        ..Rpc::default()
    };
    rpc.emit()
}

fn wants(engine: &Engine<Node>, topic: &str, peer: u32) -> bool {
    engine.subscribers(topic).any(|of| *of == Node(peer))
}

#[test]
fn topics_of_many_attackers_leave_room_for_those_of_others() {
    let config = Config {
        max_topics: 400,
        ..Config::default()
    };
    for (crowd, source) in CROWDS {
        let mut engine = alone(config.clone(), Signing::StrictNoSign, 0);
        for at in 0..700 {
            let from = source(at);
            join(&mut engine, ms(0), from);
            let topics = (0..50).map(|topic| format!("{from} {at} {topic}"));
            engine.handle_rpc(ms(0), &Node(from), &subscribe(topics));
            assert!(engine.kept().topics <= 400, "{crowd}");
        }
        assert!(engine.counts().subscriptions_ignored > 0, "{crowd}");
        add_inbound(&mut engine, ms(0), HONEST);
        engine.handle_rpc(
            ms(0),
            &Node(HONEST),
            &subscribe(["t".to_owned(), "honest".to_owned()]),
        );
        // Topics that this node joined are always known; others, within the share of a network.
        assert!(wants(&engine, "t", HONEST), "{crowd}");
        assert_eq!(
            wants(&engine, "honest", HONEST),
            crowd != "many networks",
            "{crowd}"
        );
        // Outbound peers have a separate share.
        engine
            .add_peer(ms(0), &Node(CHOSEN), connection(Version::V1_2, true))
            .expect("room");
        engine.handle_rpc(ms(0), &Node(CHOSEN), &subscribe(["chosen".to_owned()]));
        assert!(wants(&engine, "chosen", CHOSEN), "{crowd}");
        let own = engine.publish(ms(0), "chosen", Bytes::from_static(b"own"));
        assert!(own.is_ok(), "{crowd}");
        engine
            .subscribe(ms(0), "mine")
            .expect("own topics are not among those of others");
        // A network that leaves its topics gets its share back.
        for at in 0..700 {
            engine.remove_peer(ms(0), &Node(source(at)));
        }
        let from = in_network(7, 2);
        join(&mut engine, ms(0), from);
        engine.handle_rpc(ms(0), &Node(from), &subscribe(["again".to_owned()]));
        assert!(wants(&engine, "again", from), "{crowd}");
    }
}

#[test]
fn many_requests_for_a_message_do_not_exclude_another_peer() {
    for (crowd, source) in CROWDS {
        // Without scores, so that no network is ignored.
        let config = Config {
            score: None,
            ..Config::default()
        };
        let mut engine = alone(config, Signing::StrictNoSign, 0);
        let published = engine.publish(ms(0), "t", vec![1; 1000].into());
        let id = published
            .expect("it is kept, though no peer wants it")
            .id
            .to_bytes();
        let request = iwant(vec![id]);
        let (mut asked, mut copies) = (0, 0);
        for at in 0..700 {
            let from = source(at);
            join(&mut engine, ms(0), from);
            asked += request.len();
            engine.handle_rpc(ms(0), &Node(from), &request);
            copies += messages(sent(&mut engine, ms(0))).len();
        }
        assert!(asked > 0 && copies <= 256, "{crowd}: {copies}");
        let mut gets = |peer, outbound| {
            engine
                .add_peer(ms(0), &Node(peer), connection(Version::V1_2, outbound))
                .expect("room");
            engine.handle_rpc(ms(0), &Node(peer), &request);
            messages(sent(&mut engine, ms(0)))
                .iter()
                .any(|(to, _)| *to == peer)
        };
        assert_eq!(gets(HONEST, false), crowd != "many networks", "{crowd}");
        assert!(gets(CHOSEN, true), "{crowd}");
    }
}

#[test]
fn messages_of_a_crowd_that_wait_for_the_application_keep_none_of_an_honest_peer_out() {
    let config = Config {
        max_validating: 100,
        validation: Validation::Application,
        score: None,
        ..Config::default()
    };
    for (crowd, source) in CROWDS {
        let mut engine = alone(config.clone(), Signing::StrictNoSign, 0);
        add_inbound(&mut engine, ms(0), HONEST);
        // What came before the flood waits, and so does what comes behind it.
        for (part, number) in [("before", 0), ("behind", 1000)] {
            engine.handle_rpc(ms(0), &Node(HONEST), &publish("t", part.as_bytes().to_vec()));
            for at in number..number + 1000 {
                let from = source(at);
                join(&mut engine, ms(0), from);
                engine.handle_rpc(ms(0), &Node(from), &publish("t", at.to_be_bytes().to_vec()));
                assert!(engine.kept().validating <= 100, "{crowd}");
            }
        }
        let ids = events(&mut engine).into_iter().filter_map(|event| match event {
            Event::Validate(received) if received.via == Node(HONEST) => Some(received.id),
            _ => None,
        });
        let waiting: Vec<bool> = ids
            .map(|id| engine.validate(ms(0), &id, MessageAcceptance::Accept))
            .collect();
        // Of as many peers as there are places the oldest message goes.
        let expected = if crowd == "many networks" { 0 } else { 2 };
        let still = waiting.iter().filter(|still| **still).count();
        assert!(waiting.len() == 2 && still >= expected, "{crowd}: {waiting:?}");
    }
}

#[test]
fn a_flood_of_idontwant_is_bounded_and_affects_only_its_sender() {
    for (crowd, source) in CROWDS {
        let mut engine = alone(Config::default(), Signing::StrictNoSign, 1);
        add(&mut engine, ms(0), 2, false);
        for at in 0..300_u32 {
            let from = source(at);
            join(&mut engine, ms(0), from);
            let id = |number: u32| {
                let mut id = vec![b'x'; 128];
                id[..4].copy_from_slice(&number.to_be_bytes());
                Bytes::from(id)
            };
            let message_ids = (0..200).map(|number| id(at * 200 + number)).collect();
            let dont = control(ControlMessage {
                idontwant: vec![ControlIDontWant { message_ids }],
                ..ControlMessage::default()
            });
            engine.handle_rpc(ms(0), &Node(from), &dont);
        }
        if crowd == "one identity" {
            assert_eq!(engine.counts().idontwant_ignored, 300 * 200 - 1000);
        }
        // Peer 2 does not want the message that peer 1 sends next; this must not concern peer 1.
        let data = vec![9; 2000];
        let publish = publish("t", data);
        let mut other = alone(Config::default(), Signing::StrictNoSign, 3);
        other.handle_rpc(ms(0), &Node(1), &publish);
        let id = events(&mut other).into_iter().find_map(|event| match event {
            Event::Message(received) => Some(received.id.to_bytes()),
            _ => None,
        });
        let dont = control(ControlMessage {
            idontwant: vec![ControlIDontWant {
                message_ids: vec![id.expect("it is delivered")],
            }],
            ..ControlMessage::default()
        });
        engine.handle_rpc(ms(0), &Node(2), &dont);
        add(&mut engine, ms(0), 3, false);
        beat(&mut engine, secs(1));
        sent(&mut engine, secs(1));
        engine.handle_rpc(secs(1), &Node(1), &publish);
        let to: Vec<u32> = messages(sent(&mut engine, secs(1)))
            .into_iter()
            .map(|(to, _)| to)
            .collect();
        assert!(to.contains(&3) && !to.contains(&2), "{crowd}: {to:?}");
    }
}

#[test]
fn a_flood_of_messages_for_a_slow_peer_does_not_delay_its_control_and_own_messages() {
    for (crowd, source) in CROWDS {
        let mut engine = alone(Config::default(), Signing::StrictNoSign, 1);
        beat(&mut engine, secs(1));
        sent(&mut engine, secs(1));
        engine.set_writable(&Node(1), false);
        engine
            .publish(secs(1), "t", Bytes::from_static(b"own"))
            .expect("queued");
        for at in 0..3000_u32 {
            let from = source(at);
            join(&mut engine, secs(1), from);
            engine.handle_rpc(
                secs(1),
                &Node(from),
                &publish("t", [&at.to_be_bytes()[..], &[7; 2000]].concat()),
            );
            while engine.poll_transmit(secs(1)).is_some() {}
            events(&mut engine);
        }
        engine.subscribe(secs(1), "later").expect("a topic");
        let kept = engine.kept();
        assert!(
            kept.queued_bytes <= 4 << 20 && kept.cached <= 4096 && kept.cached_bytes <= 32 << 20,
            "{kept:?}"
        );
        assert!(
            engine.counts().queue_dropped > 0 || is_graylisted(crowd),
            "{crowd}"
        );
        engine.set_writable(&Node(1), true);
        let to_slow = sent(&mut engine, secs(1)).into_iter().filter(|(to, _)| *to == 1);
        let to_slow: Vec<Rpc> = to_slow.map(|(_, rpc)| rpc).collect();
        let is_own = |rpc: &Rpc| {
            rpc.publish
                .iter()
                .any(|message| message.windows(3).any(|part| part == b"own"))
        };
        let control = to_slow.iter().position(|rpc| !rpc.subscriptions.is_empty());
        let own = to_slow.iter().position(is_own);
        let first_other = to_slow
            .iter()
            .position(|rpc| !rpc.publish.is_empty() && !is_own(rpc));
        assert!(
            control < own && own < first_other && control.is_some(),
            "{crowd}: {control:?} {own:?} {first_other:?}"
        );
    }
}

#[test]
fn reconnecting_attackers_do_not_displace_the_penalties_of_others() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 0);
    let bad = in_network(9, 1);
    add(&mut engine, ms(0), bad, false);
    let graft = |topic: &str| ControlGraft {
        topic_id: Some(topic.to_owned()),
    };
    // GRAFT during a backoff, repeatedly.
    for round in 0..20 {
        let prune = ControlPrune {
            topic_id: Some("t".into()),
            ..ControlPrune::default()
        };
        let both = control(ControlMessage {
            prune: vec![prune],
            ..ControlMessage::default()
        });
        engine.handle_rpc(ms(round), &Node(bad), &both);
        let again = control(ControlMessage {
            graft: vec![graft("t")],
            ..ControlMessage::default()
        });
        engine.handle_rpc(ms(round), &Node(bad), &again);
    }
    let score = engine.score(ms(100), &Node(bad));
    assert!(score < 0.0, "{score}");
    for (crowd, source) in CROWDS {
        engine.remove_peer(ms(100), &Node(bad));
        for at in 0..6000 {
            // Another identity each time, from many networks.
            let from = if crowd == "many networks" {
                0x3000_0000 + at * 256
            } else {
                source(at)
            };
            add_inbound(&mut engine, ms(100), from);
            engine.remove_peer(ms(100), &Node(from));
        }
        add_inbound(&mut engine, ms(100), bad);
        let after = engine.score(ms(100), &Node(bad));
        assert!(after <= score, "{crowd}: {after} instead of {score}");
    }
}

#[test]
fn a_flood_of_peer_exchanges_is_bounded() {
    // From any peer with a score that is not low.
    let config = Config {
        score: Some(ScoreConfig {
            accept_px_threshold: 0.0,
            ..ScoreConfig::default()
        }),
        ..Config::default()
    };
    for (crowd, source) in CROWDS {
        let mut engine = alone(config.clone(), Signing::StrictNoSign, 1);
        let peers = engine.config().prune_peers;
        let named = (0..1000_u32).map(|number| PeerInfo {
            peer_id: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            ..PeerInfo::default()
        });
        let prune = ControlPrune {
            topic_id: Some("t".into()),
            peers: named.collect(),
            backoff: None,
        };
        let prune = control(ControlMessage {
            prune: vec![prune.clone(), prune.clone(), prune],
            ..ControlMessage::default()
        });
        for at in 0..100 {
            let from = source(at);
            join(&mut engine, ms(0), from);
            engine.handle_rpc(ms(0), &Node(from), &prune);
            let exchanged: Vec<usize> = events(&mut engine)
                .into_iter()
                .filter_map(|event| match event {
                    Event::PeerExchange { peers, .. } => Some(peers.len()),
                    _ => None,
                })
                .collect();
            let taken: usize = exchanged.iter().sum();
            assert!(
                taken == peers || (taken == 0 && is_graylisted(crowd)),
                "{crowd}: {taken}"
            );
        }
        let ignored = engine.counts().exchange_ignored;
        assert!(
            ignored >= 100 * (1000 - peers as u64) || is_graylisted(crowd),
            "{crowd}"
        );
        assert!(engine.kept().backoffs <= engine.config().max_backoffs, "{crowd}");
        // An honest peer is still grafted.
        add(&mut engine, ms(0), HONEST, false);
        beat(&mut engine, secs(3));
        assert!(engine.mesh("t").any(|peer| *peer == Node(HONEST)), "{crowd}");
    }
}

#[test]
fn direct_messages_of_many_attackers_do_not_exclude_an_honest_peer() {
    let config = Config {
        direct: true,
        max_seen: 1000,
        ..Config::default()
    };
    let tell = |number: u32, topic: &str| {
        let message = Message {
            topic: Some(topic.to_owned()),
            data: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            seqno: Some(Bytes::copy_from_slice(&u64::from(number).to_be_bytes())),
            ..Message::default()
        };
        let rpc = Rpc {
            direct: vec![message.encode_to_vec().into()],
            ..Rpc::default()
        };
        rpc.emit()
    };
    let introduce = hello(Hello::default());
    for (crowd, source) in CROWDS {
        let mut engine = alone(config.clone(), Signing::StrictNoSign, 0);
        let told = |engine: &mut Engine<Node>| {
            let direct = events(engine)
                .into_iter()
                .filter(|event| matches!(event, Event::Direct(_)));
            direct.count()
        };
        for at in 0..3000 {
            let from = source(at);
            join(&mut engine, ms(0), from);
            engine.handle_rpc(ms(0), &Node(from), &introduce);
            for topic in ["t", "not spoken of"] {
                engine.handle_rpc(ms(0), &Node(from), &tell(at, topic));
            }
            let queued = engine.kept().queued_bytes;
            assert!(queued <= 4 << 20, "{crowd}: {queued}");
            sent(&mut engine, ms(0));
        }
        assert!(told(&mut engine) > 0 || is_graylisted(crowd), "{crowd}");
        assert!(
            engine.counts().unrequested >= 3000 || is_graylisted(crowd),
            "{crowd}"
        );
        add_inbound(&mut engine, ms(0), HONEST);
        engine.handle_rpc(ms(0), &Node(HONEST), &introduce);
        engine.handle_rpc(ms(0), &Node(HONEST), &tell(1, "t"));
        engine.handle_rpc(ms(0), &Node(HONEST), &tell(1, "t"));
        assert_eq!(told(&mut engine), 1, "{crowd}");
        // This node can also send it a direct message.
        let own = engine.tell(ms(0), &Node(HONEST), "t", Bytes::from_static(b"own"));
        assert!(own.is_ok(), "{crowd}: {own:?}");
    }
}

/// An identity at one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct At(u8, u16);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl Addr for At {
    fn peer_id(&self) -> Option<PeerId> {
        Some(PeerId::new([self.0; 32]))
    }
}

#[test]
fn one_identity_at_many_addresses_gets_few_inbound_places() {
    let config = Config {
        max_inbound: 20,
        ..Config::default()
    };
    let mut engine = Engine::new(config, Signing::StrictNoSign, 0, ms(0), 5).expect("a configuration");
    let inbound = || connection(Version::V1_2, false);
    let honest: Vec<At> = (2..10).map(|id| At(id, 1)).collect();
    for peer in &honest {
        engine.add_peer(ms(0), peer, inbound()).expect("room");
    }
    for port in 0..1000 {
        engine
            .add_peer(ms(0), &At(1, port), inbound())
            .expect("in place of one of its own");
    }
    let places = engine.peers().filter(|peer| peer.0 == 1).count();
    assert_eq!(places, engine.config().max_inbound_per_identity);
    assert!(honest.iter().all(|peer| engine.is_peer(peer)));
    engine
        .add_peer(ms(0), &At(10, 1), inbound())
        .expect("room for another one");
}
