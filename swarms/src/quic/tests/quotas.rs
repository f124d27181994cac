//! How many sessions one identity and one network get, and that they displace only their own.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use p2p::{AskSwarm as _, Packet, PeerId, Swarm as _};
use tokio::time::timeout;

use super::floods::serves;
use super::internet::Internet;
use super::{addr, counted};
use crate::KeyAddr;
use crate::quic::{QuicConfig, QuicSwarm};

/// Which network, host and key the nth attacker has.
type Crowd = fn(u8) -> (u8, u8, u32);

const ONE_IDENTITY: Crowd = |nth| (20 + nth, 1, 99);
const ONE_NETWORK: Crowd = |nth| (20, nth, 100 + u32::from(nth));

fn attackers(net: &Internet, crowd: Crowd) -> Vec<QuicSwarm<SocketAddr>> {
    let nodes = (0..24).map(|nth| {
        let (network, host, key) = crowd(nth);
        net.node(network, host, key, QuicConfig::default())
    });
    nodes.collect()
}

/// Returns the peers with a session that are among these.
fn with_sessions(hub: &QuicSwarm<SocketAddr>, of: &[QuicSwarm<SocketAddr>]) -> Vec<KeyAddr<SocketAddr>> {
    let of: Vec<_> = of.iter().map(addr).collect();
    let sessions = hub.node.sessions().list(|session| of.contains(&session.peer));
    sessions.iter().map(|session| session.peer.clone()).collect()
}

/// Opens sessions that carried one message and are idle, one after the other.
async fn tell_each(hub: &QuicSwarm<SocketAddr>, nodes: &[QuicSwarm<SocketAddr>]) {
    let to = addr(hub);
    for node in nodes {
        let told = node.tell(&to, Packet::from(b"hello")).await;
        told.unwrap_or_else(|error| panic!("{error}: {}", counted(hub)));
        hub.receive().await.expect("open");
    }
}

/// Checks that a crowd whose members open idle sessions has no more than `quota` of them at a time, the newest among them, and
/// that no session of an honest peer ends for it.
async fn idle_sessions(crowd: Crowd, config: QuicConfig, quota: usize) {
    let net = Internet::new();
    let hub = net.node(1, 1, 1, config);
    let honest: Vec<_> = (2..6)
        .map(|network| net.node(network, 1, network.into(), QuicConfig::default()))
        .collect();
    tell_each(&hub, &honest).await;
    let attackers = attackers(&net, crowd);
    for (at, attacker) in attackers.iter().enumerate() {
        tell_each(&hub, std::slice::from_ref(attacker)).await;
        let held = with_sessions(&hub, &attackers);
        assert_eq!(held.len(), quota.min(at + 1), "{}", counted(&hub));
        assert!(held.contains(&addr(attacker)), "the newest has none");
        assert_eq!(
            with_sessions(&hub, &honest).len(),
            honest.len(),
            "{}",
            counted(&hub)
        );
    }
    let [first, last] =
        [(6, 50), (7, 51)].map(|(network, key)| net.node(network, 1, key, QuicConfig::default()));
    serves(&hub, &first, &last, 5000).await;
}

#[tokio::test(start_paused = true)]
async fn one_identity_has_no_more_sessions_than_its_quota_and_displaces_only_its_own() {
    for (max_sessions, max_sessions_per_id, quota) in [(64, 4, 4), (32, 100, 8), (32, 0, 2)] {
        let config = QuicConfig {
            max_sessions,
            max_sessions_per_id,
            ..QuicConfig::default()
        };
        idle_sessions(ONE_IDENTITY, config, quota).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_network_has_no_more_sessions_than_its_quota_and_displaces_only_its_own() {
    for (max_sessions, max_sessions_per_prefix, quota) in [(64, 4, 4), (24, 100, 12), (32, 0, 2)] {
        let config = QuicConfig {
            max_sessions,
            max_sessions_per_prefix,
            ..QuicConfig::default()
        };
        idle_sessions(ONE_NETWORK, config, quota).await;
    }
}

#[tokio::test(start_paused = true)]
async fn asks_of_one_identity_that_are_held_leave_room_for_other_identities() {
    let net = Internet::new();
    let config = QuicConfig {
        max_sessions: 16,
        ..QuicConfig::default()
    };
    let hub = net.node(1, 1, 1, config);
    let to = addr(&hub);
    let attackers = attackers(&net, ONE_IDENTITY);
    let asks = attackers.iter().map(|node| node.ask(&to, Packet::from(b"hold")));
    let holding = async {
        let mut held = Vec::new();
        // Until the asks that find no room have timed out.
        while let Ok(request) = timeout(Duration::from_secs(8), hub.receive_ask()).await {
            held.push(request.expect("open"));
        }
        assert_eq!(held.len(), 4, "a quarter of the sessions: {}", counted(&hub));
        let ids: Vec<PeerId> = held.iter().map(|request| request.message.src.id).collect();
        assert!(ids.iter().all(|id| *id == addr(&attackers[0]).id));
        let [honest, friend] =
            [(6, 50), (7, 51)].map(|(network, key)| net.node(network, 1, key, QuicConfig::default()));
        serves(&hub, &honest, &friend, 5000).await;
        for request in held {
            request.respond(Packet::from(b"done")).await.expect("a session");
        }
    };
    let (answers, ()) = tokio::join!(join_all(asks), holding);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 4);
}
