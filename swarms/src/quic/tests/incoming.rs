//! Initial packets that wait to be accepted or refused.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Counters, Swarm as _};
use tokio::time::sleep;

use super::internet::Internet;
use super::key;
use crate::quic::QuicConfig;
use crate::quic::stream::at_once;
use crate::quic::tls::{self, Check, Identity};
use crate::quic::transport::{INCOMING, Transport};

#[tokio::test(start_paused = true)]
async fn dials_beyond_those_that_may_wait_leave_no_state() {
    const HANDSHAKES: usize = 4;
    let net = Internet::new();
    let first = net.first_packets(10 * INCOMING * HANDSHAKES).await;
    let config = Arc::new(QuicConfig {
        max_handshakes: HANDSHAKES,
        ..QuicConfig::default()
    });
    let inner = net.0.open();
    let to = inner.local_addr();
    let transport = Transport::swarm(inner, &config).expect("a transport");
    let identity = Identity::new(&key(1), &config).expect("a good key");
    let check = Check::any(config.clone());
    let server = tls::server(&identity, check, Arc::new(tls::crypto())).expect("a configuration");
    let sessions = Arc::new(transport.transport_config(&config).expect("in range"));
    let counters = Arc::new(Counters::new("quic-handshake"));
    let endpoint = transport.endpoint(&identity, server, &config, sessions, &counters);
    let endpoint = endpoint.expect("an endpoint");
    // No task accepts them.
    for packet in first {
        net.0.open().tell(&to, packet).await.expect("room");
    }
    sleep(Duration::from_millis(10)).await;
    let mut waiting = Vec::new();
    while let Some(Some(incoming)) = at_once(endpoint.accept()) {
        waiting.push(incoming);
    }
    assert_eq!(waiting.len(), INCOMING * HANDSHAKES);
}
