//! Address validation of inbound dials (RFC 9000, section 8.1): dials with forged source addresses use up no
//! permits that honest peers need, and cause fewer bytes than were sent.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use p2p::{AskSwarm as _, DropReason, Packet, Swarm as _};
use tokio::time::{Instant, timeout};

use super::internet::{Internet, memory_addr};
use super::{addr, counted, dropped};
use crate::MemorySwarm;
use crate::quic::{QuicConfig, QuicSwarm};

/// The sources of a flood: each a name, and the network and the host of the nth packet.
type Crowd = (&'static str, fn(u8) -> (u8, u8));

const CROWDS: [Crowd; 3] = [
    ("one address", |_| (20, 1)),
    ("one network", |nth| (20, nth)),
    ("many networks", |nth| (20 + nth, 1)),
];

/// Sends packets in the names of these sources. Returns the sources, and how many bytes they sent.
async fn flood(
    net: &Internet,
    to: SocketAddr,
    packets: Vec<Packet>,
    source: fn(u8) -> (u8, u8),
) -> (Vec<MemorySwarm>, usize) {
    let to = memory_addr(&to).expect("in memory");
    let sent = packets.iter().map(Packet::len).sum();
    let mut sources: Vec<MemorySwarm> = Vec::new();
    for (nth, packet) in (0..).zip(packets) {
        let (network, host) = source(nth);
        if nth == 0 || source(nth - 1) != (network, host) {
            sources.push(net.host(network, host));
        }
        let from = sources.last().expect("one");
        from.tell(&to, packet).await.expect("it left");
    }
    (sources, sent)
}

/// Checks that a peer's message arrives, and that the node's own arrives, each within a second of virtual time.
async fn serves_at_once(
    hub: &QuicSwarm<SocketAddr>,
    honest: &QuicSwarm<SocketAddr>,
    friend: &QuicSwarm<SocketAddr>,
) {
    let (to, back) = (addr(hub), addr(friend));
    let began = Instant::now();
    let telling = async {
        honest.tell(&to, Packet::from(b"honest")).await?;
        hub.receive().await?;
        hub.tell(&back, Packet::from(b"own")).await?;
        friend.receive().await
    };
    let told = telling.await;
    assert!(
        told.is_ok() && began.elapsed() < Duration::from_secs(1),
        "{told:?} after {:?}: {}",
        began.elapsed(),
        counted(hub)
    );
}

#[tokio::test(start_paused = true)]
async fn dials_from_forged_addresses_delay_no_other_and_get_fewer_bytes_than_they_sent() {
    const HANDSHAKES: u64 = 16;
    const DIALS: u64 = 60;
    for (crowd, source) in CROWDS {
        let net = Internet::new();
        let config = QuicConfig {
            max_handshakes: 16,
            ..QuicConfig::default()
        };
        let hub = net.node(1, 1, 1, config);
        let [honest, friend] =
            [(3, 2), (4, 3)].map(|(network, key)| net.node(network, 1, key, QuicConfig::default()));
        let packets = net.first_packets(DIALS as usize).await;
        let (sources, sent) = flood(&net, addr(&hub).addr, packets, source).await;
        serves_at_once(&hub, &honest, &friend).await;
        let unproven = dropped(&hub, "quic-handshake", DropReason::Unauthenticated);
        // The honest peer proves its address too.
        assert_eq!(unproven, DIALS - HANDSHAKES / 4 + 1, "{crowd}: {}", counted(&hub));
        // All that the hub sends in answer until the handshakes that it began have ended.
        let answers = sources.iter().map(async |source| {
            let mut bytes = 0;
            while let Ok(answer) = timeout(Duration::from_secs(8), source.receive()).await {
                bytes += answer.expect("open").payload.len();
            }
            bytes
        });
        let answered: usize = join_all(answers).await.into_iter().sum();
        assert!(
            answered > 0 && 2 * answered < sent,
            "{crowd}: {answered} B for {sent} B"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn dials_from_forged_addresses_do_not_take_the_last_free_sessions() {
    for (crowd, source) in CROWDS {
        let net = Internet::new();
        let config = QuicConfig {
            max_sessions: 8,
            ..QuicConfig::default()
        };
        let hub = net.node(1, 1, 1, config);
        let to = addr(&hub);
        // Six sessions may be inbound, and asks hold five of these.
        let askers: Vec<_> = (5..10)
            .map(|network| net.node(network, 1, network.into(), QuicConfig::default()))
            .collect();
        let asks = askers.iter().map(|asker| asker.ask(&to, Packet::from(b"hold")));
        let flooding = async {
            let mut held = Vec::new();
            for _ in &askers {
                held.push(hub.receive_ask().await.expect("open"));
            }
            let [honest, friend] =
                [(3, 2), (4, 3)].map(|(network, key)| net.node(network, 1, key, QuicConfig::default()));
            let packets = net.first_packets(10).await;
            let sources = flood(&net, to.addr, packets, source).await;
            serves_at_once(&hub, &honest, &friend).await;
            for request in held {
                request.respond(Packet::from(b"done")).await.expect("a session");
            }
            drop(sources);
        };
        let (answers, ()) = tokio::join!(join_all(asks), flooding);
        assert!(answers.iter().all(Result::is_ok), "{crowd}: {answers:?}");
    }
}
