//! Refused dials: a copy of their first packet, sent again by the network or by an attacker, uses no permit.

use std::time::Duration;

use p2p::{DropReason, Packet, Swarm as _};
use tokio::time::{Instant, sleep};

use super::internet::{Internet, memory_addr};
use super::{addr, counted, dropped};
use crate::quic::QuicConfig;

#[tokio::test(start_paused = true)]
async fn copies_of_a_refused_dials_first_packet_take_no_place() {
    let net = Internet::new();
    let config = QuicConfig {
        max_handshakes: 1,
        ..QuicConfig::default()
    };
    let hub = net.node(1, 1, 1, config);
    let honest = net.node(3, 1, 2, QuicConfig::default());
    let to = addr(&hub);
    let at = memory_addr(&to.addr).expect("in memory");
    let mut packets = net.first_packets(2).await;
    let (second, first) = (packets.remove(1), packets.remove(0));
    // The first one uses the only permit until the handshake timeout, and the second one is refused.
    net.host(20, 1).tell(&at, first).await.expect("it left");
    sleep(Duration::from_secs(2)).await;
    let refused = net.host(21, 1);
    refused.tell(&at, second.clone()).await.expect("it left");
    let answer = refused.receive().await.expect("it is refused");
    assert!(answer.payload.len() < second.len());
    assert_eq!(dropped(&hub, "quic-handshake", DropReason::Budget), 1);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(dropped(&hub, "quic-handshake", DropReason::Expired), 1);
    // Copies that arrive when there is room again.
    for network in 21..24 {
        let copies = net.host(network, 2);
        copies.tell(&at, second.clone()).await.expect("it left");
        // Copies that wait at the same time are one dial.
        sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let told = honest.tell(&to, Packet::from(b"honest")).await;
    assert!(
        told.is_ok() && began.elapsed() < Duration::from_secs(1),
        "{told:?} after {:?}: {}",
        began.elapsed(),
        counted(&hub)
    );
    assert_eq!(hub.receive().await.expect("open").payload, b"honest");
    assert_eq!(dropped(&hub, "quic-handshake", DropReason::Duplicate), 3);
}
