//! Peer scores, and the reaction to misbehaving peers.

use std::time::Duration;

use crate::net::{Node, add, alone, beat, events, messages, ms, secs, sent, signing};
use bytes::Bytes;
use p2p::Error;
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Limits, Message, PeerInfo, Rpc,
    frame,
};
use p2p_protocols::gossipsub::{
    Config, Connection, Engine, Event, ScoreConfig, Signing, Topic, TopicScoreParams, Version,
};
use prost::Message as _;

fn topic() -> String {
    "t".into()
}

fn control(control: ControlMessage) -> Bytes {
    Rpc {
        control: Some(control),
        ..Rpc::default()
    }
    .emit()
}

fn graft() -> Bytes {
    control(ControlMessage {
        graft: vec![ControlGraft {
            topic_id: Some(topic()),
        }],
        ..ControlMessage::default()
    })
}

fn prune(backoff: Option<u64>, peers: usize) -> Bytes {
    let info = |number: usize| PeerInfo {
        peer_id: Some(number.to_be_bytes().to_vec().into()),
        signed_peer_record: None,
    };
    control(ControlMessage {
        prune: vec![ControlPrune {
            topic_id: Some(topic()),
            peers: (0..peers).map(info).collect(),
            backoff,
        }],
        ..ControlMessage::default()
    })
}

fn ihave(ids: impl Iterator<Item = u32>) -> Bytes {
    let ids = ids.map(|id| Bytes::copy_from_slice(&id.to_be_bytes()));
    control(ControlMessage {
        ihave: vec![ControlIHave {
            topic_id: Some(topic()),
            message_ids: ids.collect(),
        }],
        ..ControlMessage::default()
    })
}

/// Returns an unsigned message of "t".
fn message(number: usize) -> Bytes {
    frame(
        &Signing::StrictNoSign
            .make("t", format!("{number}").into(), 0)
            .encode_to_vec(),
    )
}

fn engine(peers: u32) -> Engine<Node> {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, peers);
    sent(&mut engine, ms(0));
    engine
}

fn with_topic(params: TopicScoreParams) -> Config {
    Config {
        score: Some(ScoreConfig {
            topics: [(Topic::from("t"), params)].into(),
            ..ScoreConfig::default()
        }),
        ..Config::default()
    }
}

#[track_caller]
fn assert_score(engine: &Engine<Node>, now: Duration, peer: u32, score: f64) {
    let is = engine.score(now, &Node(peer));
    assert!((is - score).abs() < 1e-9, "{is} is not {score}");
}

#[test]
fn p1_grows_with_the_time_in_the_mesh_up_to_its_cap() {
    let mut engine = engine(1);
    assert_eq!(engine.mesh("t").count(), 1);
    assert_score(&engine, secs(50), 1, 0.5);
    assert_score(&engine, secs(1000), 1, 1.0);
    engine.handle_rpc(secs(1000), &Node(1), &prune(None, 0));
    assert_score(&engine, secs(1001), 1, 0.0);
}

#[test]
fn p2_counts_first_deliveries_up_to_its_cap_and_decays() {
    let mut engine = engine(2);
    engine.handle_rpc(ms(0), &Node(1), &message(1));
    engine.handle_rpc(ms(0), &Node(2), &message(1));
    assert_score(&engine, ms(0), 1, 0.2);
    assert_score(&engine, ms(0), 2, 0.0);
    for number in 2..200 {
        engine.handle_rpc(ms(0), &Node(1), &message(number));
    }
    assert_score(&engine, ms(0), 1, 10.0);
    engine.handle_rpc(ms(0), &Node(1), &prune(None, 0));
    beat(&mut engine, secs(10));
    // Nine or ten decays have passed, depending on the first heartbeat.
    let score = engine.score(secs(10), &Node(1));
    assert!(
        (10.0 * 0.98_f64.powi(10) - 1e-9..10.0 * 0.98_f64.powi(9) + 1e-9).contains(&score),
        "{score}"
    );
}

fn silent() -> TopicScoreParams {
    TopicScoreParams {
        mesh_message_deliveries_weight: -2.0,
        mesh_message_deliveries_threshold: 4.0,
        mesh_failure_penalty_weight: -1.0,
        ..TopicScoreParams::default()
    }
}

#[test]
fn p3_prunes_a_peer_that_forwards_too_little_and_p3b_remembers_it() {
    let mut engine = alone(with_topic(silent()), Signing::StrictNoSign, 2);
    let mut number = 0;
    for second in 0..31 {
        // The second peer forwards, but late; the first does not.
        for _ in 0..2 {
            number += 1;
            let now = secs(second);
            engine.handle_rpc(now, &Node(2), &message(number));
        }
        assert_eq!(engine.mesh("t").count(), 2, "at {second} s");
        beat(&mut engine, secs(second) + ms(999));
    }
    assert_eq!(engine.mesh("t").collect::<Vec<_>>(), [&Node(2)]);
    let score = engine.score(secs(32), &Node(1));
    assert!((-16.0..-15.0).contains(&score), "{score}");
    assert!(engine.score(secs(32), &Node(2)) > 0.0);
    // It may not return at once.
    engine.handle_rpc(secs(32), &Node(1), &graft());
    assert_eq!(engine.mesh("t").count(), 1);
}

#[test]
fn near_first_deliveries_count_within_the_window_and_once() {
    let mut engine = alone(with_topic(silent()), Signing::StrictNoSign, 3);
    for number in 0..4 {
        engine.handle_rpc(secs(29), &Node(1), &message(number));
        engine.handle_rpc(secs(29) + ms(5), &Node(2), &message(number));
        engine.handle_rpc(secs(29) + ms(5), &Node(2), &message(number));
        engine.handle_rpc(secs(29) + ms(6), &Node(3), &message(number));
    }
    let score = |peer| engine.score(secs(31), &Node(peer));
    assert!(score(1) > 1.0);
    assert!(score(2) > 0.0 && score(2) < 1.0);
    assert!(score(3) < -30.0);
}

#[test]
fn p4_is_the_square_of_invalid_messages() {
    let mut engine = alone(Config::default(), signing(0), 1);
    let forged = |number| {
        let mut forged = signing(1).make("t", Bytes::from_static(b"x"), number);
        forged.data = Some(Bytes::from_static(b"y"));
        frame(&forged.encode_to_vec())
    };
    for count in 1..=8 {
        engine.handle_rpc(ms(0), &Node(1), &forged(1));
        assert_score(&engine, ms(0), 1, -f64::from(count * count));
    }
    // It does not suppress the authentic message.
    let good = signing(1).make("t", Bytes::from_static(b"x"), 1).encode_to_vec();
    events(&mut engine);
    engine.handle_rpc(ms(0), &Node(1), &frame(&good));
    assert!(matches!(&events(&mut engine)[..], [Event::Message(_)]));
    // After that, a further one does not count; another one does, and the next is ignored.
    for number in [1, 2, 3] {
        engine.handle_rpc(ms(0), &Node(1), &forged(number));
    }
    assert_eq!((engine.counts().duplicates, engine.counts().rejected), (1, 9));
    assert_eq!(engine.counts().graylisted, 1);
}

#[test]
fn p5_is_the_applications_score() {
    let mut engine = engine(2);
    engine.set_app_specific_score(&Node(1), -3.0);
    engine.set_app_specific_score(&Node(2), f64::NAN);
    assert_score(&engine, ms(0), 1, -3.0);
    assert_score(&engine, ms(0), 2, 0.0);
    beat(&mut engine, secs(1));
    assert_eq!(engine.mesh("t").collect::<Vec<_>>(), [&Node(2)]);
}

#[test]
fn p6_is_the_square_of_surplus_peers_at_one_address() {
    let mut engine = engine(1);
    let first = 1 << 24;
    for number in 0..13 {
        add(&mut engine, ms(0), first + number, false);
    }
    add(&mut engine, ms(0), first + 256, false);
    assert_score(&engine, ms(0), first, -45.0);
    assert_score(&engine, ms(0), first + 256, 0.0);
    assert_score(&engine, ms(0), 1, 0.0);
    for number in 0..3 {
        engine.remove_peer(ms(0), &Node(first + number));
    }
    assert_score(&engine, ms(0), first + 5, 0.0);
}

#[test]
fn p7_is_the_square_of_misbehaviour_and_is_kept_when_a_peer_leaves() {
    let mut engine = engine(1);
    engine.handle_rpc(ms(0), &Node(1), &prune(Some(60), 0));
    engine.handle_rpc(ms(0), &Node(1), &graft());
    // Once for the backoff, once for not even waiting a little.
    assert_score(&engine, ms(0), 1, -40.0);
    engine.remove_peer(ms(0), &Node(1));
    assert_score(&engine, ms(0), 1, 0.0);
    add(&mut engine, ms(1), 1, true);
    assert_score(&engine, ms(1), 1, -40.0);
    // The backoff outlasts the connection as well.
    beat(&mut engine, secs(50));
    assert_eq!(engine.mesh("t").count(), 0);
    engine.remove_peer(secs(50), &Node(1));
    let later = secs(50 + 3600);
    beat(&mut engine, later);
    add(&mut engine, later, 1, true);
    assert_score(&engine, later, 1, 0.0);
}

#[test]
fn a_backoff_is_honoured_and_limited() {
    for (told, least) in [(Some(5), 5), (None, 60), (Some(0), 60), (Some(u64::MAX), 3600)] {
        let mut engine = engine(1);
        engine.handle_rpc(ms(0), &Node(1), &prune(told, 0));
        sent(&mut engine, ms(0));
        beat(&mut engine, secs(least - 1) + ms(999));
        let grafts = |engine: &mut Engine<Node>, now| {
            let sent = sent(engine, now).into_iter();
            sent.filter(|(_, rpc)| {
                rpc.control
                    .as_ref()
                    .is_some_and(|control| !control.graft.is_empty())
            })
            .count()
        };
        assert_eq!(grafts(&mut engine, secs(least)), 0, "{told:?}");
        beat(&mut engine, secs(least + 4));
        assert_eq!(grafts(&mut engine, secs(least + 4)), 1, "{told:?}");
        assert_eq!(engine.mesh("t").count(), 1);
    }
}

#[test]
fn a_graft_in_a_backoff_is_pruned_and_scored() {
    let mut engine = engine(1);
    beat(&mut engine, secs(1));
    engine.set_app_specific_score(&Node(1), -1.0);
    beat(&mut engine, secs(2));
    engine.set_app_specific_score(&Node(1), 50.0);
    sent(&mut engine, secs(2));
    engine.handle_rpc(secs(20), &Node(1), &graft());
    let answer = sent(&mut engine, secs(20));
    let control = answer[0].1.control.clone().expect("a PRUNE");
    assert_eq!((control.prune.len(), control.prune[0].backoff), (1, Some(60)));
    assert_eq!(engine.mesh("t").count(), 0);
    assert!(engine.score(secs(20), &Node(1)) < 41.0);
    // The backoff starts again.
    engine.handle_rpc(secs(79), &Node(1), &graft());
    assert_eq!(engine.mesh("t").count(), 0);
}

#[test]
fn peer_exchange_is_accepted_from_trusted_peers_and_limited() {
    let mut engine = engine(2);
    engine.set_app_specific_score(&Node(2), 30.0);
    events(&mut engine);
    for peer in [1, 2] {
        engine.handle_rpc(ms(0), &Node(peer), &prune(Some(60), 1000));
    }
    let taken: Vec<_> = events(&mut engine)
        .into_iter()
        .filter_map(|event| match event {
            Event::PeerExchange { peer, peers, .. } => Some((peer, peers.len())),
            _ => None,
        })
        .collect();
    assert_eq!(taken, [(Node(2), 16)]);
    assert_eq!(engine.counts().exchange_ignored, 1984);
    engine.handle_rpc(ms(0), &Node(2), &prune(Some(60), 5000));
    assert_eq!(engine.counts().malformed, 1);
}

#[test]
fn a_flood_of_ihave_causes_few_requests_and_is_then_ignored() {
    let mut engine = engine(1);
    let mut asked = 0;
    for second in 0..20 {
        for round in 0..50 {
            let first = (second * 50 + round) * 1000;
            engine.handle_rpc(secs(u64::from(second)), &Node(1), &ihave(first..first + 1000));
        }
        let now = secs(u64::from(second)) + ms(999);
        asked = sent(&mut engine, now)
            .iter()
            .filter_map(|(_, rpc)| rpc.control.as_ref())
            .flat_map(|control| &control.iwant)
            .map(|want| want.message_ids.len())
            .sum();
        assert!(asked <= engine.config().max_ihave_length, "{asked}");
        assert!(engine.kept().promises <= 40);
        beat(&mut engine, now);
    }
    assert_eq!(asked, 0);
    assert!(engine.counts().graylisted > 500, "{:?}", engine.counts());
    assert_eq!(engine.mesh("t").count(), 0);
}

#[test]
fn kept_promises_are_not_penalised() {
    let mut engine = engine(8);
    let id = |number: usize| {
        let made = Signing::StrictNoSign.make("t", format!("{number}").into(), 0);
        Signing::StrictNoSign.message_id(&made)
    };
    for number in 0..20 {
        let now = secs(number as u64);
        let have = control(ControlMessage {
            ihave: vec![ControlIHave {
                topic_id: Some(topic()),
                message_ids: vec![id(number).into()],
            }],
            ..ControlMessage::default()
        });
        engine.handle_rpc(now, &Node(7), &have);
        engine.handle_rpc(now + ms(100), &Node(7), &message(number));
        beat(&mut engine, now + ms(999));
    }
    assert_eq!(
        (engine.counts().iwant_sent, engine.counts().broken_promises),
        (20, 0)
    );
}

#[test]
fn a_flood_of_iwant_gets_each_message_a_limited_number_of_times() {
    let mut engine = engine(1);
    let published = engine
        .publish(ms(0), "t", Bytes::from_static(b"x"))
        .expect("published");
    sent(&mut engine, ms(0));
    let want = control(ControlMessage {
        iwant: vec![
            ControlIWant {
                message_ids: vec![published.id.to_bytes(); 100],
            };
            20
        ],
        ..ControlMessage::default()
    });
    for _ in 0..100 {
        engine.handle_rpc(ms(0), &Node(1), &want);
    }
    assert_eq!(messages(sent(&mut engine, ms(0))).len(), 3);
}

#[test]
fn a_duplicate_is_not_delivered_until_the_message_is_forgotten() {
    let mut engine = engine(3);
    events(&mut engine);
    for at in [0, 1, 60, 119] {
        for peer in [1, 2, 3] {
            engine.handle_rpc(secs(at), &Node(peer), &message(1));
        }
        assert_eq!(events(&mut engine).len(), usize::from(at == 0));
    }
    assert_eq!(engine.counts().duplicates, 11);
}

#[test]
fn malformed_rpcs_are_counted_and_scored() {
    let mut engine = engine(1);
    for bad in [&b"\xff"[..], b"\x0a\x02\x08\x01", b"\x12\x02\x12\x00"] {
        let before = engine.score(ms(0), &Node(1));
        engine.handle_rpc(ms(0), &Node(1), &Bytes::from_static(bad));
        assert!(engine.score(ms(0), &Node(1)) < before);
    }
    engine.handle_rpc(ms(0), &Node(99), &message(1));
    assert_eq!((engine.counts().malformed, engine.counts().strangers), (2, 1));
    assert_eq!((engine.counts().rejected, engine.counts().graylisted), (1, 0));
}

#[test]
fn own_messages_that_return_are_not_delivered() {
    let mut engine = alone(Config::default(), signing(0), 2);
    sent(&mut engine, ms(0));
    events(&mut engine);
    engine
        .publish(ms(0), "t", Bytes::from_static(b"x"))
        .expect("published");
    let own = engine.poll_transmit(ms(0)).expect("it").rpc;
    engine.handle_rpc(secs(300), &Node(1), &own);
    assert!(events(&mut engine).is_empty());
    assert_eq!(engine.counts().own, 1);
}

#[test]
fn subscriptions_of_a_peer_and_of_all_are_bounded() {
    let config = Config {
        max_topics: 300,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 5);
    for peer in 1..=5 {
        for number in 0..500 {
            let name = format!("{peer} {number}");
            let mut rpc = vec![0x0a, 4 + name.len() as u8, 8, 1, 0x12, name.len() as u8];
            rpc.extend(name.bytes());
            engine.handle_rpc(ms(0), &Node(peer), &rpc.into());
        }
    }
    assert_eq!(engine.kept().topics, 300);
    for peer in 1..=5 {
        engine.remove_peer(ms(0), &Node(peer));
    }
    assert_eq!(engine.kept().topics, 1);
}

#[test]
fn peers_beyond_the_limit_are_refused_except_explicit_ones() {
    let config = Config {
        max_peers: 3,
        ..Config::default()
    };
    let mut engine = alone(config, Signing::StrictNoSign, 3);
    let connection = || Connection {
        version: Version::V1_2,
        outbound: true,
        info: None,
    };
    let refused = engine.add_peer(ms(0), &Node(4), connection());
    assert!(matches!(refused, Err(Error::Limit { limit: 3, .. })));
    engine.add_explicit(ms(0), Node(5));
    engine.add_peer(ms(0), &Node(5), connection()).expect("explicit");
    assert_eq!(engine.peers().count(), 4);
}

/// Outbound peers find room regardless of the number of inbound peers: otherwise many attackers could isolate
/// a node.
#[test]
fn many_inbound_peers_leave_room_for_outbound_peers() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 0);
    let connection = |outbound| Connection {
        version: Version::V1_2,
        outbound,
        info: None,
    };
    let crowd = (1..=2000).filter(|number| engine.add_peer(ms(0), &Node(*number), connection(false)).is_ok());
    assert_eq!(crowd.count(), Config::default().max_inbound);
    let again = engine.add_peer(ms(0), &Node(1), connection(false));
    again.expect("it is there already");
    for number in 3001..3021 {
        engine
            .add_peer(ms(0), &Node(number), connection(true))
            .expect("room");
    }
    let refused = engine.add_peer(ms(0), &Node(3001), connection(false));
    assert!(matches!(refused, Err(Error::Limit { limit: 768, .. })));
    assert_eq!(engine.peers().count(), 768 + 20, "a refused peer keeps its state");
}

#[test]
fn a_mesh_with_low_scores_grafts_better_peers() {
    let mut engine = engine(12);
    let mesh: Vec<u32> = engine.mesh("t").map(|peer| peer.0).collect();
    assert_eq!(mesh.len(), 6);
    let others: Vec<u32> = (1..=12).filter(|peer| !mesh.contains(peer)).collect();
    for peer in &others {
        engine.set_app_specific_score(&Node(*peer), 5.0);
    }
    beat(&mut engine, secs(58));
    assert_eq!(engine.mesh("t").count(), 6);
    beat(&mut engine, secs(61));
    assert_eq!(engine.mesh("t").count(), 8);
}

/// Lets the peers in this range send a GRAFT. Returns the number of peers that are in the mesh afterwards.
fn grafted(engine: &mut Engine<Node>, now: Duration, peers: std::ops::RangeInclusive<u32>) -> usize {
    for peer in peers.clone() {
        engine.handle_rpc(now, &Node(peer), &graft());
    }
    let (first, last) = peers.into_inner();
    engine
        .mesh("t")
        .filter(|peer| (first..=last).contains(&peer.0))
        .count()
}

#[test]
fn idle_peers_find_little_room_in_a_mesh_but_newcomers_do() {
    let every = secs(600);
    let mut config = with_topic(TopicScoreParams::default());
    let score = config.score.as_mut().expect("scores");
    (score.newcomer_time, score.idle_graft_every) = (secs(30), every);
    let (d_lo, d_hi) = (config.d_lo, config.d_hi);
    let mut engine = alone(config.clone(), Signing::StrictNoSign, 100);
    let before: Vec<Node> = engine.mesh("t").copied().collect();
    for peer in &before[d_lo..] {
        engine.handle_rpc(ms(0), peer, &prune(None, 0));
    }
    // One of them delivered something, and is accepted; then the mesh has one peer more than `d_lo`.
    let out: Vec<u32> = (1..=100).filter(|peer| !before.contains(&Node(*peer))).collect();
    engine.handle_rpc(secs(1), &Node(out[0]), &message(1));
    engine.handle_rpc(secs(31), &Node(out[0]), &graft());
    assert_eq!(engine.mesh("t").count(), d_lo + 1);
    // Of all others, one is accepted each time.
    let idle: Vec<Node> = out[1..].iter().map(|peer| Node(*peer)).collect();
    let mut taken = 0;
    for (number, peer) in (0..).zip(idle.iter().take(64)) {
        let now = secs(31) + every * number / 16;
        engine.handle_rpc(now, peer, &graft());
        taken += usize::from(engine.mesh("t").any(|of| of == peer));
    }
    assert!((3..=5).contains(&taken), "{taken} in four times as long");
    // Newcomers are accepted up to `d_hi`.
    let now = secs(31) + every * 4;
    for peer in 201..=220 {
        add(&mut engine, now, peer, false);
    }
    assert_eq!(grafted(&mut engine, now, 201..=220), d_hi - d_lo - 1 - taken);
    // Without scores that require proof, all peers are equal.
    let score = config.score.as_mut().expect("scores");
    score.newcomer_time = Duration::MAX;
    let mut engine = alone(config, Signing::StrictNoSign, 20);
    let len = engine.mesh("t").count();
    assert_eq!(grafted(&mut engine, secs(3600), 1..=20), d_hi, "from {len}");
}

#[test]
fn a_peer_with_a_low_score_gets_nothing() {
    let mut engine = engine(8);
    let (out, low) = (engine.mesh("t").map(|peer| peer.0).collect::<Vec<_>>(), -60.0);
    let outside = (1..=8).find(|peer| !out.contains(peer)).expect("one");
    engine.set_app_specific_score(&Node(outside), low);
    engine
        .publish(ms(0), "t", Bytes::from_static(b"x"))
        .expect("published");
    beat(&mut engine, secs(3));
    assert!(sent(&mut engine, secs(3)).iter().all(|(to, _)| *to != outside));
    engine.handle_rpc(secs(3), &Node(outside), &ihave(0..10));
    assert_eq!(engine.counts().ihave_ignored, 1);
}

fn refused(change: impl FnOnce(&mut ScoreConfig)) -> String {
    let mut config = ScoreConfig::default();
    change(&mut config);
    let error = config.check().expect_err("refused");
    assert!(matches!(error, Error::Invalid { .. }));
    error.to_string()
}

#[test]
fn score_configurations_without_the_required_effects_are_refused() {
    ScoreConfig::default().check().expect("the default");
    Config::default().check().expect("the default");
    with_topic(silent()).check().expect("with P3");
    let topic = |params: TopicScoreParams| move |config: &mut ScoreConfig| config.other_topics = Some(params);
    // The fault of CVE-2022-47547: the reward for staying exceeds the penalty for not forwarding.
    let idle = TopicScoreParams {
        time_in_mesh_weight: 1.0,
        ..silent()
    };
    assert!(refused(topic(idle)).contains("forwards nothing in a mesh"));
    // A related fault: the score of one topic compensates for silence in another.
    let rich = TopicScoreParams {
        first_message_deliveries_weight: 10.0,
        ..TopicScoreParams::default()
    };
    let throttled = |config: &mut ScoreConfig| {
        config.topics = [(Topic::from("t"), silent())].into();
        config.other_topics = Some(rich);
    };
    assert!(refused(throttled).contains("compensate for it"));
    let lenient = TopicScoreParams {
        invalid_message_deliveries_weight: -0.001,
        ..TopicScoreParams::default()
    };
    assert!(refused(topic(lenient)).contains("invalid messages"));
    assert!(refused(|config| config.behaviour_penalty_weight = -0.001).contains("misbehaviour"));
    assert!(refused(|config| config.gossip_threshold = 0.0).contains("gossip_threshold"));
    assert!(refused(|config| config.graylist_threshold = -50.0).contains("graylist_threshold"));
    assert!(refused(|config| config.topic_score_cap = f64::NAN).contains("topic_score_cap"));
    assert!(refused(|config| config.behaviour_penalty_decay = 1.0).contains("decay"));
}

#[test]
fn messages_have_separate_limits() {
    let limits = Limits::default();
    let mut message = Message {
        topic: Some(topic()),
        data: Some(Bytes::from(vec![0; 100])),
        ..Message::default()
    };
    message.signature = Some(Bytes::from(vec![0; 513]));
    let bytes = Bytes::from(message.encode_to_vec());
    assert!(Message::parse(&bytes, &limits).is_err());
}
