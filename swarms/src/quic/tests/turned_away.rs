//! Peers without room for a session: dials are repeated in time, and no message is lost.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use p2p::{AskSwarm as _, DropReason, Error, Packet, Swarm as _};
use tokio::time::{sleep, timeout};

use super::internet::Internet;
use super::{Raw, addr, counted, dropped, udp};
use crate::quic::{QuicConfig, QuicSwarm};

#[tokio::test(start_paused = true)]
async fn a_tell_waits_while_asks_hold_all_inbound_sessions_and_is_not_lost() {
    let net = Internet::new();
    let config = QuicConfig {
        max_sessions: 8,
        ..QuicConfig::default()
    };
    let hub = net.node(1, 1, 1, config);
    let to = addr(&hub);
    let node = |network: u8| net.node(network, 1, network.into(), QuicConfig::default());
    // Six sessions may be inbound; two are free, and reserved for dials of the hub.
    let askers: Vec<QuicSwarm<SocketAddr>> = (2..8).map(node).collect();
    let asks = askers.iter().map(|asker| asker.ask(&to, Packet::from(b"hold")));
    let telling = async {
        let mut held = Vec::new();
        for _ in &askers {
            held.push(hub.receive_ask().await.expect("open"));
        }
        let late = node(9);
        let answering = async {
            sleep(Duration::from_secs(2)).await;
            for request in held {
                request.respond(Packet::from(b"done")).await.expect("a session");
            }
        };
        let (told, ()) = tokio::join!(late.tell(&to, Packet::from(b"late")), answering);
        told.unwrap_or_else(|error| panic!("{error}: {}", counted(&hub)));
        let received = timeout(Duration::from_secs(5), hub.receive()).await;
        assert_eq!(received.expect("it is not lost").expect("open").payload, b"late");
        assert!(dropped(&hub, "quic-handshake", DropReason::Budget) > 0);
    };
    let (answers, ()) = tokio::join!(join_all(asks), telling);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn an_ask_to_a_peer_that_turns_every_session_away_ends_in_time() {
    let config = QuicConfig {
        handshake_timeout: Duration::from_millis(300),
        ..QuicConfig::default()
    };
    let (swarm, raw) = (udp(1, config), Raw::new(2));
    let to = raw.addr(2);
    let turning_away = async {
        loop {
            let connection = raw.accept().await;
            let _ = connection.accept_bi().await;
            connection.close(1_u32.into(), b"");
        }
    };
    let asking = timeout(Duration::from_secs(20), swarm.ask(&to, Packet::from(b"ping")));
    tokio::select! {
        asked = asking => {
            let asked = asked.expect("it ends");
            assert!(matches!(asked, Err(Error::Unreachable { .. } | Error::TimedOut { .. })), "{asked:?}");
        }
        () = turning_away => {}
    }
}
