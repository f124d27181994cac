//! Bounds of the memory that peers can make a node hold.

use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Error, Packet, PeerId, Result, Swarm as _};

use super::{Raw, addr, dropped, eventually, key, nodes, udp};
use crate::quic::{MIN_INNER_MTU, QuicConfig, QuicSwarm};
use crate::{KeyAddr, MemoryRealm};

#[tokio::test]
async fn a_message_over_the_mtu_is_an_error_and_one_of_the_mtu_arrives() {
    let [a, b] = nodes();
    let over = Packet::from(vec![7; a.mtu() + 1]);
    assert!(matches!(
        a.tell(&addr(&b), over.clone()).await,
        Err(Error::MtuExceeded { .. })
    ));
    assert!(matches!(
        a.ask(&addr(&b), over).await,
        Err(Error::MtuExceeded { .. })
    ));
    let to = addr(&b);
    let (sent, received) = tokio::join!(a.tell(&to, Packet::from(vec![7; a.mtu()])), b.receive());
    sent.expect("sent");
    assert_eq!(received.expect("received").payload.len(), a.mtu());
}

#[tokio::test]
async fn a_response_over_the_askers_mtu_is_an_error_before_it_is_held() {
    let a = udp(
        1,
        QuicConfig {
            mtu: 100,
            ..QuicConfig::default()
        },
    );
    let b = udp(2, QuicConfig::default());
    let answer = async {
        let request = b.receive_ask().await.expect("a request");
        let _ = request.respond(Packet::from(vec![7; 101])).await;
    };
    let to = addr(&b);
    let (asked, ()) = tokio::join!(a.ask(&to, Packet::from(b"much")), answer);
    assert!(matches!(asked, Err(Error::Invalid { .. })), "{asked:?}");
}

#[tokio::test]
async fn messages_that_never_end_are_dropped_at_the_budget_and_released() {
    let config = QuicConfig {
        mtu: 50_000,
        session_reassembly: 110_000,
        ..QuicConfig::default()
    };
    let swarm = udp(1, config);
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut send = connection.open_uni().await.expect("a stream");
        let _ = send.write_all(&vec![7; 50_000]).await;
        streams.push(send);
    }
    eventually("some are dropped", || {
        dropped(&swarm, "quic", DropReason::Budget) > 0
    })
    .await;
    assert!(swarm.node.budget.held() <= 110_000);
    connection.close(0_u32.into(), b"");
    let over = || swarm.node.budget.held() == 0 && swarm.sessions() == 0;
    eventually("all is released", over).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_spoofed_addresses_affects_neither_sessions_nor_bounds() -> Result<()> {
    let realm = MemoryRealm::default();
    let config = || QuicConfig {
        max_sessions: 8,
        max_handshakes: 8,
        max_addrs: 32,
        ..QuicConfig::default()
    };
    let [a, b] =
        [1, 2].map(|seed| QuicSwarm::with_config(realm.open(), &key(seed), config()).expect("a node"));
    let to = b.local_addrs().remove(0);
    a.tell(&to, Packet::from(b"before")).await?;
    b.receive().await?;
    // The initial packet of a client, as seen on the medium.
    let tap = realm.open();
    let client = QuicSwarm::new(realm.open(), &key(3))?;
    let first = {
        let absent = KeyAddr::new(PeerId::ZERO, tap.local_addr());
        let dial = client.tell(&absent, Packet::from(b"x"));
        tokio::select! {
            message = tap.receive() => message?.payload,
            _ = dial => unreachable!("no node answers"),
        }
    };
    for flood in 0..2000_u32 {
        let spoofed = realm.open();
        let mut packet = first.clone();
        // Either another connection id, so that the packet cannot be decrypted, or a replay.
        if flood % 2 == 0
            && let Some(id) = packet.get_mut(6..10)
        {
            id.copy_from_slice(&flood.to_be_bytes());
        }
        spoofed.tell(&to.addr, packet).await?;
        if flood % 100 == 0 {
            a.tell(&to, Packet::from(b"during")).await?;
            assert_eq!(b.receive().await?.payload, b"during");
        }
    }
    assert!(b.sessions() <= 8);
    let response = tokio::join!(a.ask(&to, Packet::from(b"after")), async {
        b.receive_ask().await?.respond(Packet::from(b"still here")).await
    });
    response.1?;
    assert_eq!(response.0?, b"still here");
    Ok(())
}

#[tokio::test]
async fn an_inner_swarm_with_too_small_an_mtu_is_refused() {
    let small = crate::memory::MemoryConfig {
        mtu: MIN_INNER_MTU - 1,
        ..crate::memory::MemoryConfig::default()
    };
    let refused = QuicSwarm::new(MemoryRealm::new(small).open(), &key(1));
    assert!(
        matches!(
            &refused,
            Err(Error::Invalid {
                what: "inner swarm",
                ..
            })
        ),
        "{refused:?}"
    );
    let enough = crate::memory::MemoryConfig {
        mtu: MIN_INNER_MTU,
        ..small
    };
    let realm = MemoryRealm::new(enough);
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let to = b.local_addrs().remove(0);
    let (sent, received) = tokio::join!(a.tell(&to, Packet::from(vec![7; 1 << 20])), b.receive());
    sent.expect("sent");
    assert_eq!(received.expect("received").payload.len(), 1 << 20);
}

#[tokio::test]
async fn messages_that_have_barely_started_are_charged_for_waiting() {
    let config = QuicConfig {
        mtu: 1000,
        session_reassembly: 5000,
        ..QuicConfig::default()
    };
    let (swarm, raw) = (udp(1, config), Raw::new(2));
    let connection = raw.dial(&swarm).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut send = connection.open_uni().await.expect("a stream");
        send.write_all(&[7]).await.expect("written");
        streams.push(send);
    }
    eventually("most are dropped", || {
        dropped(&swarm, "quic", DropReason::Budget) == 16
    })
    .await;
    // The remaining messages can still be completed, even after so long.
    for mut send in streams.drain(..4) {
        send.finish().expect("open");
        assert_eq!(swarm.receive().await.expect("received").payload, b"\x07");
    }
    assert_eq!(swarm.node.budget.held(), 0);
}

#[tokio::test]
async fn an_incomplete_message_of_a_closed_session_is_counted_as_lost() {
    let (swarm, raw) = (udp(1, QuicConfig::default()), Raw::new(2));
    let connection = raw.dial(&swarm).await;
    let mut send = connection.open_uni().await.expect("a stream");
    send.write_all(b"half").await.expect("written");
    eventually("it began", || swarm.node.budget.held() > 0).await;
    connection.close(0_u32.into(), b"");
    eventually("it is counted", || dropped(&swarm, "quic", DropReason::Lost) == 1).await;
    assert_eq!(swarm.node.budget.held(), 0);
}

#[tokio::test]
async fn invalid_limits_are_refused_with_their_name() {
    let default = QuicConfig::default;
    let few = crate::inbox::Limits {
        bytes: 1 << 20,
        ..default().messages
    };
    let bad = [
        (
            "max_sessions",
            QuicConfig {
                max_sessions: 0,
                ..default()
            },
        ),
        (
            "max_addrs",
            QuicConfig {
                max_addrs: 300,
                ..default()
            },
        ),
        (
            "reassembly",
            QuicConfig {
                mtu: 64 << 20,
                ..default()
            },
        ),
        (
            "messages",
            QuicConfig {
                messages: few,
                ..default()
            },
        ),
        (
            "send_window",
            QuicConfig {
                send_window: 0,
                ..default()
            },
        ),
        (
            "send_timeout",
            QuicConfig {
                send_timeout: Duration::ZERO,
                ..default()
            },
        ),
        (
            "idle_timeout",
            QuicConfig {
                idle_timeout: Duration::MAX,
                ..default()
            },
        ),
    ];
    for (name, config) in bad {
        match QuicSwarm::with_config(MemoryRealm::default().open(), &key(1), config) {
            Err(Error::Invalid { reason, .. }) => assert!(reason.contains(name), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
