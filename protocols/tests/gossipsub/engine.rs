//! Laws of gossipsub on networks of engines in virtual time.

use std::time::Duration;

use crate::net::{Net, Node, add, alone, beat, events, messages, ms, secs, sent};
use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{Limits, PeerInfo, Rpc};
use p2p_protocols::gossipsub::{
    Config, Connection, Counts, Engine, Event, MessageAcceptance, QueueConfig, Signing, Validation, Version,
};

fn text(number: usize) -> Bytes {
    format!("message {number}").into()
}

/// Publishes messages from one node after another, and returns them.
fn publish(net: &mut Net, count: usize, every: Duration, make: impl Fn(usize) -> Bytes) -> Vec<(u32, Bytes)> {
    let nodes = net.engines.len();
    let messages = (0..count).map(|number| ((number % nodes) as u32, make(number)));
    let messages: Vec<_> = messages.collect();
    for (from, data) in &messages {
        net.publish(*from, "t", data);
        net.run(every);
    }
    messages
}

fn sum(net: &Net, count: impl Fn(Counts) -> u64) -> u64 {
    net.engines.iter().map(|engine| count(engine.counts())).sum()
}

fn mesh_only() -> Config {
    Config {
        flood_publish: false,
        ..Config::default()
    }
}

#[test]
fn every_subscriber_gets_every_message_once() {
    for (seed, flood_publish, signed) in [(1, true, false), (2, false, false), (3, false, true)] {
        let config = Config {
            flood_publish,
            ..Config::default()
        };
        let mut net = Net::new(40, seed, &config, signed);
        net.connect_all(8);
        net.subscribe_all("t");
        net.run(secs(5));
        let messages = publish(&mut net, 60, ms(50), text);
        net.run(secs(5));
        net.assert_delivered(&messages);
        assert_eq!(
            sum(&net, |counts| counts.rejected
                + counts.malformed
                + counts.broken_promises),
            0
        );
    }
}

#[test]
fn meshes_have_between_d_lo_and_d_hi_neighbours() {
    let mut net = Net::new(60, 4, &Config::default(), false);
    net.connect_all(10);
    net.subscribe_all("t");
    net.run(secs(90));
    for _ in 0..20 {
        net.run(secs(1));
        for engine in &net.engines {
            let (degree, config) = (engine.mesh("t").count(), engine.config());
            assert!((config.d_lo..=config.d_hi).contains(&degree), "degree {degree}");
        }
    }
}

#[test]
fn a_node_that_only_publishes_has_a_fanout_until_it_stops() {
    let mut net = Net::new(30, 5, &mesh_only(), false);
    net.connect_all(10);
    for at in 1..30 {
        net.engines[at as usize].subscribe(net.now, "t").expect("a topic");
        net.settle(at);
    }
    net.run(secs(5));
    let messages: Vec<_> = (0..10).map(|number| (0, text(number))).collect();
    for (_, data) in &messages {
        net.publish(0, "t", data);
        net.run(secs(1));
    }
    net.assert_delivered(&messages);
    assert_eq!(net.engines[0].fanout("t").count(), 6);
    net.run(secs(62));
    assert_eq!(net.engines[0].fanout("t").count(), 0);
}

#[test]
fn gossip_repairs_what_was_lost() {
    let mut net = Net::new(30, 6, &mesh_only(), false);
    net.loss = 0.1;
    net.connect_all(10);
    net.subscribe_all("t");
    net.run(secs(5));
    let messages = publish(&mut net, 100, ms(100), text);
    net.run(secs(10));
    let got: usize = net.got.iter().map(std::collections::BTreeMap::len).sum();
    let due = messages.len() * 29;
    eprintln!(
        "{got} of {due}, {} on request",
        sum(&net, |counts| counts.iwant_served)
    );
    assert!(got * 1000 >= due * 999, "{got} of {due}");
    assert!(
        net.got
            .iter()
            .flat_map(|got| got.values())
            .all(|times| *times == 1)
    );
    assert!(sum(&net, |counts| counts.iwant_served) > 0);
}

#[test]
fn idontwant_halves_the_copies_of_large_messages() {
    let copies = |idontwant_threshold| {
        let config = Config {
            idontwant_threshold,
            queue: QueueConfig {
                forwarded_age: secs(60),
                own_age: secs(60),
                ..QueueConfig::default()
            },
            ..mesh_only()
        };
        let mut net = Net::new(30, 7, &config, false);
        net.connect_all(10);
        net.subscribe_all("t");
        net.run(secs(5));
        net.rate = 262_144.0;
        let large = |number| {
            let mut data = vec![0; 128 << 10];
            data[0] = number as u8;
            data.into()
        };
        let messages = publish(&mut net, 5, secs(20), large);
        net.assert_delivered(&messages);
        sum(&net, |counts| counts.delivered + counts.duplicates)
    };
    let (without, with) = (copies(usize::MAX), copies(1024));
    eprintln!("copies received: {without} without, {with} with");
    assert!(with * 2 <= without, "{with} with, {without} without");
}

#[test]
fn nodes_of_all_versions_and_floodsub_reach_one_another() {
    let mut net = Net::new(40, 8, &mesh_only(), false);
    for (at, version) in net.versions.iter_mut().enumerate() {
        *version = Version::ALL[at % 4];
    }
    for at in (3..40).step_by(4) {
        let config = Config {
            floodsub: true,
            ..Config::default()
        };
        net.engines[at] = Engine::new(config, Signing::StrictNoSign, 0, Duration::ZERO, 1).expect("floodsub");
    }
    net.connect_all(10);
    net.subscribe_all("t");
    net.run(secs(5));
    let messages = publish(&mut net, 40, ms(200), |number| vec![number as u8; 2000].into());
    net.run(secs(5));
    net.assert_delivered(&messages);
    assert!(sum(&net, |counts| counts.idontwant_sent) > 0);
}

#[test]
fn a_seed_replays_a_run() {
    let run = || {
        let mut net = Net::new(20, 9, &mesh_only(), false);
        net.loss = 0.05;
        net.connect_all(8);
        net.subscribe_all("t");
        publish(&mut net, 20, ms(100), text);
        net.engines.iter().map(Engine::counts).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn nodes_that_leave_and_return_are_meshed_again() {
    let mut net = Net::new(20, 10, &mesh_only(), false);
    net.connect_all(8);
    net.subscribe_all("t");
    net.run(secs(5));
    for at in 0..5 {
        assert!(net.engines[at as usize].unsubscribe(net.now, "t"));
        net.settle(at);
    }
    net.run(secs(20));
    let messages = publish(&mut net, 5, ms(100), text);
    net.run(secs(5));
    assert!(net.got[..5].iter().all(std::collections::BTreeMap::is_empty));
    assert!(net.got[5..].iter().all(|got| got.len() >= 4));
    drop(messages);
    for at in 0..5 {
        net.engines[at as usize].subscribe(net.now, "t").expect("a topic");
        net.settle(at);
    }
    net.run(secs(5));
    let messages = publish(&mut net, 20, ms(100), |number| text(number + 100));
    net.run(secs(5));
    net.assert_delivered(&messages);
}

#[test]
fn all_copies_of_a_message_share_one_buffer() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 8);
    sent(&mut engine, ms(0));
    engine.publish(ms(0), "t", text(1)).expect("published");
    let copies: Vec<_> = std::iter::from_fn(|| engine.poll_transmit(ms(0))).collect();
    assert_eq!(copies.len(), 8);
    assert!(
        copies
            .iter()
            .all(|copy| copy.rpc.as_ptr() == copies[0].rpc.as_ptr())
    );
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 6);
    sent(&mut engine, ms(0));
    engine.handle_rpc(ms(0), &Node(1), &copies[0].rpc);
    let copies: Vec<_> = std::iter::from_fn(|| engine.poll_transmit(ms(0))).collect();
    assert_eq!(copies.len(), 5);
    assert!(
        copies
            .iter()
            .all(|copy| copy.rpc.as_ptr() == copies[0].rpc.as_ptr())
    );
}

/// Returns a message of "t" as an RPC.
fn message(number: usize) -> Bytes {
    let mut other = alone(Config::default(), Signing::StrictNoSign, 1);
    sent(&mut other, ms(0));
    other.publish(ms(0), "t", text(number)).expect("published");
    other.poll_transmit(ms(0)).expect("a message").rpc
}

#[test]
fn the_application_decides_what_is_forwarded() {
    let config = Config {
        validation: Validation::Application,
        ..Config::default()
    };
    for (acceptance, copies, score) in [
        (Some(MessageAcceptance::Accept), 4, 1.0),
        (Some(MessageAcceptance::Ignore), 0, 0.0),
        (Some(MessageAcceptance::Reject), 0, -1.0),
        (None, 0, 0.0),
    ] {
        let mut engine = alone(config.clone(), Signing::StrictNoSign, 6);
        sent(&mut engine, ms(0));
        events(&mut engine);
        // A peer that sends it again before the decision is scored with the sender, and does not get it back.
        engine.handle_rpc(ms(0), &Node(1), &message(1));
        engine.handle_rpc(ms(0), &Node(2), &message(1));
        assert!(sent(&mut engine, ms(0)).is_empty());
        let asked = events(&mut engine);
        let [Event::Validate(received)] = &asked[..] else {
            panic!("{asked:?}")
        };
        if let Some(acceptance) = acceptance {
            assert!(engine.validate(ms(0), &received.id, acceptance));
        }
        let late = engine.config().validation_timeout;
        assert!(!engine.validate(late, &received.id, MessageAcceptance::Accept));
        assert_eq!(sent(&mut engine, ms(0)).len(), copies);
        let scored = engine.score(ms(0), &Node(1));
        assert!(
            scored * score > 0.0 || (scored == 0.0 && score == 0.0),
            "{acceptance:?}: {scored}"
        );
        // It is recognised as a duplicate after any decision.
        engine.handle_rpc(ms(1), &Node(3), &message(1));
        assert!(sent(&mut engine, ms(1)).is_empty());
        assert_eq!(engine.kept().validating, 0);
    }
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_gets_the_newest() {
    let config = Config {
        queue: QueueConfig {
            bytes: 10_000,
            own: 50,
            ..QueueConfig::default()
        },
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 1);
    sent(&mut engine, ms(0));
    engine.set_writable(&Node(1), false);
    for number in 0..1000 {
        engine.publish(ms(0), "t", text(number)).expect("published");
        assert!(engine.poll_transmit(ms(0)).is_none());
        let kept = engine.kept();
        assert!(kept.queued <= 50 && kept.queued_bytes <= 10_000);
    }
    assert_eq!(engine.counts().queue_dropped, 950);
    engine.set_writable(&Node(1), true);
    let got = messages(sent(&mut engine, ms(1000)));
    assert_eq!(got.len(), 50);
    assert!(got[49].1.windows(11).any(|part| part == b"message 999"));
    engine.set_writable(&Node(1), false);
    engine.publish(ms(0), "t", text(1000)).expect("published");
    engine.set_writable(&Node(1), true);
    assert!(sent(&mut engine, secs(6)).is_empty(), "too old");
}

#[test]
fn explicit_peers_get_everything_and_are_in_no_mesh() {
    let mut engine = alone(mesh_only(), Signing::StrictNoSign, 3);
    engine.add_explicit(ms(0), Node(9));
    beat(&mut engine, secs(1));
    assert!(events(&mut engine).contains(&Event::Connect { peer: Node(9) }));
    add(&mut engine, secs(1), 9, true);
    beat(&mut engine, secs(10));
    assert!(engine.mesh("t").all(|peer| peer.0 != 9));
    sent(&mut engine, secs(10));
    engine.set_app_specific_score(&Node(9), -1e9);
    engine.handle_rpc(secs(10), &Node(1), &message(1));
    engine.publish(secs(10), "t", text(2)).expect("published");
    let to_nine = |sent: Vec<(u32, Rpc)>| sent.into_iter().filter(|(to, _)| *to == 9).collect::<Vec<_>>();
    assert_eq!(messages(to_nine(sent(&mut engine, secs(10)))).len(), 2);
    engine.handle_rpc(
        secs(10),
        &Node(9),
        &Bytes::from_static(b"\x1a\x05\x1a\x03\x0a\x01t"),
    );
    let answer = to_nine(sent(&mut engine, secs(10)));
    assert_eq!(answer[0].1.control.as_ref().expect("a PRUNE").prune.len(), 1);
    engine.handle_rpc(secs(10), &Node(9), &message(3));
    assert!(
        events(&mut engine)
            .iter()
            .any(|event| matches!(event, Event::Message(_)))
    );
}

#[test]
fn a_full_mesh_accepts_only_outbound_peers_and_names_others_to_the_rest() {
    let mut engine: Engine<Node> =
        Engine::new(Config::default(), Signing::StrictNoSign, 0, ms(0), 1).expect("an engine");
    engine.subscribe(ms(0), "t").expect("a topic");
    let graft = Bytes::from_static(b"\x0a\x05\x08\x01\x12\x01t\x1a\x05\x1a\x03\x0a\x01t");
    for number in 1..=40 {
        let connection = Connection {
            version: Version::V1_2,
            outbound: number > 38,
            info: Some(PeerInfo {
                peer_id: Some(Bytes::from(vec![number as u8; 4])),
                signed_peer_record: None,
            }),
        };
        engine.add_peer(ms(0), &Node(number), connection).expect("room");
        engine.handle_rpc(ms(0), &Node(number), &graft);
    }
    assert_eq!(engine.mesh("t").count(), 14);
    let prunes: Vec<_> = sent(&mut engine, ms(0))
        .into_iter()
        .flat_map(|(to, rpc)| {
            rpc.control
                .unwrap_or_default()
                .prune
                .into_iter()
                .map(move |prune| (to, prune))
        })
        .collect();
    assert_eq!(prunes.len(), 26);
    for (to, prune) in &prunes {
        assert_eq!(prune.backoff, Some(60));
        assert!((12..=16).contains(&prune.peers.len()));
        assert!(
            prune
                .peers
                .iter()
                .all(|info| info.peer_id.as_deref() != Some(&[*to as u8; 4]))
        );
    }
    beat(&mut engine, secs(1));
    let mesh: Vec<_> = engine.mesh("t").map(|peer| peer.0).collect();
    assert_eq!(mesh.len(), 6);
    assert!(mesh.contains(&39) && mesh.contains(&40), "{mesh:?}");
}

#[test]
fn a_peer_without_a_known_id_is_not_named_to_others() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 1);
    let connection = Connection {
        version: Version::V1_2,
        outbound: true,
        info: Some(PeerInfo::default()),
    };
    engine.add_peer(ms(0), &Node(2), connection).expect("room");
    engine.handle_rpc(ms(0), &Node(2), &Bytes::from_static(b"\x0a\x05\x08\x01\x12\x01t"));
    assert_eq!(engine.subscribers("t").count(), 2);
    engine.unsubscribe(ms(0), "t");
    let sent = sent(&mut engine, ms(0)).into_iter();
    let prunes: Vec<_> = sent
        .flat_map(|(_, rpc)| rpc.control.unwrap_or_default().prune)
        .collect();
    assert!(!prunes.is_empty() && prunes.iter().all(|prune| prune.peers.is_empty()));
}

/// Gossip, requests, subscriptions and peer exchanges are limited to the size of an RPC; nothing is lost in
/// the end.
#[test]
fn everything_fits_into_small_rpcs() {
    let config = Config {
        limits: Limits {
            rpc: 500,
            ..Limits::default()
        },
        ..mesh_only()
    };
    let mut net = Net::new(30, 11, &config, true);
    net.loss = 0.02;
    net.connect_all(10);
    for topic in 0..12 {
        net.subscribe_all(&format!("a topic that has a rather long name, number {topic}"));
    }
    net.subscribe_all("t");
    net.run(secs(5));
    let messages = publish(&mut net, 200, ms(20), text);
    net.run(secs(10));
    let got: usize = net.got.iter().map(std::collections::BTreeMap::len).sum();
    assert!(got * 1000 >= messages.len() * 29 * 999, "{got}");
    let (asked, malformed) = (
        sum(&net, |counts| counts.iwant_served),
        sum(&net, |counts| counts.malformed),
    );
    assert!(asked > 0 && malformed == 0);
}

#[test]
fn no_rpc_exceeds_the_size_limit() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 1);
    let limit = Limits::default().rpc;
    let around = message(1).len() - text(1).len() + 4;
    let too_long = Bytes::from(vec![0; limit]);
    assert!(engine.publish(ms(0), "t", too_long).is_err());
    sent(&mut engine, ms(0));
    let fits = Bytes::from(vec![0; limit - around]);
    engine.publish(ms(0), "t", fits).expect("it fits");
    let sent = engine.poll_transmit(ms(0)).expect("a message").rpc;
    assert_eq!(sent.len(), limit);
    assert!(
        engine
            .publish(ms(0), "t", Bytes::from(vec![0; limit - around + 1]))
            .is_err()
    );
    assert!(engine.publish(ms(0), "", text(1)).is_err());
}
