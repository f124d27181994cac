//! Establishing, reusing and closing sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Error, Packet, PeerId, SecureSwarm as _, Swarm as _};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Raw, addr, dropped, eventually, key, nodes, udp};
use crate::quic::{QuicConfig, QuicSwarm};
use crate::{KeyAddr, MemoryRealm};

#[tokio::test]
async fn a_session_is_reused_in_both_directions() {
    let [a, b] = nodes();
    for _ in 0..10 {
        a.tell(&addr(&b), Packet::from(b"there")).await.expect("sent");
        let there = b.receive().await.expect("received");
        assert_eq!(there.src, addr(&a));
        b.tell(&there.src, Packet::from(b"back")).await.expect("sent");
        assert_eq!(a.receive().await.expect("received").src, addr(&b));
    }
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
    assert_eq!(
        &a.lookup_public_key(&addr(&b)).await.expect("known"),
        &b.public_key()
    );
}

#[tokio::test]
async fn simultaneous_dials_lose_no_message_and_agree_on_one_session() {
    let [a, b] = nodes();
    let (to_a, to_b) = (addr(&a), addr(&b));
    let (first, second) = tokio::join!(
        a.tell(&to_b, Packet::from(b"to b")),
        b.tell(&to_a, Packet::from(b"to a"))
    );
    first.and(second).expect("sent");
    assert_eq!(a.receive().await.expect("received").payload, b"to a");
    assert_eq!(b.receive().await.expect("received").payload, b"to b");
    // Both sessions exist, and both nodes use the one that the smaller id dialled.
    let live = |swarm: &QuicSwarm<SocketAddr>, peer| {
        let session = swarm.node.sessions().find(peer).expect("a session");
        session.outbound == (session.local.id < session.peer.id)
    };
    assert!(a.sessions() <= 2 && b.sessions() <= 2);
    if a.sessions() == 2 && b.sessions() == 2 {
        assert!(live(&a, &to_b) && live(&b, &to_a));
    }
}

#[tokio::test]
async fn at_the_bound_the_least_recently_used_session_is_evicted() {
    let hub = udp(
        1,
        QuicConfig {
            max_sessions: 2,
            ..QuicConfig::default()
        },
    );
    let peers = [2, 3, 4].map(|seed| udp(seed, QuicConfig::default()));
    for peer in &peers {
        hub.tell(&addr(&peers[0]), Packet::from(b"used"))
            .await
            .expect("sent");
        hub.tell(&addr(peer), Packet::from(b"hello")).await.expect("sent");
        peer.receive().await.expect("received");
        assert!(hub.sessions() <= 2);
    }
    let mut sessions = hub.node.sessions();
    assert!(sessions.find(&addr(&peers[0])).is_some() && sessions.find(&addr(&peers[1])).is_none());
}

#[tokio::test]
async fn a_server_that_never_frees_the_streams_of_asks_is_dialled_again() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(3_u32.into());
    let raw = Raw::with(2, transport);
    let (swarm, to) = (udp(1, QuicConfig::default()), raw.addr(2));
    let serving = tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut sessions = 0;
        loop {
            let connection = raw.accept().await;
            sessions += 1;
            for _ in 0..3 {
                let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
                recv.read_exact(&mut [0; 8]).await.expect("a request");
                send.write_all(b"\0\0\0\x04pong").await.expect("written");
                // Neither finished nor read to the end: the peer does not permit another stream.
                kept.push((send, recv));
            }
            if sessions == 3 {
                return kept;
            }
        }
    });
    for _ in 0..9 {
        assert_eq!(
            swarm.ask(&to, Packet::from(b"ping")).await.expect("an answer"),
            b"pong"
        );
    }
    drop(serving.await.expect("three sessions"));
}

#[tokio::test]
async fn a_restarted_peer_resets_sessions_that_it_does_not_know() {
    let [a, b] = nodes();
    let to = addr(&b);
    a.tell(&to, Packet::from(b"1")).await.expect("sent");
    b.receive().await.expect("received");
    // The peer vanishes: its socket is closed before its close frames are sent.
    b.node.mapping.release();
    drop(b);
    let again = loop {
        match QuicSwarm::bind_udp(to.addr, &key(2)) {
            Ok(again) => break again,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    // A message in the old session is lost; the reset ends that session.
    let began = Instant::now();
    let received = async {
        loop {
            a.tell(&to, Packet::from(b"2")).await.expect("sent");
            tokio::select! {
                received = again.receive() => break received.expect("received"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    assert_eq!(received.await.payload, b"2");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "long before the idle timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_without_traffic_ends_and_the_next_message_makes_another() {
    let realm = MemoryRealm::default();
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let to = b.local_addrs().remove(0);
    for _ in 0..2 {
        a.tell(&to, Packet::from(b"hello")).await.expect("sent");
        b.receive().await.expect("received");
        assert_eq!((a.sessions(), b.sessions()), (1, 1));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!((a.sessions(), b.sessions()), (0, 0));
    }
}

#[tokio::test]
async fn dropping_a_node_frees_its_port_and_ends_its_sessions_at_peers() {
    let [a, b] = nodes();
    let at = addr(&b);
    a.tell(&at, Packet::from(b"hello")).await.expect("sent");
    b.receive().await.expect("received");
    drop(b);
    let free = || a.sessions() == 0 && std::net::UdpSocket::bind(at.addr).is_ok();
    eventually("its port is free, and its session gone", free).await;
}

#[tokio::test]
async fn closing_the_swarm_below_closes_the_node() {
    let realm = MemoryRealm::default();
    let below = Arc::new(realm.open());
    let swarm = QuicSwarm::new(below.clone(), &key(1)).expect("a node");
    let (received, ()) = tokio::join!(swarm.receive(), below.close());
    assert!(matches!(received, Err(Error::Closed)), "{received:?}");
    assert!(matches!(swarm.receive_ask().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_session_in_use_is_not_the_least_recently_used() {
    let config = QuicConfig {
        max_sessions: 2,
        ..QuicConfig::default()
    };
    let hub = udp(1, config);
    let [often, seldom, newest] = [2, 3, 4].map(|seed| udp(seed, QuicConfig::default()));
    hub.tell(&addr(&often), Packet::from(b"1")).await.expect("sent");
    for _ in 0..2 {
        seldom.tell(&addr(&hub), Packet::from(b"2")).await.expect("sent");
        hub.receive().await.expect("received");
        hub.tell(&addr(&often), Packet::from(b"3")).await.expect("sent");
    }
    hub.tell(&addr(&newest), Packet::from(b"4")).await.expect("sent");
    let mut sessions = hub.node.sessions();
    assert!(sessions.find(&addr(&often)).is_some() && sessions.find(&addr(&seldom)).is_none());
}

#[tokio::test]
async fn a_caller_that_waits_for_a_dial_uses_the_session_that_the_peer_dialled_meanwhile() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let to = raw.addr(2);
    // The peer never accepts dials of this node.
    let meanwhile = async {
        eventually("it dials", || swarm.node.sessions().dial(&to).is_some()).await;
        raw.dial(&swarm).await
    };
    let began = Instant::now();
    let (told, connection) = tokio::join!(swarm.tell(&to, Packet::from(b"hello")), meanwhile);
    told.expect("sent");
    assert!(
        began.elapsed() < QuicConfig::default().handshake_timeout,
        "long before the dial fails"
    );
    let mut recv = connection.accept_uni().await.expect("a stream");
    assert_eq!(recv.read_to_end(10).await.expect("a message"), b"hello");
    assert_eq!(swarm.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_for_two_peers_does_not_wait_for_the_unreachable_one() {
    let realm = MemoryRealm::default();
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let silent = realm.open();
    let absent = KeyAddr::new(PeerId::new([9; 32]), silent.local_addr());
    let mut batch = vec![
        (absent, Packet::from(b"never")),
        (addr(&b), Packet::from(b"at once")),
        (addr(&b), Packet::from(b"at once")),
    ];
    let began = Instant::now();
    let reading = async {
        for _ in 0..2 {
            assert_eq!(b.receive().await.expect("received").payload, b"at once");
        }
        assert!(began.elapsed() < Duration::from_secs(1));
    };
    a.tell_batch(&mut batch).await.expect("there is room here");
    assert_eq!(began.elapsed(), Duration::ZERO, "the batch waits for no dial");
    reading.await;
    assert_eq!(dropped(&a, "quic", DropReason::NoPeer), 0, "the dial continues");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(dropped(&a, "quic", DropReason::NoPeer), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_close_calls_do_not_shorten_the_closing_phase() {
    let realm = MemoryRealm::default();
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    a.tell(&addr(&b), Packet::from(b"hello")).await.expect("sent");
    b.receive().await.expect("received");
    tokio::join!(a.close(), a.close());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        b.sessions(),
        0,
        "the peer learned of the close long before the idle timeout"
    );
}

#[tokio::test]
async fn a_held_request_does_not_hold_the_port() {
    let [a, b] = nodes();
    let at = addr(&b);
    let asking = tokio::spawn(async move { a.ask(&at, Packet::from(b"ping")).await });
    let request = b.receive_ask().await.expect("a request");
    let at = addr(&b);
    drop(b);
    let free = || std::net::UdpSocket::bind(at.addr).is_ok();
    eventually("its port is free", free).await;
    assert!(asking.await.expect("no panic").is_err());
    let responded = request.respond(Packet::from(b"too late")).await;
    assert!(responded.is_err(), "{responded:?}");
}

#[tokio::test]
async fn when_streams_run_out_a_pending_ask_does_not_block_a_new_session() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(3_u32.into());
    let raw = Raw::with(2, transport);
    let (swarm, to) = (udp(1, QuicConfig::default()), raw.addr(2));
    // The first of three asks is answered last, and the streams of the others are never freed.
    let answer = async |(send, recv): &mut (quinn::SendStream, quinn::RecvStream)| {
        recv.read_exact(&mut [0; 8]).await.expect("a request");
        send.write_all(b"\0\0\0\x04pong").await.expect("written");
    };
    let (begun, has_begun) = oneshot::channel();
    let serving = tokio::spawn(async move {
        let first = raw.accept().await;
        let mut slow = first.accept_bi().await.expect("a stream");
        begun.send(()).expect("the test waits");
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut quick = first.accept_bi().await.expect("a stream");
            answer(&mut quick).await;
            kept.push(quick);
        }
        let second = raw.accept().await;
        let mut quick = second.accept_bi().await.expect("a stream");
        answer(&mut quick).await;
        answer(&mut slow).await;
        kept.extend([slow, quick]);
        kept
    });
    let ask = || async { swarm.ask(&to, Packet::from(b"ping")).await };
    let others = async {
        has_begun.await.expect("it comes");
        for _ in 0..3 {
            assert_eq!(ask().await.expect("an answer"), b"pong");
        }
    };
    let (slow, ()) = tokio::join!(ask(), others);
    assert_eq!(slow.expect("an answer"), b"pong");
    drop(serving.await.expect("two sessions"));
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_may_wait_for_a_dial_all_arrive_once_there_is_a_session() {
    let realm = MemoryRealm::default();
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    for batch in [3, 900] {
        let packets = (0..batch).map(|number: u32| (addr(&b), Packet::from(number.to_be_bytes().as_slice())));
        let mut batch_of: Vec<_> = packets.collect();
        a.tell_batch(&mut batch_of).await.expect("sent");
        let mut seen = std::collections::HashSet::new();
        for _ in 0..batch {
            let message = tokio::time::timeout(Duration::from_secs(9), b.receive()).await;
            assert!(seen.insert(message.expect("it arrives").expect("open").payload.to_vec()));
        }
        assert_eq!(a.disconnect(&b.id()), 1);
    }
}
