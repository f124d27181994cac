//! The connection manager: limits, floods, trimming, and the reasons for which connections are open.

use std::net::IpAddr;
use std::time::Duration;

use p2p_protocols::connections::{
    Action, CloseReason, Config, ConnId, Connections, Counts, Direction, Event, Full, OpenReason, Refusal,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::connection_ops::{Op, World};

const START: Duration = Duration::from_secs(1000);
const SECOND: Duration = Duration::from_secs(1);

/// Returns an address in a network of its own.
fn ip(network: u32) -> IpAddr {
    let [_, _, high, low] = network.to_be_bytes();
    [20, high, low, 1].into()
}

fn open(connections: &mut Connections<u32>, now: Duration, peer: u32, network: u32) -> ConnId {
    let id = connections.admit_inbound(now, Some(ip(network))).expect("room");
    connections.handle_established(now, id, &peer).expect("room");
    id
}

fn dial(connections: &mut Connections<u32>, now: Duration, peer: u32) -> Result<ConnId, Refusal> {
    let id = connections.admit_outbound(now, Some(ip(peer)))?;
    connections.handle_established(now, id, &peer)?;
    Ok(id)
}

/// Returns the peers that were disconnected, with the reasons.
fn ended(connections: &mut Connections<u32>) -> Vec<(u32, CloseReason)> {
    let events = std::iter::from_fn(|| connections.poll_event());
    let ended = events.filter_map(|event| match event {
        Event::Disconnected { peer, reason, .. } => Some((peer, reason)),
        Event::Connected { .. } => None,
    });
    ended.collect()
}

#[test]
fn connections_have_events_and_the_oldest_of_a_peer_is_used() {
    let mut connections = Connections::new(Config::default());
    let first = open(&mut connections, START, 7, 1);
    let second = dial(&mut connections, START, 7).expect("room");
    assert_eq!(
        (connections.best(&7), connections.of_peer(&7)),
        (Some(first), &[first, second][..])
    );
    let connected = |id, direction, is_first| {
        Some(Event::Connected {
            id,
            peer: 7,
            direction,
            is_first,
        })
    };
    assert_eq!(
        connections.poll_event(),
        connected(first, Direction::Inbound, true)
    );
    assert_eq!(
        connections.poll_event(),
        connected(second, Direction::Outbound, false)
    );
    let ended = |id, reason, is_last| {
        Some(Event::Disconnected {
            id,
            peer: 7,
            reason,
            is_last,
        })
    };
    connections.handle_closed(first, CloseReason::Remote);
    assert_eq!(connections.poll_event(), ended(first, CloseReason::Remote, false));
    assert_eq!(connections.best(&7), Some(second));
    assert_eq!(connections.close_peer(&7), 1);
    assert_eq!(connections.poll_event(), ended(second, CloseReason::Local, true));
    let close = Action::Close {
        id: second,
        reason: CloseReason::Local,
    };
    assert_eq!(
        (connections.poll_action(), connections.poll_action()),
        (Some(close), None)
    );
    assert!(connections.is_empty() && connections.poll_timeout().is_none());
}

#[test]
fn each_reason_keeps_a_connection_open_until_it_ends_and_10_s_longer() {
    let mut connections = Connections::new(Config::default());
    let id = open(&mut connections, START, 7, 1);
    let mut now = START;
    let mut check =
        |connections: &mut Connections<u32>, reason, end: &dyn Fn(&mut Connections<u32>, Duration)| {
            assert_eq!(connections.why_open(now, id)[0], reason);
            now += 100 * SECOND;
            connections.handle_timeout(now);
            assert_eq!(connections.why_open(now, id), [reason]);
            end(connections, now);
            let until = now + 10 * SECOND;
            assert_eq!(connections.why_open(now, id), [OpenReason::Idle { until }]);
            assert_eq!(connections.poll_timeout(), Some(until));
            now
        };
    connections.handle_stream_opened(START, id);
    let now = check(&mut connections, OpenReason::Streams(1), &|connections, now| {
        connections.handle_stream_closed(now, id);
    });
    connections.protect(now, &7, "bootstrap").expect("room");
    let now = check(
        &mut connections,
        OpenReason::Protected("bootstrap".into()),
        &|connections, now| {
            assert!(!connections.unprotect(now, &7, "bootstrap"));
        },
    );
    connections.tag(now, &7, "mesh", 5).expect("room");
    connections.tag(now, &7, "bad", -2).expect("room");
    let now = check(&mut connections, OpenReason::Tagged(3), &|connections, now| {
        connections.tag(now, &7, "bad", -5).expect("room");
    });
    connections.keep_alive(now, id, "/kad").expect("room");
    let now = check(
        &mut connections,
        OpenReason::KeepAlive("/kad".into()),
        &|connections, now| {
            connections.release(now, id, "/kad");
        },
    );
    connections.handle_timeout(now + 10 * SECOND);
    assert_eq!(ended(&mut connections), [(7, CloseReason::Idle)]);
}

#[test]
fn a_young_connection_says_how_long_it_is_not_trimmed_and_when_it_is_closed() {
    let mut connections = Connections::new(Config::default());
    let id = open(&mut connections, START, 7, 1);
    let reasons = [
        OpenReason::Idle {
            until: START + 10 * SECOND,
        },
        OpenReason::Grace {
            until: START + 60 * SECOND,
        },
    ];
    assert_eq!(connections.why_open(START, id), reasons);
}

/// Opens connections of many peers, each with a stream.
fn busy(connections: &mut Connections<u32>, now: Duration, peers: std::ops::Range<u32>) -> Vec<ConnId> {
    let busy = peers.map(|peer| {
        let id = open(connections, now, peer, peer);
        connections.handle_stream_opened(now, id);
        id
    });
    busy.collect()
}

#[test]
fn above_the_high_mark_connections_are_trimmed_to_the_low_mark_after_their_grace() {
    let mut connections = Connections::new(Config::default());
    let ids = busy(&mut connections, START, 0..193);
    assert_eq!(connections.len(), 193, "all are in their grace period");
    let due = START + 60 * SECOND;
    assert_eq!(connections.poll_timeout(), Some(due));
    // Peer 0 is protected, peer 1 has a value, peer 2 has two streams, peer 3 was used last.
    connections.protect(START, &0, "app").expect("room");
    connections.tag(START, &1, "app", 1).expect("room");
    connections.handle_stream_opened(START, ids[2]);
    connections.handle_stream_closed(START + SECOND, ids[3]);
    connections.handle_stream_opened(START + SECOND, ids[3]);
    connections.tag(START, &100, "app", -1).expect("room");
    connections.handle_timeout(due);
    assert_eq!(connections.len(), 160);
    let gone = ended(&mut connections);
    assert_eq!(gone[0], (100, CloseReason::Trimmed), "the lowest value first");
    assert_eq!(
        gone[1],
        (4, CloseReason::Trimmed),
        "then the one that was used least recently"
    );
    assert_eq!(gone.len(), 33);
    assert!((0..4).all(|peer| connections.best(&peer).is_some()));
}

#[test]
fn protected_peers_are_never_trimmed_however_many_there_are() {
    let config = Config {
        marked_peers: 1000,
        connections: 2000,
        inbound: 2000,
        ..Config::default()
    };
    let mut connections = Connections::new(config);
    for peer in 0..300 {
        connections.protect(START, &peer, "app").expect("room");
        open(&mut connections, START, peer, peer);
    }
    busy(&mut connections, START, 300..400);
    connections.handle_timeout(START + 60 * SECOND);
    assert!((0..300).all(|peer| connections.best(&peer).is_some()));
    assert_eq!((connections.len(), connections.counts().trimmed), (300, 100));
    assert_eq!(connections.poll_timeout(), None, "nothing may be trimmed");
    // The end of a protection makes the connection one that may go.
    connections.handle_stream_opened(START, connections.best(&5).expect("it is open"));
    connections.unprotect(START + 61 * SECOND, &5, "app");
    assert!(connections.best(&5).is_none());
}

#[test]
fn half_open_connections_of_one_network_keep_no_honest_peer_out() {
    let mut connections = Connections::new(Config::default());
    let (mut now, mut refused) = (START, 0);
    for round in 0..10_000 {
        match connections.admit_inbound(now, Some(ip(1))) {
            Ok(_) => assert!(connections.pending() <= 33),
            Err(refusal) => {
                assert_eq!(refusal, Refusal::PendingPerPrefix { limit: 32 });
                refused += 1;
            }
        }
        if round % 100 == 0 {
            open(&mut connections, now, round, 1000 + round);
            now += Duration::from_millis(10);
            connections.handle_timeout(now);
        }
    }
    assert!(refused > 9000 && connections.len() == 100);
    // Silent ones end in time.
    connections.handle_timeout(now + 15 * SECOND);
    assert_eq!(connections.pending(), 0);
    assert!(connections.counts().handshake_timeouts >= 32);
}

#[test]
fn half_open_connections_of_many_networks_leave_room_for_networks_with_fewer() {
    let mut connections = Connections::new(Config::default());
    for round in 0..10_000 {
        let _ = connections.admit_inbound(START, Some(ip(round % 9)));
        assert!(connections.pending() <= 256);
    }
    assert_eq!(connections.pending(), 256);
    let id = connections
        .admit_inbound(START, Some(ip(1000)))
        .expect("another network");
    assert_eq!(
        (connections.pending(), connections.counts().displaced_pending),
        (256, 1)
    );
    for _ in 0..1000 {
        let _ = connections.admit_inbound(START, Some(ip(3)));
    }
    connections
        .handle_established(START, id, &7)
        .expect("it was not displaced");
}

#[test]
fn half_of_the_places_of_a_network_or_of_all_are_a_crowd() {
    let config = Config {
        pending_inbound: 10,
        pending_per_prefix: 4,
        ..Config::default()
    };
    let mut connections = Connections::<u32>::new(config);
    let mut admit = |network| {
        connections.admit_inbound(START, Some(ip(network))).expect("room");
        let crowded = [1, 2, 9].map(|network| connections.is_crowded(Some(ip(network))));
        (crowded, connections.is_crowded(None))
    };
    assert_eq!(admit(1), ([false; 3], false));
    assert_eq!(admit(1), ([false; 3], false));
    // Three of four are of this network.
    assert_eq!(admit(1), ([true, false, false], false));
    assert_eq!(admit(2), ([true, false, false], false));
    assert_eq!(admit(3), ([true, false, false], false));
    // Six of ten are in use.
    assert_eq!(admit(4), ([true; 3], true));
}

#[test]
fn a_newcomer_of_the_same_network_displaces_a_slow_handshake() {
    let mut connections = Connections::new(Config::default());
    let ids: Vec<ConnId> = (0..32)
        .map(|_| connections.admit_inbound(START, Some(ip(1))).expect("room"))
        .collect();
    assert!(
        connections
            .admit_inbound(START + 2 * SECOND, Some(ip(1)))
            .is_err()
    );
    let newcomer = connections
        .admit_inbound(START + 3 * SECOND, Some(ip(1)))
        .expect("one is slow");
    let close = Action::Close {
        id: ids[0],
        reason: CloseReason::Displaced,
    };
    assert_eq!(connections.poll_action(), Some(close));
    let late = connections.handle_established(START + 3 * SECOND, ids[0], &1);
    assert_eq!(late, Err(Refusal::NotPending));
    connections
        .handle_established(START + 3 * SECOND, newcomer, &2)
        .expect("it is pending");
}

#[test]
fn open_connections_are_limited_by_peer_network_direction_and_in_total() {
    let config = Config {
        connections: 100,
        inbound: 80,
        per_prefix: 10,
        high_water: 100,
        ..Config::default()
    };
    let mut connections = Connections::new(config);
    let inbound = |connections: &mut Connections<u32>, peer, network| {
        let id = connections.admit_inbound(START, Some(ip(network)))?;
        connections.handle_established(START, id, &peer)
    };
    for _ in 0..8 {
        assert_eq!(inbound(&mut connections, 7, 1), Ok(()));
    }
    assert_eq!(
        inbound(&mut connections, 7, 2),
        Err(Refusal::PerPeer { limit: 8 })
    );
    for peer in 10..12 {
        assert_eq!(inbound(&mut connections, peer, 1), Ok(()));
    }
    assert_eq!(
        inbound(&mut connections, 12, 1),
        Err(Refusal::PerPrefix { limit: 10 })
    );
    for peer in 20..90 {
        assert_eq!(inbound(&mut connections, peer, peer / 10), Ok(()));
    }
    // All networks have ten: one with fewer displaces the least recently used.
    assert_eq!(connections.len(), 80);
    assert_eq!(inbound(&mut connections, 500, 500), Ok(()));
    assert_eq!((connections.len(), connections.counts().displaced), (80, 1));
    for network in 501..580 {
        let _ = inbound(&mut connections, network, network);
        assert!(connections.len() <= 80);
    }
    assert!(
        inbound(&mut connections, 600, 600).is_err(),
        "nearly all networks have one"
    );
    for peer in 1000..1020 {
        assert!(
            dial(&mut connections, START, peer).is_ok(),
            "a share is for own dials"
        );
    }
    assert_eq!(connections.len(), 100);
    // An own dial displaces an inbound connection that nothing needs.
    assert!(dial(&mut connections, START, 1020).is_ok());
    assert_eq!(connections.len(), 100);
}

#[test]
fn connections_with_streams_are_not_displaced() {
    let config = Config {
        inbound: 10,
        connections: 12,
        high_water: 100,
        ..Config::default()
    };
    let mut connections = Connections::new(config);
    for peer in 0..10 {
        let id = open(&mut connections, START, peer, 1);
        connections.handle_stream_opened(START, id);
    }
    let id = connections.admit_inbound(START, Some(ip(2))).expect("room");
    let refused = connections.handle_established(START, id, &50);
    assert_eq!(refused, Err(Refusal::Inbound { limit: 10 }));
    for peer in 100..102 {
        dial(&mut connections, START, peer).expect("room");
    }
    assert_eq!(
        dial(&mut connections, START, 102),
        Err(Refusal::Connections { limit: 12 })
    );
    assert_eq!(
        connections.counts(),
        Counts {
            established: 12,
            refused: 2,
            ..Counts::default()
        }
    );
}

#[test]
fn a_protected_peer_is_admitted_during_a_flood() {
    let mut connections = Connections::new(Config {
        high_water: 2000,
        ..Config::default()
    });
    connections.protect(START, &5, "app").expect("room");
    for peer in 1000..3000 {
        if let Ok(id) = connections.admit_inbound(START, Some(ip(peer % 12))) {
            let _ = connections.handle_established(START, id, &peer);
        }
    }
    assert_eq!(connections.len(), 768);
    // In a network at its limit.
    let id = connections
        .admit_inbound(START, Some(ip(3)))
        .expect("no handshake is in progress");
    connections
        .handle_established(START, id, &5)
        .expect("it is protected");
    connections.handle_timeout(START + 600 * SECOND);
    assert_eq!(connections.iter().map(|info| info.peer).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_flood_from_one_network_keeps_no_honest_peer_out() {
    let mut connections = Connections::new(Config::default());
    let mut now = START;
    let honest = open(&mut connections, now, 1, 1);
    connections.handle_stream_opened(now, honest);
    for round in 0..20_000 {
        now += Duration::from_millis(10);
        connections.handle_timeout(now);
        if let Ok(id) = connections.admit_inbound(now, Some(ip(99)))
            && connections.handle_established(now, id, &(1000 + round)).is_ok()
        {
            connections.handle_stream_opened(now, id);
        }
        if round % 1000 == 0 {
            let peer = 2 + round / 1000;
            let id = open(&mut connections, now, peer, peer);
            connections.handle_stream_opened(now, id);
        }
    }
    assert!((1..22).all(|peer| connections.best(&peer).is_some()));
    assert_eq!(connections.len(), 64 + 21);
}

#[test]
fn own_dials_in_progress_are_limited() {
    let mut connections: Connections<u32> = Connections::new(Config::default());
    for _ in 0..160 {
        connections.admit_outbound(START, None).expect("room");
    }
    let refused = connections.admit_outbound(START, None);
    assert_eq!(refused, Err(Refusal::Pending { limit: 160 }));
    assert!(connections.admit_inbound(START, Some(ip(1))).is_ok());
}

#[test]
fn marks_of_this_node_are_limited() {
    let config = Config {
        marked_peers: 2,
        marks: 2,
        ..Config::default()
    };
    let mut connections = Connections::new(config);
    connections.tag(START, &1, "a", 1).expect("room");
    connections.protect(START, &1, "b").expect("room");
    let full = Full {
        what: "tags and protections of one peer",
        limit: 2,
    };
    assert_eq!(connections.tag(START, &1, "c", 1), Err(full));
    connections.tag(START, &1, "a", 2).expect("it is known");
    connections.tag(START, &2, "a", 1).expect("room");
    let full = Full {
        what: "peers with tags or protections",
        limit: 2,
    };
    assert_eq!(connections.protect(START, &3, "a"), Err(full));
    assert!(connections.untag(START, &2, "a"));
    connections.protect(START, &3, "a").expect("room");
    let id = open(&mut connections, START, 1, 1);
    for protocol in ["a", "b", "a"] {
        connections.keep_alive(START, id, protocol).expect("room");
    }
    assert!(connections.keep_alive(START, id, "c").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_manager_and_a_naive_model_agree_after_any_steps(steps in vec(any::<Op>(), 0..3000)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}
