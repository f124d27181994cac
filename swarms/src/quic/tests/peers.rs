//! Which peers get a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use p2p::{AskSwarm as _, CounterSnapshot, DropReason, Error, Packet, PeerId, Swarm as _};

use super::{Raw, addr, dropped, eventually, nodes, udp};
use crate::KeyAddr;
use crate::quic::QuicConfig;

#[tokio::test]
async fn the_wrong_identity_at_the_right_address_gets_nothing_not_even_a_certificate() {
    let [a, b] = nodes();
    let wrong = KeyAddr::new(PeerId::new([9; 32]), addr(&b).addr);
    let told = a.tell(&wrong, Packet::from(b"secret")).await;
    assert!(
        matches!(&told, Err(Error::Unreachable { reason, .. }) if reason.contains("another identity")),
        "{told:?}"
    );
    let asked = a.ask(&wrong, Packet::from(b"secret")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    assert_eq!((a.sessions(), b.sessions()), (0, 0));
    // The peer saw both dials in the handshake, and received nothing else.
    eventually("both are counted", || {
        dropped(&b, "quic-handshake", DropReason::Lost) == 2
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_is_not_allowed_is_refused_in_the_handshake_in_both_directions() {
    let open = udp(1, QuicConfig::default());
    let open_id = open.id();
    let closed = udp(2, QuicConfig::default().allow(move |peer| *peer != open_id));
    let friend = udp(3, QuicConfig::default());

    let asked = open.ask(&addr(&closed), Packet::from(b"let me in")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    eventually("it is counted", || {
        dropped(&closed, "quic-handshake", DropReason::Denied) == 1
    })
    .await;
    assert_eq!(closed.sessions(), 0);
    let told = closed.tell(&addr(&open), Packet::from(b"never")).await;
    assert!(matches!(told, Err(Error::Denied { .. })), "{told:?}");

    friend
        .tell(&addr(&closed), Packet::from(b"hello"))
        .await
        .expect("sent");
    assert_eq!(closed.receive().await.expect("received").payload, b"hello");
}

#[tokio::test]
async fn a_peer_that_becomes_forbidden_is_disconnected_at_once() {
    let [a, b] = nodes();
    let allowed = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = allowed.clone();
    let c = udp(
        3,
        QuicConfig::default().allow(move |_| switch.load(std::sync::atomic::Ordering::SeqCst)),
    );
    a.tell(&addr(&c), Packet::from(b"1")).await.expect("sent");
    b.tell(&addr(&c), Packet::from(b"2")).await.expect("sent");
    c.receive().await.expect("received");
    c.receive().await.expect("received");
    assert_eq!(c.disconnect(&a.id()), 1);
    assert_eq!(c.disconnect_forbidden(), 0);
    allowed.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(c.disconnect_forbidden(), 1);
    assert_eq!(c.sessions(), 0);
}

#[tokio::test]
async fn a_peer_that_becomes_forbidden_during_the_handshake_gets_no_session() {
    let asked = AtomicUsize::new(0);
    // The first call belongs to the handshake.
    let config = QuicConfig::default().allow(move |_| asked.fetch_add(1, SeqCst) == 0);
    let (swarm, raw) = (udp(1, config), Raw::new(2));
    let connection = raw.dial(&swarm).await;
    connection.closed().await;
    assert_eq!(swarm.sessions(), 0);
    assert_eq!(dropped(&swarm, "quic-handshake", DropReason::Denied), 1);
}

#[tokio::test]
async fn every_inbound_dial_is_counted_once_whatever_its_result() {
    let friend = udp(2, QuicConfig::default());
    let stranger = udp(3, QuicConfig::default());
    let forbidden = stranger.id();
    let swarm = udp(1, QuicConfig::default().allow(move |peer| *peer != forbidden));
    let to = addr(&swarm);
    friend.tell(&to, Packet::from(b"hello")).await.expect("sent");
    let wrong = KeyAddr::new(PeerId::new([9; 32]), to.addr);
    assert!(friend.tell(&wrong, Packet::from(b"hello")).await.is_err());
    let _ = stranger.ask(&to, Packet::from(b"hello")).await;
    let mut counted = CounterSnapshot::default();
    eventually("all are counted", || {
        swarm.visit_counters(&mut |counters| {
            if counters.layer() == "quic-handshake" {
                counted = counters.snapshot();
            }
        });
        counted.delivered + counted.dropped_total() == 3
    })
    .await;
    assert_eq!((counted.received, counted.delivered), (3, 1));
    assert_eq!(counted.dropped(DropReason::Denied), 1);
    assert_eq!(counted.dropped(DropReason::Lost), 1);
}
