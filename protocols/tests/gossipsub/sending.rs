//! What an engine sends on streams: within the limits of others, and again after a stream was lost.

use bytes::Bytes;
use p2p::Error;
use p2p_protocols::gossipsub::wire::{Limits, Rpc, WireError, is_message};
use p2p_protocols::gossipsub::{Config, Event, QueueConfig, Refused, SendLimits, Signing};

use crate::net::{Node, add, alone, beat, events, secs, sent};

fn config() -> Config {
    Config {
        send: SendLimits::LIBP2P,
        pack: 64 << 10,
        queue: QueueConfig {
            own: 10_000,
            ..QueueConfig::default()
        },
        ..Config::default()
    }
}

#[test]
fn rpcs_are_sent_within_the_limits_of_others() {
    let mut engine = alone(config(), Signing::StrictNoSign, 20);
    sent(&mut engine, secs(1));
    for topic in 0..300 {
        engine
            .subscribe(secs(1), &format!("{topic:0250}"))
            .expect("a topic");
    }
    for number in 0..3000_u32 {
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        engine.publish(secs(1), "t", data).expect("published");
    }
    let mut most = [0; 4];
    let mut take = |rpc: &Bytes| {
        let parsed = Rpc::parse(rpc, &Limits::default()).expect("an RPC");
        let ids = parsed.control.iter().flat_map(|control| &control.ihave);
        let ids: usize = ids.map(|ihave| ihave.message_ids.len()).sum();
        assert!(
            rpc.len() <= 64 << 10 && (is_message(rpc) || rpc.len() <= 16 << 10),
            "{}",
            rpc.len()
        );
        let counts = [parsed.subscriptions.len(), parsed.publish.len(), ids, rpc.len()];
        most.iter_mut()
            .zip(counts)
            .for_each(|(most, count)| *most = count.max(*most));
    };
    // Another peer hears all subscriptions at once.
    add(&mut engine, secs(1), 99, false);
    while let Some(transmit) = engine.poll_transmit(secs(1)) {
        take(&transmit.rpc);
    }
    for number in 2..5 {
        beat(&mut engine, secs(number));
        while let Some(transmit) = engine.poll_transmit(secs(number)) {
            take(&transmit.rpc);
        }
    }
    let [subscriptions, messages, ids, bytes] = most;
    assert!((50..=100).contains(&subscriptions), "{subscriptions}");
    assert_eq!(messages, 500);
    assert!((300..1000).contains(&ids), "{ids}");
    assert!(bytes > 14 << 10, "{bytes}");
    let told = engine.publish(secs(5), "t", vec![7; 64 << 10].into());
    assert!(
        matches!(told, Err(Error::MtuExceeded { mtu: 65_536, .. })),
        "{told:?}"
    );
}

#[test]
fn a_peer_whose_stream_was_lost_hears_subscriptions_and_grafts_again() {
    let mut engine = alone(config(), Signing::StrictNoSign, 3);
    beat(&mut engine, secs(2));
    sent(&mut engine, secs(2));
    engine.set_writable(&Node(1), false);
    assert!(engine.resume(secs(3), &Node(1)) && !engine.resume(secs(3), &Node(77)));
    let again = sent(&mut engine, secs(3));
    assert!(again.iter().all(|(to, _)| *to == 1));
    let rpcs: Vec<&Rpc> = again.iter().map(|(_, rpc)| rpc).collect();
    let [subscriptions, graft] = rpcs[..] else {
        panic!("{rpcs:?}")
    };
    assert_eq!(subscriptions.subscriptions.len(), 1);
    let graft = graft.control.as_ref().map(|control| control.graft.len());
    assert_eq!(graft, Some(1));
    assert!(engine.mesh("t").any(|peer| *peer == Node(1)));
}

#[test]
fn an_rpc_that_a_driver_could_not_read_costs_score() {
    let mut engine = alone(Config::default(), Signing::StrictNoSign, 2);
    events(&mut engine);
    let reason = WireError::Length {
        what: "the RPC",
        len: 9,
        max: 8,
    };
    for _ in 0..10 {
        engine.handle_unreadable(secs(1), &Node(1), reason);
    }
    // After three, the peer is ignored.
    assert_eq!((engine.counts().malformed, engine.counts().graylisted), (3, 7));
    assert!(engine.score(secs(1), &Node(1)) < 0.0);
    let reason = Refused::Wire(reason);
    let peer = Node(1);
    assert_eq!(
        events(&mut engine).last(),
        Some(&Event::Rejected { peer, reason })
    );
}
