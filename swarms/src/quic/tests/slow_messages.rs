//! Messages and requests that never end: each holds its bytes for a limited time only.

use std::time::Duration;

use p2p::{DropReason, Swarm as _};

use super::{Raw, dropped, eventually, udp};
use crate::quic::QuicConfig;

#[tokio::test]
async fn a_message_or_request_that_does_not_end_in_time_is_dropped_and_its_bytes_are_released() {
    let config = QuicConfig {
        message_timeout: Duration::from_millis(50),
        ..QuicConfig::default()
    };
    let (swarm, raw) = (udp(1, config), Raw::new(2));
    let connection = raw.dial(&swarm).await;
    let mut message = connection.open_uni().await.expect("a stream");
    message.write_all(b"half").await.expect("written");
    let (mut request, answer) = connection.open_bi().await.expect("a stream");
    request.write_all(b"\0\0\0\x04pi").await.expect("written");
    eventually("both are dropped", || {
        ["quic", "quic-ask"].map(|layer| dropped(&swarm, layer, DropReason::Expired)) == [1, 1]
    })
    .await;
    assert_eq!(swarm.node.budget.held(), 0);
    assert_eq!(swarm.sessions(), 1, "the session stays");
    // The peer learns that no more is wanted, and its next message arrives.
    assert!(message.stopped().await.is_ok());
    drop(answer);
    let mut next = connection.open_uni().await.expect("a stream");
    next.write_all(b"whole").await.expect("written");
    next.finish().expect("open");
    assert_eq!(swarm.receive().await.expect("open").payload, b"whole");
}
