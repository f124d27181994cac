//! The dialer: the order of addresses, shared dials, limits, and reconnection.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use p2p_protocols::dial::{
    Action, AttemptId, Config, DialAddr, DialError, Dialer, Event, Failure, Full, Transport, rank,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::dial_ops::{Op, World};

const START: Duration = Duration::from_secs(1000);
const REFUSED: Failure = Failure::Io(io::ErrorKind::ConnectionRefused);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// An address such as `quic4 192.0.2.1 4001`, or with a `relayed` at its end.
fn addr(text: &'static str) -> DialAddr<&'static str> {
    let mut words = text.split(' ');
    let transport = match words.next().expect("a transport") {
        "quic" => Transport::Quic,
        "tcp" => Transport::Tcp,
        _ => Transport::Other,
    };
    DialAddr {
        addr: text,
        transport,
        ip: words.next().and_then(|ip| ip.parse().ok()),
        port: words.next().expect("a port").parse().expect("a number"),
        is_relayed: words.next().is_some(),
    }
}

fn order(addrs: &[&'static str]) -> Vec<(u64, &'static str)> {
    let ranked = rank(&Config::default(), addrs.iter().map(|text| addr(text)));
    let delay = |delay: Duration| u64::try_from(delay.as_millis()).expect("a short delay");
    ranked
        .into_iter()
        .map(|ranked| (delay(ranked.delay), ranked.addr))
        .collect()
}

fn started(dialer: &mut Dialer<u32, &'static str>) -> Vec<(AttemptId, &'static str)> {
    let mut started = Vec::new();
    while let Some(action) = dialer.poll_action() {
        if let Action::Start { attempt, addr, .. } = action {
            started.push((attempt, addr));
        }
    }
    started
}

fn aborted<A: Clone + Ord>(dialer: &mut Dialer<u32, A>) -> usize {
    let actions = std::iter::from_fn(|| dialer.poll_action());
    actions
        .filter(|action| matches!(action, Action::Abort { .. }))
        .count()
}

#[test]
fn quic_comes_before_tcp_with_a_head_start() {
    assert_eq!(
        order(&["tcp 192.0.2.1 4001", "quic 192.0.2.1 4001"]),
        [(0, "quic 192.0.2.1 4001"), (250, "tcp 192.0.2.1 4001")]
    );
    assert_eq!(
        order(&["tcp 10.0.0.1 4001", "quic 10.0.0.1 4001"]),
        [(0, "quic 10.0.0.1 4001"), (30, "tcp 10.0.0.1 4001")]
    );
    assert_eq!(order(&["tcp 192.0.2.1 4001"]), [(0, "tcp 192.0.2.1 4001")]);
}

#[test]
fn both_ip_versions_take_turns_and_low_ports_come_first() {
    assert_eq!(
        order(&[
            "tcp 192.0.2.1 1",
            "quic 192.0.2.1 2",
            "quic 2001:db8::1 9",
            "quic 192.0.2.1 1",
            "tcp 2001:db8::1 1",
            "quic 2001:db8::1 8",
        ]),
        [
            (0, "quic 2001:db8::1 8"),
            (250, "quic 192.0.2.1 1"),
            (500, "quic 2001:db8::1 9"),
            (500, "quic 192.0.2.1 2"),
            (750, "tcp 2001:db8::1 1"),
            (1000, "tcp 192.0.2.1 1"),
        ]
    );
}

#[test]
fn private_and_public_addresses_start_together_and_relays_later() {
    assert_eq!(
        order(&["quic 192.0.2.1 1", "quic 127.0.0.1 1", "quic 192.0.2.9 1 relayed"]),
        [
            (0, "quic 127.0.0.1 1"),
            (0, "quic 192.0.2.1 1"),
            (500, "quic 192.0.2.9 1 relayed")
        ]
    );
    assert_eq!(
        order(&["tcp 192.0.2.9 1 relayed"]),
        [(0, "tcp 192.0.2.9 1 relayed")]
    );
    let no_peers = [
        "quic 0.0.0.0 1",
        "quic 224.0.0.1 1",
        "tcp 255.255.255.255 1",
        "tcp :: 1",
    ];
    assert_eq!(order(&no_peers), []);
}

#[test]
fn the_next_address_starts_at_once_when_all_others_failed() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let addrs = ["quic 192.0.2.1 1", "quic 192.0.2.1 2", "tcp 192.0.2.1 3"].map(addr);
    let id = dialer.dial(START, &7, addrs).expect("room");
    let first = started(&mut dialer);
    assert_eq!(first.len(), 1);
    let now = START + MS(10);
    dialer.handle_failed(now, first[0].0, REFUSED);
    let second = started(&mut dialer);
    assert_eq!(second[0].1, "quic 192.0.2.1 2");
    // The plan moved forward with it.
    assert_eq!(dialer.poll_timeout(), Some(now + MS(250)));
    dialer.handle_failed(now, second[0].0, Failure::WrongPeer);
    let third = started(&mut dialer);
    dialer.handle_failed(now, third[0].0, Failure::Handshake);
    let attempts = vec![
        ("quic 192.0.2.1 1", REFUSED),
        ("quic 192.0.2.1 2", Failure::WrongPeer),
        ("tcp 192.0.2.1 3", Failure::Handshake),
    ];
    let error = Arc::new(DialError::Failed { attempts });
    let text = error.to_string();
    assert!(
        text.contains("quic 192.0.2.1 2: another peer is at this address; tcp"),
        "{text}"
    );
    assert_eq!(dialer.poll_event(), Some(Event::Failed { id, peer: 7, error }));
    assert_eq!((dialer.poll_event(), dialer.poll_timeout()), (None, None));
}

#[test]
fn attempts_time_out_after_5_s_in_private_networks_and_after_15_s_elsewhere() {
    for (at, seconds) in [("tcp 10.0.0.1 1", 5), ("tcp 192.0.2.1 1", 15)] {
        let mut dialer = Dialer::new(Config::default(), 1);
        dialer.dial(START, &7, [addr(at)]).expect("room");
        assert_eq!(started(&mut dialer).len(), 1);
        let limit = Duration::from_secs(seconds);
        assert_eq!(dialer.poll_timeout(), Some(START + limit));
        dialer.handle_timeout(START + limit);
        assert_eq!(aborted(&mut dialer), 1);
        let Some(Event::Failed { error, .. }) = dialer.poll_event() else {
            panic!("no event")
        };
        let attempts = vec![(at, Failure::TimedOut(limit))];
        assert_eq!(*error, DialError::Failed { attempts });
    }
}

#[test]
fn dials_of_one_peer_share_its_attempts_and_end_together() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let first = dialer.dial(START, &7, [addr("quic 192.0.2.1 1")]).expect("room");
    let addrs = ["quic 192.0.2.1 1", "quic 10.0.0.1 1"].map(addr);
    let second = dialer.dial(START, &7, addrs).expect("room");
    let attempts = started(&mut dialer);
    assert_eq!(attempts.len(), 2, "one for each address");
    dialer.handle_connected(START, attempts[1].0);
    assert_eq!(aborted(&mut dialer), 1);
    let attempt = Some(attempts[1].0);
    for id in [first, second] {
        assert_eq!(
            dialer.poll_event(),
            Some(Event::Connected { id, peer: 7, attempt })
        );
    }
    assert!(!dialer.is_dialling(&7) && dialer.poll_timeout().is_none());
    // The aborted attempt may have succeeded at the same moment: this changes nothing.
    dialer.handle_connected(START, attempts[0].0);
    assert_eq!(dialer.poll_event(), None);
}

#[test]
fn a_connection_that_the_peer_opened_ends_the_dial_and_aborts_no_attempt() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let addrs = ["quic 192.0.2.1 1", "tcp 192.0.2.1 1"].map(addr);
    let id = dialer.dial(START, &7, addrs).expect("room");
    let attempts = started(&mut dialer);
    dialer.handle_peer_connected(START, &7);
    let attempt = None;
    assert_eq!(
        dialer.poll_event(),
        Some(Event::Connected { id, peer: 7, attempt })
    );
    assert_eq!((dialer.poll_action(), dialer.attempts()), (None, 1));
    // No further address is tried, and the attempt ends in its own time.
    let timeout = START + Duration::from_secs(15);
    assert_eq!(dialer.poll_timeout(), Some(timeout));
    dialer.handle_failed(START, attempts[0].0, REFUSED);
    assert_eq!(
        (dialer.poll_event(), dialer.poll_timeout(), dialer.peers()),
        (None, None, 0)
    );
}

#[test]
fn a_dial_ends_with_its_last_caller() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let ids = [(); 2].map(|()| dialer.dial(START, &7, [addr("quic 192.0.2.1 1")]).expect("room"));
    dialer.cancel(START, ids[0]);
    assert_eq!((aborted(&mut dialer), dialer.attempts()), (0, 1));
    dialer.cancel(START, ids[1]);
    assert_eq!((aborted(&mut dialer), dialer.attempts()), (1, 0));
    assert_eq!((dialer.poll_event(), dialer.poll_timeout()), (None, None));
}

#[test]
fn a_dial_without_addresses_fails_at_once() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let id = dialer.dial(START, &7, [addr("quic 0.0.0.0 1")]).expect("room");
    let error = Arc::new(DialError::NoAddrs);
    assert_eq!(dialer.poll_event(), Some(Event::Failed { id, peer: 7, error }));
}

#[test]
fn addresses_that_failed_come_last_and_are_still_tried() {
    let mut dialer = Dialer::new(Config::default(), 1);
    dialer.dial(START, &7, [addr("quic 192.0.2.1 1")]).expect("room");
    let attempts = started(&mut dialer);
    dialer.handle_failed(START, attempts[0].0, REFUSED);
    assert!(dialer.poll_event().is_some());
    let addrs = || ["quic 192.0.2.1 1", "tcp 192.0.2.1 1"].map(addr);
    dialer.dial(START, &7, addrs()).expect("room");
    let attempts = started(&mut dialer);
    assert_eq!(attempts[0].1, "tcp 192.0.2.1 1");
    dialer.handle_failed(START, attempts[0].0, REFUSED);
    let attempts = started(&mut dialer);
    assert_eq!(attempts[0].1, "quic 192.0.2.1 1");
    dialer.handle_failed(START, attempts[0].0, REFUSED);
    // Later they have their usual order again.
    let later = START + Duration::from_mins(1);
    dialer.dial(later, &7, addrs()).expect("room");
    assert_eq!(started(&mut dialer)[0].1, "quic 192.0.2.1 1");
}

fn numbered(count: u32) -> Vec<DialAddr<u32>> {
    let numbered = |number: u32| DialAddr {
        addr: number,
        transport: Transport::Quic,
        ip: Some([192, 0, 2, 1].into()),
        port: number as u16,
        is_relayed: false,
    };
    (0..count).map(numbered).collect()
}

#[test]
fn at_most_25_addresses_are_tried_and_8_at_once() {
    let mut dialer = Dialer::new(Config::default(), 1);
    dialer.dial(START, &7, numbered(1000)).expect("room");
    let (mut now, mut tried, mut most) = (START, 0, 0);
    while let Some(due) = dialer.poll_timeout() {
        while let Some(action) = dialer.poll_action() {
            tried += usize::from(matches!(action, Action::Start { .. }));
        }
        most = most.max(dialer.attempts());
        now = due;
        dialer.handle_timeout(now);
    }
    assert_eq!((tried, most), (25, 8));
    assert!(now <= START + Duration::from_mins(1));
}

#[test]
fn many_false_addresses_of_one_caller_delay_no_address_of_another() {
    let mut dialer = Dialer::new(Config::default(), 1);
    dialer.dial(START, &7, numbered(25)).expect("room");
    let mut now = START + MS(300);
    dialer.handle_timeout(now);
    let true_addr = DialAddr {
        addr: 9999,
        ..numbered(1)[0]
    };
    dialer.dial(now, &7, [true_addr]).expect("room");
    loop {
        let actions = std::iter::from_fn(|| dialer.poll_action());
        let mut starts = actions.filter(|action| matches!(action, Action::Start { addr: 9999, .. }));
        if starts.next().is_some() {
            break;
        }
        now = dialer.poll_timeout().expect("it is dialled");
        dialer.handle_timeout(now);
    }
    assert!(
        now <= START + Duration::from_secs(16),
        "with the first attempt that ends"
    );
}

#[test]
fn many_peers_that_do_not_answer_leave_dials_to_others() {
    let mut dialer = Dialer::new(Config::default(), 1);
    for peer in 0..1023 {
        dialer.dial(START, &peer, numbered(25)).expect("room");
    }
    assert_eq!(dialer.attempts(), 160);
    let mut now = START;
    let id = dialer.dial(now, &5000, numbered(1)).expect("room");
    let full = dialer.dial(now, &5001, numbered(1));
    assert_eq!(
        full,
        Err(Full {
            what: "peers that are dialled",
            limit: 1024
        })
    );
    loop {
        let actions = std::iter::from_fn(|| dialer.poll_action());
        let mut starts = actions.filter(|action| matches!(action, Action::Start { peer: 5000, .. }));
        if starts.next().is_some() {
            break;
        }
        assert!(dialer.attempts() <= 160);
        now = dialer.poll_timeout().expect("peers are dialled");
        dialer.handle_timeout(now);
    }
    assert!(
        now <= START + Duration::from_secs(20),
        "after {:?}",
        now.saturating_sub(START)
    );
    dialer.cancel(now, id);
    assert_eq!(dialer.peers() > 0, dialer.poll_timeout().is_some());
}

#[test]
fn more_callers_than_the_limit_are_an_error() {
    let config = Config {
        callers: 3,
        ..Config::default()
    };
    let mut dialer = Dialer::new(config, 1);
    let ids = [(); 3].map(|()| dialer.dial(START, &7, numbered(1)).expect("room"));
    assert_eq!(
        dialer.dial(START, &8, numbered(1)),
        Err(Full {
            what: "callers of dials",
            limit: 3
        })
    );
    dialer.cancel(START, ids[0]);
    assert!(dialer.dial(START, &8, numbered(1)).is_ok());
}

#[test]
fn addresses_that_failed_are_remembered_within_a_bound() {
    let config = Config {
        failed_addrs: 10,
        ..Config::default()
    };
    let mut dialer = Dialer::new(config, 1);
    for peer in 0..1000 {
        dialer.dial(START, &peer, numbered(3)).expect("room");
        while let Some(action) = dialer.poll_action() {
            if let Action::Start { attempt, .. } = action {
                dialer.handle_failed(START, attempt, REFUSED);
            }
        }
        assert!(dialer.failed_addrs() <= 10);
    }
}

/// Returns the pauses before reconnections to a peer that refuses each attempt.
fn pauses(seed: u64, count: usize) -> Vec<Duration> {
    let mut dialer = Dialer::new(Config::default(), seed);
    let (mut now, mut pauses) = (START, Vec::new());
    dialer.maintain(now, &7, false).expect("room");
    while pauses.len() < count {
        assert_eq!(dialer.poll_action(), Some(Action::Reconnect { peer: 7 }));
        dialer.dial(now, &7, [addr("quic 192.0.2.1 1")]).expect("room");
        let attempts = started(&mut dialer);
        dialer.handle_failed(now, attempts[0].0, REFUSED);
        while dialer.poll_event().is_some() {}
        let due = dialer.poll_timeout().expect("it is tried again");
        pauses.push(due.saturating_sub(now));
        now = due;
        dialer.handle_timeout(now);
    }
    pauses
}

#[test]
fn reconnections_back_off_to_5_minutes_with_a_jitter_from_the_seed() {
    for (pause, seconds) in pauses(1, 10)
        .into_iter()
        .zip([5, 10, 20, 40, 80, 160, 300, 300, 300, 300])
    {
        let expected = Duration::from_secs(seconds);
        let range = expected.mul_f64(0.79)..=expected.mul_f64(1.21);
        assert!(range.contains(&pause), "{pause:?}, about {seconds} s");
    }
    assert_eq!(pauses(1, 10), pauses(1, 10));
    let first: BTreeSet<Duration> = (0..50).map(|seed| pauses(seed, 1)[0]).collect();
    assert!(first.len() > 40, "nodes return at different times");
}

#[test]
fn a_connection_that_lasted_resets_the_backoff_and_a_short_one_does_not() {
    let mut dialer = Dialer::new(Config::default(), 1);
    let mut now = START;
    dialer.maintain(now, &7, true).expect("room");
    let mut pause_after = |dialer: &mut Dialer<u32, &'static str>, lasted| {
        now += lasted;
        dialer.handle_peer_disconnected(now, &7);
        let due = dialer.poll_timeout().expect("it is tried again");
        let pause = due.saturating_sub(now);
        now = due;
        dialer.handle_timeout(now);
        assert_eq!(dialer.poll_action(), Some(Action::Reconnect { peer: 7 }));
        dialer.handle_peer_connected(now, &7);
        pause.as_secs()
    };
    let short = Duration::from_secs(1);
    assert!((4..=6).contains(&pause_after(&mut dialer, short)));
    assert!((8..=12).contains(&pause_after(&mut dialer, short)));
    assert!((16..=24).contains(&pause_after(&mut dialer, short)));
    assert!((4..=6).contains(&pause_after(&mut dialer, Duration::from_mins(1))));
    dialer.release(&7);
    dialer.handle_peer_disconnected(now, &7);
    assert_eq!(dialer.poll_timeout(), None);
}

#[test]
fn a_reconnection_that_the_driver_does_not_dial_is_asked_for_again() {
    let mut dialer: Dialer<u32, u32> = Dialer::new(Config::default(), 1);
    dialer.maintain(START, &7, false).expect("room");
    assert_eq!(dialer.poll_action(), Some(Action::Reconnect { peer: 7 }));
    let due = dialer.poll_timeout().expect("a timer");
    assert!(due > START + Duration::from_mins(1));
    dialer.handle_timeout(due);
    assert_eq!(dialer.poll_action(), Some(Action::Reconnect { peer: 7 }));
}

#[test]
fn more_maintained_peers_than_the_limit_are_an_error() {
    let config = Config {
        maintained: 2,
        ..Config::default()
    };
    let mut dialer: Dialer<u32, u32> = Dialer::new(config, 1);
    for peer in [1, 2, 1] {
        dialer.maintain(START, &peer, true).expect("room");
    }
    let full = dialer.maintain(START, &3, true);
    assert_eq!(
        full,
        Err(Full {
            what: "maintained peers",
            limit: 2
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_dial_has_one_result_after_any_steps(seed: u64, steps in vec(any::<Op>(), 0..2000)) {
        let mut world = World::new(seed);
        for step in steps {
            world.step(step);
        }
        world.finish();
    }
}
