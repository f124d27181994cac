//! Lengths of datagrams.

use std::time::Duration;

use p2p::Swarm as _;
use tokio::time::timeout;

use super::{addr, nodes};
use crate::quic::MAX_UDP_DATAGRAM;

/// MTU discovery ends this close to the maximum.
const CLOSE: u16 = 64;

#[tokio::test]
async fn datagrams_on_loopback_become_as_long_as_permitted() {
    let [a, b] = nodes();
    let to = addr(&b);
    let mtu = || {
        let sessions = a.node.sessions().list(|_| true);
        let mtus = sessions
            .iter()
            .map(|session| session.connection.stats().path.current_mtu);
        mtus.max().unwrap_or_default()
    };
    // Messages go on, since probes are found lost or not by what is acknowledged after them.
    let told = async {
        while mtu() + CLOSE < MAX_UDP_DATAGRAM {
            a.tell(&to, a.packet(&[7; 10_000])).await.expect("room");
            assert_eq!(b.receive().await.expect("open").payload.len(), 10_000);
        }
    };
    let ended = timeout(Duration::from_secs(20), told).await;
    assert!(ended.is_ok(), "datagrams have {} bytes", mtu());
}
