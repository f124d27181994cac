//! Which session ends for a new one, and how many may take their time to end.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use p2p::{DropReason, Packet, Swarm as _};

use super::crowds::nth_key;
use super::internet::Internet;
use super::{addr, counted, dropped};
use crate::quic::{QuicConfig, QuicSwarm};
use crate::{Faults, MemoryRealm, SwarmExt as _};

#[tokio::test(start_paused = true)]
async fn a_newcomer_displaces_a_session_of_the_identity_with_the_most_however_lately_it_was_used() {
    let net = Internet::new();
    let config = QuicConfig {
        max_sessions: 16,
        ..QuicConfig::default()
    };
    let hub = net.node(1, 1, 1, config);
    let to = addr(&hub);
    let node = |network: u8, key: u32| net.node(network, 1, key, QuicConfig::default());
    let honest: Vec<_> = (2..11).map(|network| node(network, network.into())).collect();
    // One identity with three sessions, which are used after all others.
    let attackers: Vec<_> = (20..23).map(|network| node(network, 99)).collect();
    for node in honest.iter().chain(&attackers).chain(&attackers) {
        node.tell(&to, Packet::from(b"hello")).await.expect("sent");
        hub.receive().await.expect("open");
    }
    assert_eq!(hub.sessions(), 12, "as many as may be inbound: {}", counted(&hub));
    let (first, second) = (node(11, 11), node(12, 12));
    for newcomer in [&first, &second] {
        newcomer.tell(&to, Packet::from(b"new")).await.expect("sent");
        assert_eq!(hub.receive().await.expect("open").payload, b"new");
    }
    let of = |node: &QuicSwarm<_>| {
        hub.node
            .sessions()
            .list(|session| session.peer.id == node.id())
            .len()
    };
    for node in honest.iter().chain([&first, &second]) {
        assert_eq!(of(node), 1, "{}", counted(&hub));
    }
    assert_eq!(of(&attackers[0]), 1, "{}", counted(&hub));
}

#[tokio::test(start_paused = true)]
async fn sessions_that_wait_for_silent_peers_before_they_end_are_bounded() {
    const SESSIONS: usize = 2;
    let (realm, faults) = (MemoryRealm::default(), Faults::seeded(1));
    let node = |number, config| {
        QuicSwarm::with_config(realm.open().faulty(faults.clone()), &nth_key(number), config).expect("a node")
    };
    let config = QuicConfig {
        max_sessions: SESSIONS,
        linger: Duration::from_hours(1),
        ..QuicConfig::default()
    };
    let hub = node(1, config);
    let silent: Vec<_> = (2..12)
        .map(|number| node(number, QuicConfig::default()))
        .collect();
    for peer in &silent {
        let to = addr(peer);
        hub.tell(&to, Packet::from(b"heard")).await.expect("sent");
        peer.receive().await.expect("open");
        // From now on it acknowledges nothing.
        faults.partition(&[addr(&hub).addr], &[to.addr]);
        hub.tell(&to, Packet::from(b"lost")).await.expect("sent");
        let closing = hub.node.lingering.load(Relaxed);
        assert!(closing <= SESSIONS, "{closing} sessions are closing");
    }
    let lost = dropped(&hub, "quic", DropReason::Lost);
    let ended = silent.len() - 2 * SESSIONS;
    assert!(lost >= ended as u64, "{lost} of {ended} are counted");
}
