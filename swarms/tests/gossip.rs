//! Gossip as a swarm: who gets what is told to a topic, and what a bad neighbour leads to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr as _, Error, Message, Packet, Swarm};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossip::{Departure, GossipEvent, Signing};
use p2p_swarms::{GossipAddr, GossipConfig, GossipSwarm, MemoryAddr, MemoryRealm, MemorySwarm};
use tokio::time::{sleep, timeout};

type Node = GossipSwarm<MemoryAddr, MemorySwarm>;
type Addr = GossipAddr<MemoryAddr>;

const TOPIC: &str = "news";

fn signing(seed: u8) -> Signing {
    let key = PrivateKey::ed25519(&[seed; 32]);
    let signer = Registry::default().signer(&key).expect("a key");
    Signing::strict(Arc::from(signer)).expect("ed25519")
}

fn at(node: &Node) -> MemoryAddr {
    node.inner().local_addr()
}

fn all() -> Addr {
    GossipAddr::topic(TOPIC)
}

/// Nodes without neighbours.
fn nodes(count: u8, signed: bool) -> Vec<Node> {
    let realm = MemoryRealm::default();
    let node = |seed| {
        let signing = if signed {
            signing(seed)
        } else {
            Signing::StrictNoSign
        };
        GossipSwarm::new(realm.open(), signing).expect("a node")
    };
    (0..count).map(node).collect()
}

/// Nodes of which each has the next as its neighbour, all of whom subscribed.
async fn line(count: u8, signed: bool) -> Vec<Node> {
    let nodes = nodes(count, signed);
    for node in &nodes {
        node.subscribe(TOPIC).expect("a topic");
    }
    for pair in nodes.windows(2) {
        pair[0].add_peer(&at(&pair[1])).expect("room");
    }
    // Until the first heartbeats have made meshes.
    sleep(Duration::from_secs(3)).await;
    nodes
}

async fn next(node: &Node) -> Message<Addr> {
    let message = timeout(Duration::from_secs(5), node.receive()).await;
    message.expect("a message in time").expect("open")
}

async fn nothing_comes(node: &Node) {
    let came = timeout(Duration::from_secs(5), node.receive()).await;
    assert!(came.is_err(), "{came:?}");
}

async fn event(node: &Node, wanted: impl Fn(&GossipEvent<MemoryAddr>) -> bool) -> GossipEvent<MemoryAddr> {
    let find = async {
        loop {
            let event = node.event().await.expect("open");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(Duration::from_mins(1), find)
        .await
        .expect("an event in time")
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_a_topic_reaches_all_who_subscribed_however_far_they_are() {
    for signed in [false, true] {
        let nodes = line(5, signed).await;
        for (number, node) in nodes.iter().enumerate() {
            let text = format!("of node {number}");
            node.tell(&all(), node.packet(text.as_bytes()))
                .await
                .expect("sent");
            for (other, reader) in nodes.iter().enumerate().filter(|(other, _)| *other != number) {
                let message = next(reader).await;
                assert_eq!(message.payload, text.as_bytes());
                assert_eq!(message.dst, all());
                let from = if signed {
                    node.id().expect("it signs").to_string()
                } else {
                    let via = if other > number { other - 1 } else { other + 1 };
                    at(&nodes[via]).to_string()
                };
                assert_eq!(message.src.to_string(), format!("{TOPIC}@{from}"));
                assert_eq!(message.src.peer_id(), node.id().filter(|_| signed));
            }
        }
        for node in &nodes {
            nothing_comes(node).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_message_reaches_its_author_alone() {
    for signed in [false, true] {
        let nodes = line(3, signed).await;
        // The one in the middle speaks, and both others hear it.
        nodes[1]
            .tell(&all(), Packet::from("a question"))
            .await
            .expect("sent");
        let question = next(&nodes[0]).await;
        assert_eq!(next(&nodes[2]).await.payload, b"a question");
        nodes[0]
            .tell(&question.src, Packet::from("an answer"))
            .await
            .expect("sent");
        let answer = next(&nodes[1]).await;
        assert_eq!(answer.payload, b"an answer");
        assert_eq!(answer.dst, question.src);
        assert!(
            nodes[1].local_addrs().contains(&answer.dst),
            "{:?}",
            nodes[1].local_addrs()
        );
        // The same once more is another message.
        nodes[0]
            .tell(&question.src, Packet::from("an answer"))
            .await
            .expect("sent");
        assert_eq!(next(&nodes[1]).await.payload, b"an answer");
        nodes[1]
            .tell(&answer.src, Packet::from("thanks"))
            .await
            .expect("sent");
        assert_eq!(next(&nodes[0]).await.payload, b"thanks");
        for node in &nodes {
            nothing_comes(node).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_only_publishes_gets_answers() {
    let nodes = nodes(2, true);
    nodes[1].subscribe(TOPIC).expect("a topic");
    nodes[0].add_peer(&at(&nodes[1])).expect("room");
    event(&nodes[0], |event| matches!(event, GossipEvent::Subscribed { .. })).await;
    nodes[0]
        .tell(&all(), Packet::from("a question"))
        .await
        .expect("sent");
    let question = next(&nodes[1]).await;
    nodes[1]
        .tell(&question.src, Packet::from("an answer"))
        .await
        .expect("sent");
    let answer = next(&nodes[0]).await;
    assert_eq!(
        (&answer.dst, &answer.payload[..]),
        (&question.src, &b"an answer"[..])
    );
    assert_eq!(nodes[0].local_addrs(), [answer.dst]);
}

#[tokio::test(start_paused = true)]
async fn who_is_no_neighbour_is_unreachable() {
    let nodes = line(3, true).await;
    nodes[0]
        .tell(&all(), Packet::from("from afar"))
        .await
        .expect("sent");
    next(&nodes[1]).await;
    let message = next(&nodes[2]).await;
    assert_eq!(message.src.peer_id(), nodes[0].id());
    let told = nodes[2].tell(&message.src, Packet::from("too far")).await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    nothing_comes(&nodes[0]).await;
    nothing_comes(&nodes[1]).await;
}

#[tokio::test(start_paused = true)]
async fn who_left_a_topic_hears_no_more_of_it() {
    let nodes = line(2, false).await;
    assert!(nodes[1].unsubscribe(TOPIC).expect("open"));
    assert!(!nodes[1].unsubscribe(TOPIC).expect("open"));
    event(&nodes[0], |event| {
        matches!(event, GossipEvent::Unsubscribed { .. })
    })
    .await;
    nodes[0]
        .tell(&all(), Packet::from("nobody hears this"))
        .await
        .expect("sent");
    nothing_comes(&nodes[1]).await;
    assert!(nodes[1].topics().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_closes_says_goodbye() {
    let nodes = line(2, true).await;
    nodes[1].close().await;
    let left = event(&nodes[0], |event| matches!(event, GossipEvent::Left { .. })).await;
    let (peer, why) = (at(&nodes[1]), Departure::Gone);
    assert_eq!(left, GossipEvent::Left { peer, why });
    assert!(nodes[0].peers().is_empty());
    assert!(matches!(nodes[1].event().await, Err(Error::Closed)));
    assert!(matches!(nodes[1].subscribe(TOPIC), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_for_long_is_no_peer_any_more() {
    let nodes = line(2, true).await;
    let peer = at(&nodes[1]);
    // Gone without a word.
    nodes[1].inner().close().await;
    let start = tokio::time::Instant::now();
    let find = async {
        loop {
            if let GossipEvent::Left { peer, why } = nodes[0].event().await.expect("open") {
                return (peer, why);
            }
        }
    };
    let left = timeout(Duration::from_mins(10), find).await.expect("in time");
    assert_eq!(left, (peer, Departure::Gone));
    let idle = GossipConfig::default().peer_idle;
    // It was heard of last before the clock was read.
    let slack = Duration::from_secs(5);
    assert!(start.elapsed() + slack >= idle && start.elapsed() <= idle + slack);
}

#[tokio::test(start_paused = true)]
async fn each_gets_a_message_once_in_a_dense_network() {
    let nodes = nodes(12, true);
    for (number, node) in nodes.iter().enumerate() {
        node.subscribe(TOPIC).expect("a topic");
        for other in &nodes[number + 1..] {
            node.add_peer(&at(other)).expect("room");
        }
    }
    sleep(Duration::from_secs(5)).await;
    for number in 0..20_u8 {
        let node = &nodes[usize::from(number) % nodes.len()];
        node.tell(&all(), Packet::from(&[number])).await.expect("sent");
    }
    sleep(Duration::from_secs(5)).await;
    for (at, node) in nodes.iter().enumerate() {
        let mut out = Vec::new();
        while let Ok(got) = timeout(Duration::from_secs(1), node.receive_batch(&mut out, 7)).await {
            assert!(got.expect("open") <= 7);
        }
        let got: BTreeSet<u8> = out.iter().map(|message| message.payload[0]).collect();
        let due = (0..20).filter(|number| usize::from(*number) % nodes.len() != at);
        assert_eq!(got, due.collect::<BTreeSet<u8>>());
        assert_eq!(out.len(), got.len(), "some came twice");
    }
}
