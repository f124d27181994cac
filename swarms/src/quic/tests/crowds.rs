//! Many concurrent peers, honest and malicious.

use std::time::Duration;

use futures_util::future::join_all;
use p2p::{AskSwarm as _, Packet, SecureSwarm as _, Swarm as _};
use p2p_formats::x509::PrivateKey;
use tokio::time::timeout;

use super::{addr, counted, eventually, key, udp};
use crate::MemoryRealm;
use crate::memory::MemoryConfig;
use crate::quic::{QuicConfig, QuicSwarm};
use crate::{Faults, LinkFaults, SwarmExt as _};

pub(super) fn nth_key(number: u32) -> PrivateKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

#[tokio::test(start_paused = true)]
async fn one_message_of_each_of_six_hundred_nodes_that_end_at_once_arrives() {
    const NODES: u32 = 600;
    // All nodes send before any message is read, which cannot happen in real time: the medium must hold all
    // of them.
    let messages = crate::inbox::Limits {
        items: 8 << 10,
        bytes: 64 << 20,
        copy_below: 0,
    };
    let realm = MemoryRealm::new(MemoryConfig {
        messages,
        ..MemoryConfig::default()
    });
    let hub = QuicSwarm::new(realm.open(), &key(1)).expect("a node");
    let to = addr(&hub);
    let telling = (0..NODES).map(|number| {
        let node = QuicSwarm::new(realm.open(), &nth_key(number)).expect("a node");
        let (to, hub) = (to.clone(), &hub);
        async move {
            let told = node
                .tell(&to, Packet::from(number.to_be_bytes().as_slice()))
                .await;
            told.unwrap_or_else(|error| panic!("node {number}: {error}: {}", counted(hub)));
            node.close().await;
        }
    });
    let reading = async {
        let mut seen = std::collections::HashSet::new();
        while seen.len() < NODES as usize {
            let received = timeout(Duration::from_mins(1), hub.receive()).await;
            let message = received.unwrap_or_else(|_| panic!("{} of {NODES} arrived", seen.len()));
            seen.insert(message.expect("open").payload.to_vec());
        }
    };
    tokio::join!(join_all(telling), reading);
}

#[tokio::test]
async fn one_key_on_many_ports_evicts_no_session_with_asks_in_flight() {
    let config = || QuicConfig {
        max_sessions: 16,
        ..QuicConfig::default()
    };
    let hub = udp(1, config());
    let to = addr(&hub);
    let honest: Vec<_> = (2..6).map(|seed| udp(seed, QuicConfig::default())).collect();
    let asks = honest.iter().map(|node| node.ask(&to, Packet::from(b"slow")));
    let flood = async {
        let mut requests = Vec::new();
        for _ in &honest {
            requests.push(hub.receive_ask().await.expect("a request"));
        }
        let mut strangers = Vec::new();
        for _ in 0..2 * config().max_sessions {
            let stranger = udp(99, QuicConfig::default());
            // Its session may be closed at once.
            let _ = stranger.tell(&to, Packet::from(b"flood")).await;
            strangers.push(stranger);
        }
        eventually("the strangers have sessions", || hub.sessions() > honest.len()).await;
        assert!(hub.sessions() <= honest.len() + 4, "{} sessions", hub.sessions());
        // This node's own dials find room.
        for seed in 50..60 {
            let friend = udp(seed, QuicConfig::default());
            hub.tell(&addr(&friend), Packet::from(b"hello"))
                .await
                .expect("room");
        }
        for request in requests {
            request
                .respond(Packet::from(b"late"))
                .await
                .expect("the session exists");
        }
    };
    let (answers, ()) = tokio::join!(join_all(asks), flood);
    for answer in answers {
        assert_eq!(answer.expect("an answer"), b"late");
    }
}

/// A medium with a delay. Initial packets are retransmitted before a response to them can arrive.
fn far(delay: Duration) -> impl Fn(u32, QuicConfig) -> QuicSwarm<crate::MemoryAddr> {
    let config = crate::faulty::FaultyConfig {
        link: LinkFaults {
            delay,
            ..LinkFaults::default()
        },
        ..crate::faulty::FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("in range");
    let realm = MemoryRealm::default();
    move |seed, config| {
        QuicSwarm::with_config(realm.open().faulty(faults.clone()), &nth_key(seed), config).expect("a node")
    }
}

#[tokio::test(start_paused = true)]
async fn asks_that_hold_every_session_leave_room_for_own_dials_and_no_session_is_torn_down() {
    let config = QuicConfig {
        max_sessions: 8,
        ..QuicConfig::default()
    };
    let open = far(Duration::from_millis(200));
    let hub = open(1, config);
    let to = addr(&hub);
    let askers: Vec<_> = (10..22).map(|seed| open(seed, QuicConfig::default())).collect();
    let asks = askers.iter().map(|node| node.ask(&to, Packet::from(b"hold")));
    let holding = async {
        let mut requests = Vec::new();
        for number in 0..6 {
            let request = timeout(Duration::from_mins(1), hub.receive_ask()).await;
            let request = request.unwrap_or_else(|_| panic!("{number} asks arrived: {}", counted(&hub)));
            requests.push(request.expect("open"));
        }
        let friend = open(2, QuicConfig::default());
        hub.tell(&addr(&friend), Packet::from(b"hello"))
            .await
            .expect("a session is reserved for it");
        tokio::time::sleep(Duration::from_millis(700)).await;
        for request in requests {
            request
                .respond(Packet::from(b"done"))
                .await
                .expect("the session exists");
        }
        // Requests that found no room at first.
        while let Ok(request) = timeout(Duration::from_secs(8), hub.receive_ask()).await {
            let _ = request.expect("open").respond(Packet::from(b"done")).await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(asks), holding);
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(answered >= 6, "{answered} of 12: {answers:?}");
}

#[tokio::test(start_paused = true)]
async fn an_ask_in_a_session_that_is_evicted_unused_is_retried() {
    let config = QuicConfig {
        max_sessions: 1,
        ..QuicConfig::default()
    };
    let open = far(Duration::from_millis(50));
    let hub = open(1, config);
    let [first, second] = [2, 3].map(|seed| open(seed, QuicConfig::default()));
    let to = addr(&hub);
    first.lookup_public_key(&to).await.expect("a session");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sessions = || {
        let mut begun = 0;
        hub.visit_counters(&mut |counters| {
            if counters.layer() == "quic-handshake" {
                begun = counters.snapshot().delivered;
            }
        });
        begun
    };
    assert_eq!(sessions(), 1);
    let asking = async {
        while sessions() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Its session has ended, which it learns after 50 ms.
        assert_eq!(first.sessions(), 1);
        first.ask(&to, Packet::from(b"1")).await
    };
    let serving = async {
        for _ in 0..2 {
            let request = hub.receive_ask().await.expect("open");
            request
                .respond(Packet::from(b"done"))
                .await
                .expect("the session exists");
        }
    };
    let asked = async { tokio::join!(second.ask(&to, Packet::from(b"2")), asking, serving) };
    let (second, first, ()) = timeout(Duration::from_mins(1), asked)
        .await
        .expect("both asks are answered");
    assert_eq!(second.expect("an answer"), b"done");
    assert_eq!(first.expect("an answer"), b"done");
}

#[tokio::test(start_paused = true)]
async fn a_busy_peer_is_dialled_again_within_the_handshake_timeout() {
    let realm = MemoryRealm::default();
    let config = QuicConfig {
        max_sessions: 1,
        ..QuicConfig::default()
    };
    let hub = QuicSwarm::with_config(realm.open(), &key(1), config).expect("a node");
    let [first, second] = [2, 3].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let to = addr(&hub);
    let serving = async {
        let request = hub.receive_ask().await.expect("a request");
        tokio::time::sleep(Duration::from_secs(2)).await;
        request
            .respond(Packet::from(b"1"))
            .await
            .expect("the session exists");
        hub.receive().await.expect("a message")
    };
    let second = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        second
            .tell(&to, Packet::from(b"2"))
            .await
            .expect("there is room now");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let (asked, message, ()) = tokio::join!(first.ask(&to, Packet::from(b"hold")), serving, second);
    assert_eq!(asked.expect("an answer"), b"1");
    assert_eq!(message.payload, b"2");
}
