//! Which session ends for a new one, and how many may take their time to end.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use p2p::{DropReason, Packet, SecureSwarm as _, Swarm as _};
use tokio::time::{Instant, sleep};

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

/// Longer than what is sent takes to arrive.
const SETTLE: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn a_session_whose_first_message_may_be_in_flight_is_kept_for_two_seconds() {
    let config = || QuicConfig {
        max_sessions: 4,
        ..QuicConfig::default()
    };
    for is_heard in [true, false] {
        let net = Internet::new();
        let hub = net.node(1, 1, 1, config());
        let to = addr(&hub);
        let node = |network: u8| net.node(network, 1, network.into(), QuicConfig::default());
        // As many as may be inbound.
        let peers = [2, 3, 4].map(node);
        for peer in &peers {
            peer.lookup_public_key(&to).await.expect("a session");
            if is_heard {
                peer.tell(&to, Packet::from(b"hello")).await.expect("sent");
                hub.receive().await.expect("open");
            }
        }
        sleep(SETTLE).await;
        assert_eq!(hub.sessions(), 3, "{}", counted(&hub));
        let (began, newcomer) = (Instant::now(), node(5));
        newcomer.tell(&to, Packet::from(b"new")).await.expect("room");
        assert_eq!(hub.receive().await.expect("open").payload, b"new");
        let waited = began.elapsed();
        if is_heard {
            assert!(waited < SETTLE, "{waited:?}");
        } else {
            // A refused dial is repeated after at most half a second.
            let expected = Duration::from_millis(1900)..Duration::from_millis(2600);
            assert!(expected.contains(&waited), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_identity_a_session_that_was_used_ends_before_one_whose_first_message_may_be_in_flight() {
    let net = Internet::new();
    let config = QuicConfig {
        max_sessions_per_id: 2,
        ..QuicConfig::default()
    };
    let hub = net.node(1, 1, 1, config);
    let to = addr(&hub);
    let [fresh, used, newest] = [2, 3, 4].map(|network| net.node(network, 1, 99, QuicConfig::default()));
    fresh.lookup_public_key(&to).await.expect("a session");
    sleep(SETTLE).await;
    // Later than the other.
    used.tell(&to, Packet::from(b"used")).await.expect("sent");
    hub.receive().await.expect("open");
    newest.lookup_public_key(&to).await.expect("a session");
    sleep(SETTLE).await;
    let mut sessions = hub.node.sessions();
    let has = [&fresh, &used, &newest].map(|node| sessions.find(&addr(node)).is_some());
    assert_eq!(has, [true, false, true]);
}
