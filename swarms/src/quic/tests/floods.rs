//! Floods of each limit, from one identity, one network and many: honest peers are served, and the node can
//! dial.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use p2p::{Addr, AskSwarm as _, DropReason, Packet, PeerId, Result, Swarm as _};
use quinn::SendStream;
use tokio::time::timeout;

use super::internet::Internet;
use super::{Raw, addr, counted, dropped, eventually, key, udp};
use crate::KeyAddr;
use crate::quic::{QuicConfig, QuicSwarm};

/// Checks that a peer's ask and message are served, and that the node can dial another peer.
pub(super) async fn serves<A: Addr>(
    hub: &QuicSwarm<A>,
    honest: &QuicSwarm<A>,
    friend: &QuicSwarm<A>,
    len: usize,
) {
    let (to, back) = (addr(hub), addr(friend));
    let served = async {
        let answering = async {
            let request = hub.receive_ask().await.expect("open");
            request
                .respond(Packet::from(b"served"))
                .await
                .expect("the session exists");
        };
        let (answer, ()) = tokio::join!(honest.ask(&to, Packet::from(vec![1; len])), answering);
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", counted(hub)));
        assert_eq!(answer, b"served");
        honest.tell(&to, Packet::from(vec![2; len])).await.expect("sent");
        while hub.receive().await.expect("open").payload != vec![2; len][..] {}
        let answering = async {
            let request = friend.receive_ask().await.expect("open");
            request
                .respond(Packet::from(vec![3; len]))
                .await
                .expect("the session exists");
        };
        let (answer, ()) = tokio::join!(hub.ask(&back, Packet::from(b"own")), answering);
        assert_eq!(answer.expect("a session is reserved for it").len(), len);
    };
    let served = timeout(Duration::from_mins(1), served).await;
    served.unwrap_or_else(|_| panic!("not served: {}", counted(hub)));
}

/// Starts messages of `len` bytes that never end. A refused message is not an error.
async fn begin(connection: &quinn::Connection, messages: usize, len: usize) -> Vec<SendStream> {
    let mut streams = Vec::new();
    for _ in 0..messages {
        let mut send = connection.open_uni().await.expect("a stream");
        let _ = send.write_all(&vec![7; len]).await;
        streams.push(send);
    }
    streams
}

#[tokio::test]
async fn streams_that_never_end_leave_room_for_others() {
    let hub = udp(1, QuicConfig::default());
    let mut kept = Vec::new();
    // One identity with several sessions, and several identities.
    for seed in [2, 2, 2, 3, 4] {
        let raw = Raw::new(seed);
        let connection = raw.dial(&hub).await;
        let streams = QuicConfig::default().max_streams as usize;
        kept.push((begin(&connection, streams, 1).await, Vec::new()));
        let more = timeout(Duration::from_millis(50), connection.open_uni());
        assert!(more.await.is_err(), "no further stream is permitted");
        for _ in 0..streams {
            let (mut send, recv) = connection.open_bi().await.expect("a stream");
            send.write_all(&[0, 0]).await.expect("written");
            kept.last_mut().expect("one").1.push((send, recv, raw.0.clone()));
        }
    }
    serves(
        &hub,
        &udp(50, QuicConfig::default()),
        &udp(51, QuicConfig::default()),
        20_000,
    )
    .await;
    drop(kept);
}

fn small_budgets() -> QuicConfig {
    QuicConfig {
        mtu: 50_000,
        session_reassembly: 300_000,
        reassembly: 1_000_000,
        ..QuicConfig::default()
    }
}

#[tokio::test]
async fn one_identity_with_many_sessions_takes_no_more_than_one_peers_share_of_the_budget() {
    let hub = udp(1, small_budgets());
    let mut kept = Vec::new();
    for _ in 0..5 {
        let raw = Raw::new(2);
        let connection = raw.dial(&hub).await;
        kept.push((begin(&connection, 6, 49_000).await, raw));
    }
    eventually("much is dropped", || {
        dropped(&hub, "quic", DropReason::Budget) >= 20
    })
    .await;
    assert!(
        hub.node.budget.held() <= 300_000,
        "{} bytes",
        hub.node.budget.held()
    );
    serves(&hub, &udp(50, small_budgets()), &udp(51, small_budgets()), 50_000).await;
    drop(kept);
}

#[tokio::test]
async fn many_identities_with_long_messages_leave_room_for_one_message_and_for_responses() {
    let hub = udp(1, small_budgets());
    let mut kept = Vec::new();
    for seed in 2..7 {
        let raw = Raw::new(seed);
        let connection = raw.dial(&hub).await;
        kept.push((begin(&connection, 6, 49_000).await, raw));
    }
    eventually("much is dropped", || {
        dropped(&hub, "quic", DropReason::Budget) >= 15
    })
    .await;
    assert!(
        hub.node.budget.held() <= 750_000,
        "{} bytes",
        hub.node.budget.held()
    );
    serves(&hub, &udp(50, small_budgets()), &udp(51, small_budgets()), 50_000).await;
    drop(kept);
}

fn few_sessions() -> QuicConfig {
    QuicConfig {
        max_sessions: 16,
        ..QuicConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn asks_of_one_network_that_are_held_leave_room_for_other_networks() {
    let net = Internet::new();
    let hub = net.node(1, 1, 1, few_sessions());
    let to = addr(&hub);
    let strangers: Vec<_> = (0..24)
        .map(|n| net.node(2, n, 100 + u32::from(n), QuicConfig::default()))
        .collect();
    let asks = strangers.iter().map(|node| node.ask(&to, Packet::from(b"hold")));
    let holding = async {
        let mut held = Vec::new();
        // Until the asks that find no room have timed out.
        while let Ok(request) = timeout(Duration::from_secs(8), hub.receive_ask()).await {
            held.push(request.expect("open"));
        }
        assert_eq!(held.len(), 8, "half of the sessions: {}", counted(&hub));
        let (honest, friend) = (
            net.node(3, 1, 2, QuicConfig::default()),
            net.node(4, 1, 3, QuicConfig::default()),
        );
        serves(&hub, &honest, &friend, 5000).await;
        for request in held {
            request
                .respond(Packet::from(b"done"))
                .await
                .expect("the session exists");
        }
    };
    let (answers, ()) = tokio::join!(join_all(asks), holding);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 8);
}

#[tokio::test(start_paused = true)]
async fn sessions_of_many_identities_and_networks_leave_room_for_others() {
    let net = Internet::new();
    let hub = net.node(1, 1, 1, few_sessions());
    let to = addr(&hub);
    let strangers: Vec<_> = (0..60)
        .map(|n| net.node(10 + n, 1, 100 + u32::from(n), QuicConfig::default()))
        .collect();
    let telling = strangers
        .iter()
        .map(|node| node.tell(&to, Packet::from(b"flood")));
    let (_, ()) = tokio::join!(join_all(telling), async {
        while timeout(Duration::from_secs(8), hub.receive()).await.is_ok() {}
    });
    assert!(hub.sessions() <= 12, "{}", counted(&hub));
    let (honest, friend) = (
        net.node(3, 1, 2, QuicConfig::default()),
        net.node(4, 1, 3, QuicConfig::default()),
    );
    serves(&hub, &honest, &friend, 5000).await;
}

#[tokio::test(start_paused = true)]
async fn replies_to_spoofed_sources_are_shorter_than_what_they_sent() -> Result<()> {
    let net = Internet::new();
    let realm = &net.0;
    let hub = QuicSwarm::new(realm.open(), &key(1))?;
    let to = addr(&hub);
    let first = net.first_packets(200).await;
    let made_up: Vec<_> = first.iter().map(|_| realm.open()).collect();
    let sent: usize = first.iter().map(Packet::len).sum();
    for (source, packet) in made_up.iter().zip(first) {
        source.tell(&to.addr, packet).await?;
    }
    let answers = made_up.iter().map(async |source| {
        let mut bytes = 0;
        while let Ok(answer) = timeout(Duration::from_secs(8), source.receive()).await {
            bytes += answer.expect("open").payload.len();
        }
        bytes
    });
    let answered: usize = join_all(answers).await.into_iter().sum();
    assert!(answered > 0 && answered < sent, "{answered} bytes for {sent}");
    let node = |seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node");
    serves(&hub, &node(4), &node(5), 5000).await;
    Ok(())
}

/// Checks that a hub whose dial permits are all used for unreachable destinations in these networks can dial a node
/// in another network.
async fn dead_destinations(networks: impl Fn(u8) -> u8, wait: Duration) {
    let net = Internet::new();
    let hub = Arc::new(net.node(1, 1, 1, QuicConfig::default()));
    let friend = net.node(4, 1, 3, QuicConfig::default());
    let dials = (0..64).map(|n| {
        let nowhere = SocketAddr::from((Ipv4Addr::new(8, 8, networks(n), 2 + n), 443));
        let (hub, to) = (hub.clone(), KeyAddr::new(PeerId::from([n; 32]), nowhere));
        tokio::spawn(async move { hub.tell(&to, Packet::from(b"dead")).await })
    });
    let dials: Vec<_> = dials.collect();
    tokio::time::sleep(wait).await;
    let back = addr(&friend);
    let told = hub.tell(&back, Packet::from(b"own")).await;
    told.expect("a permit is free for it");
    assert_eq!(friend.receive().await.expect("open").payload, b"own");
    assert!(
        join_all(dials)
            .await
            .into_iter()
            .all(|dial| dial.expect("no panic").is_err()),
        "no dead destination answers"
    );
}

#[tokio::test(start_paused = true)]
async fn dead_destinations_in_one_network_leave_dials_to_others() {
    dead_destinations(|_| 9, Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn dead_destinations_in_many_networks_do_not_block_other_dials() {
    dead_destinations(|n| 100 + n, Duration::from_millis(1001)).await;
}
