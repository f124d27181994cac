//! Gossip as a swarm: which nodes receive a message, and the effects of hostile neighbours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use p2p::{Addr as _, CounterSnapshot, DropReason, Error, Message, Packet, Swarm};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_protocols::gossipsub;
use p2p_protocols::gossipsub::{Config, Connection, Engine};
use p2p_swarms::gossipsub::{
    Departure, GossipEvent, MessageAcceptance, PolicyError, Refused, Signing, Version,
};
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::{GossipAddr, GossipConfig, GossipSwarm, MemoryAddr, MemoryRealm, MemorySwarm};
use tokio::time::{sleep, timeout};

type Node = GossipSwarm<MemoryAddr, MemorySwarm>;
type A = MemoryAddr;
type Addr = GossipAddr<A>;

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

/// Nodes in a line, each with the next as its neighbour, all subscribed.
async fn line(count: u8, signed: bool) -> Vec<Node> {
    let nodes = nodes(count, signed);
    for node in &nodes {
        node.subscribe(TOPIC).expect("a topic");
    }
    for pair in nodes.windows(2) {
        pair[0].add_peer(&at(&pair[1])).expect("room");
    }
    // Until the first heartbeats have formed meshes.
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
async fn a_message_reaches_all_subscribers_at_any_distance() {
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
async fn a_reply_to_a_message_reaches_only_its_author() {
    for signed in [false, true] {
        let nodes = line(3, signed).await;
        // The node in the middle publishes, and both others receive it.
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
        // The same data again is another message.
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
async fn a_node_that_only_publishes_receives_replies() {
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
async fn a_node_that_is_not_a_neighbour_is_unreachable() {
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
async fn an_unsubscribed_node_receives_no_further_messages() {
    let nodes = line(2, false).await;
    assert!(nodes[1].unsubscribe(TOPIC).expect("open"));
    assert!(!nodes[1].unsubscribe(TOPIC).expect("open"));
    event(&nodes[0], |event| {
        matches!(event, GossipEvent::Unsubscribed { .. })
    })
    .await;
    nodes[0]
        .tell(&all(), Packet::from("no subscriber"))
        .await
        .expect("sent");
    nothing_comes(&nodes[1]).await;
    assert!(nodes[1].topics().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_closing_node_sends_goodbyes() {
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
async fn a_silent_peer_is_removed() {
    let nodes = line(2, true).await;
    let peer = at(&nodes[1]);
    // Closed without a goodbye.
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
    // The peer was last heard of before the clock was read.
    let slack = Duration::from_secs(5);
    assert!(start.elapsed() + slack >= idle && start.elapsed() <= idle + slack);
}

#[tokio::test(start_paused = true)]
async fn each_node_receives_a_message_once_in_a_dense_network() {
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
        assert_eq!(out.len(), got.len(), "some messages arrived twice");
    }
}

/// A node that sends raw bytes.
fn stranger(node: &Node) -> MemorySwarm {
    node.inner().realm().open()
}

/// Returns a message as the RPC of its publisher.
fn published(signing: Signing, text: &'static str) -> Bytes {
    let now = Duration::from_secs(1);
    let mut engine = Engine::new(Config::default(), signing, 0, now, 0).expect("a configuration");
    let (peer, connection) = (
        MemoryAddr::new(1),
        Connection {
            version: Version::V1_2,
            outbound: true,
            info: None,
        },
    );
    engine.add_peer(now, &peer, connection).expect("room");
    engine.handle_rpc(now, &peer, &Bytes::from_static(WANTS));
    engine.publish(now, TOPIC, text.into()).expect("published");
    engine.poll_transmit(now).expect("an RPC").rpc
}

/// A subscription to the topic.
const WANTS: &[u8] = b"\x0a\x08\x08\x01\x12\x04news";

#[tokio::test(start_paused = true)]
async fn a_forged_message_is_rejected_with_an_event() {
    let nodes = line(2, true).await;
    let stranger = stranger(&nodes[0]);
    let mut forged = published(signing(7), "truth").to_vec();
    let data = forged
        .windows(5)
        .position(|part| part == b"truth")
        .expect("the data");
    forged[data] = b'T';
    stranger
        .tell(&at(&nodes[0]), Packet::from(forged))
        .await
        .expect("sent");
    let rejected = event(&nodes[0], |event| matches!(event, GossipEvent::Rejected { .. })).await;
    let (peer, reason) = (stranger.local_addr(), Refused::Policy(PolicyError::BadSignature));
    assert_eq!(rejected, GossipEvent::Rejected { peer, reason });
    for node in &nodes {
        nothing_comes(node).await;
    }
    assert!(nodes[0].score(&peer) < 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_sender_becomes_a_peer_only_if_peers_are_accepted() {
    let realm = MemoryRealm::default();
    let node = |accept_peers, max_peers| {
        let mut config = GossipConfig {
            accept_peers,
            ..GossipConfig::default()
        };
        config.engine.max_peers = max_peers;
        let node = GossipSwarm::with_config(realm.open(), Signing::StrictNoSign, config).expect("a node");
        node.subscribe(TOPIC).expect("a topic");
        node
    };
    let (open, closed) = (node(true, 3), node(false, 3));
    let message = published(Signing::StrictNoSign, "hello");
    for number in 0..10 {
        let stranger = stranger(&open);
        stranger
            .tell(&at(&closed), Packet::from(&*message))
            .await
            .expect("sent");
        // An invalid RPC does not make its sender a peer.
        stranger
            .tell(&at(&open), Packet::from(b"\x0a\xff"))
            .await
            .expect("sent");
        sleep(Duration::from_millis(10)).await;
        assert_eq!(open.peers().len(), 3.min(number));
        stranger
            .tell(&at(&open), Packet::from(&*message))
            .await
            .expect("sent");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((open.peers().len(), closed.peers().len()), (3, 0));
    next(&open).await;
    nothing_comes(&open).await;
    nothing_comes(&closed).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_reader_costs_bounded_memory_and_blocks_no_other() {
    let nodes = line(3, false).await;
    let most = GossipConfig::default().messages.items;
    for number in 0..4 * most {
        let text = number.to_string();
        nodes[0]
            .tell(&all(), nodes[0].packet(text.as_bytes()))
            .await
            .expect("sent");
        // The node behind it reads.
        assert_eq!(next(&nodes[2]).await.payload, text.as_bytes());
    }
    let mut out = Vec::new();
    let mut kept = 0;
    while let Ok(got) = timeout(Duration::from_secs(1), nodes[1].receive_batch(&mut out, 100)).await {
        kept += got.expect("open");
    }
    assert!(kept <= most, "{kept} of {most}");
    let mut dropped = 0;
    nodes[1].visit_counters(&mut |counters| dropped += counters.snapshot().dropped(DropReason::QueueFull));
    assert_eq!(kept + usize::try_from(dropped).expect("a count"), 4 * most);
    assert!(nodes[0].kept().expect("open").queued < 10);
}

/// Returns the counters of all nodes.
fn sum(nodes: &[Node]) -> CounterSnapshot {
    let mut sum = CounterSnapshot::default();
    for node in nodes {
        node.visit_counters(&mut |counters| {
            if counters.layer() == "gossip" {
                sum += counters.snapshot();
            }
        });
    }
    sum
}

#[tokio::test(start_paused = true)]
async fn every_copy_is_delivered_or_dropped_and_counted() {
    let nodes = nodes(9, true);
    for (number, node) in nodes.iter().enumerate() {
        // One node publishes before any peer has subscribed, and one only publishes.
        if number > 0 {
            for other in &nodes[number + 1..] {
                node.add_peer(&at(other)).expect("room");
            }
            node.subscribe(TOPIC).expect("a topic");
        }
    }
    nodes[0]
        .tell(&all(), Packet::from("without subscribers"))
        .await
        .expect("sent");
    nodes[0].add_peer(&at(&nodes[4])).expect("room");
    sleep(Duration::from_secs(5)).await;
    let mut questions = Vec::new();
    for node in &nodes {
        node.tell(&all(), node.packet(&[7; 2000])).await.expect("sent");
        sleep(Duration::from_millis(50)).await;
    }
    for node in &nodes[1..] {
        while let Ok(message) = timeout(Duration::from_secs(1), node.receive()).await {
            questions.push((node, message.expect("open").src));
        }
    }
    // Messages without subscribers are kept, and requested by nodes that learn of them later: 8 more than 8 +
    // 8 * 7.
    let mut answers = 0;
    for (node, src) in &questions {
        answers += u64::from(node.tell(src, Packet::from("an answer")).await.is_ok());
    }
    assert!(
        questions.len() == 72 && answers >= 57,
        "{} and {answers}",
        questions.len()
    );
    for node in &nodes {
        while timeout(Duration::from_secs(5), node.receive()).await.is_ok() {}
    }
    let sum = sum(&nodes);
    assert_eq!(sum.sent, 1 + 9 + answers);
    assert_eq!(sum.delivered, 72 + answers, "{sum:?}");
    assert_eq!(
        sum.sent + sum.duplicated,
        sum.delivered + sum.dropped_total(),
        "{sum:?}"
    );
    assert!(
        sum.dropped(DropReason::Duplicate) > 0 && sum.dropped(DropReason::NoPeer) == 1,
        "{sum:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn unread_events_are_bounded() {
    let realm = MemoryRealm::default();
    let config = GossipConfig {
        events: 10,
        ..GossipConfig::default()
    };
    let node = GossipSwarm::with_config(realm.open(), Signing::StrictNoSign, config).expect("a node");
    for number in 0..100 {
        node.add_peer(&MemoryAddr::new(1000 + number)).expect("room");
    }
    assert_eq!(node.events_dropped(), 90);
    let first = node.event().await.expect("open");
    let (peer, outbound) = (MemoryAddr::new(1090), true);
    assert_eq!(first, GossipEvent::Joined { peer, outbound });
}

#[tokio::test(start_paused = true)]
async fn gossipsub_and_floodsub_nodes_interoperate() {
    let realm = MemoryRealm::default();
    let node = |config| {
        let node = GossipSwarm::with_config(realm.open(), Signing::StrictNoSign, config).expect("a node");
        node.subscribe(TOPIC).expect("a topic");
        node
    };
    let flood = node(GossipConfig::floodsub());
    // Its neighbours know its protocol version.
    let beside = || GossipConfig {
        version: Version::Floodsub,
        ..GossipConfig::default()
    };
    let (left, right) = (node(beside()), node(beside()));
    left.add_peer(&at(&flood)).expect("room");
    right.add_peer(&at(&flood)).expect("room");
    sleep(Duration::from_secs(3)).await;
    for (number, from) in [&left, &flood, &right].into_iter().enumerate() {
        from.tell(&all(), Packet::from(&[number as u8]))
            .await
            .expect("sent");
        for (other, to) in [&left, &flood, &right].into_iter().enumerate() {
            if other != number {
                assert_eq!(next(to).await.payload, &[number as u8]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_decides_which_messages_are_delivered_and_forwarded() {
    let realm = MemoryRealm::default();
    let node = |seed: u8, strict: bool| {
        let config = GossipConfig::default().validator(move |topic, author, data| {
            assert_eq!((&**topic, author.is_some()), (TOPIC, true));
            match data {
                b"bad" if strict => MessageAcceptance::Reject,
                b"dull" if strict => MessageAcceptance::Ignore,
                _ => MessageAcceptance::Accept,
            }
        });
        let node = GossipSwarm::with_config(realm.open(), signing(seed), config).expect("a node");
        node.subscribe(TOPIC).expect("a topic");
        node
    };
    let nodes = [node(0, false), node(1, true), node(2, false)];
    for pair in nodes.windows(2) {
        pair[0].add_peer(&at(&pair[1])).expect("room");
    }
    sleep(Duration::from_secs(3)).await;
    for text in ["bad", "dull", "good"] {
        nodes[0].tell(&all(), Packet::from(text)).await.expect("sent");
    }
    for node in &nodes[1..] {
        assert_eq!(next(node).await.payload, b"good");
        nothing_comes(node).await;
    }
    let rejected = event(&nodes[1], |event| matches!(event, GossipEvent::Rejected { .. })).await;
    let (peer, reason) = (at(&nodes[0]), Refused::Application);
    assert_eq!(rejected, GossipEvent::Rejected { peer, reason });
}

#[tokio::test(start_paused = true)]
async fn a_pruned_node_receives_other_peers() {
    let realm = MemoryRealm::default();
    let mut config = GossipConfig::default();
    // Any peers.
    if let Some(score) = &mut config.engine.score {
        score.accept_px_threshold = 0.0;
    }
    (config.engine.d, config.engine.d_lo, config.engine.d_hi) = (2, 1, 2);
    (config.engine.d_score, config.engine.d_out) = (1, 0);
    let node = |_| {
        let node = GossipSwarm::with_config(realm.open(), Signing::StrictNoSign, config.clone());
        let node = node.expect("a node");
        node.subscribe(TOPIC).expect("a topic");
        node
    };
    let nodes: Vec<Node> = (0..6).map(node).collect();
    for other in &nodes[1..] {
        other.add_peer(&at(&nodes[0])).expect("room");
    }
    let finds = nodes[1..].iter().map(|node| async {
        let exchange = |event: &GossipEvent<_>| matches!(event, GossipEvent::PeerExchange { .. });
        timeout(Duration::from_secs(50), event(node, exchange)).await.ok()
    });
    let mut told = 0;
    for found in futures_util::future::join_all(finds).await.into_iter().flatten() {
        let GossipEvent::PeerExchange { peer, topic, peers } = found else {
            panic!("{found:?}")
        };
        assert_eq!((peer, &*topic), (at(&nodes[0]), TOPIC));
        assert!(
            peers
                .iter()
                .all(|peer| nodes[1..].iter().any(|node| at(node) == *peer))
        );
        told += usize::from(!peers.is_empty());
    }
    assert!(told > 0, "no node received other peers");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_node_frees_its_address() {
    let nodes = line(2, true).await;
    let (realm, addr) = (nodes[0].inner().realm().clone(), at(&nodes[0]));
    assert!(realm.open_at(addr).is_err());
    drop(nodes);
    sleep(Duration::from_millis(1)).await;
    realm.open_at(addr).expect("the address is free");
}

#[tokio::test(start_paused = true)]
async fn too_small_an_mtu_is_refused_with_the_reason() {
    let realm = MemoryRealm::new(MemoryConfig {
        mtu: 420,
        ..MemoryConfig::default()
    });
    let made = GossipSwarm::new(realm.open(), signing(1)).map(drop);
    let error = made.expect_err("too small").to_string();
    assert!(
        error.contains("420 bytes") && error.contains("limits.topic"),
        "{error}"
    );
    let mut config = GossipConfig::default();
    config.engine.limits.topic = 16;
    let node = GossipSwarm::with_config(realm.open(), signing(1), config).expect("room");
    assert_eq!(node.mtu(), 420 - gossipsub::wire::overhead(16, 420, true));
    let long = node.parse_addr("a topic of 17 bytes");
    assert!(matches!(long, Err(Error::InvalidAddr { at: 0, .. })), "{long:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_can_tell_itself() {
    let nodes = line(2, true).await;
    let own = nodes[0].local_addrs().pop().expect("its own address");
    nodes[0].tell(&own, Packet::from("note")).await.expect("sent");
    let message = next(&nodes[0]).await;
    assert_eq!((&message.src, &message.dst), (&own, &own));
    nothing_comes(&nodes[1]).await;
    assert!(nodes[0].add_peer(&at(&nodes[0])).is_err());
}

/// A medium on which each message takes 100 ms to send.
struct Slow {
    inner: MemorySwarm,
}

impl Swarm<MemoryAddr> for Slow {
    p2p::pass_through!(inner: receive, receive_batch, mtu, local_addrs, parse_addr, close, headroom, visit_counters);

    async fn tell(&self, dst: &MemoryAddr, packet: Packet) -> p2p::Result<()> {
        sleep(Duration::from_millis(100)).await;
        self.inner.tell(dst, packet).await
    }
}

#[tokio::test(start_paused = true)]
async fn messages_published_before_close_reach_the_neighbours() {
    let realm = MemoryRealm::default();
    let slow = Slow { inner: realm.open() };
    let sender = GossipSwarm::new(slow, signing(1)).expect("a node");
    let readers: Vec<Node> = (2..5)
        .map(|seed| GossipSwarm::new(realm.open(), signing(seed)).expect("a node"))
        .collect();
    for reader in &readers {
        reader.subscribe(TOPIC).expect("a topic");
        sender.add_peer(&at(reader)).expect("room");
    }
    while sender.subscribers(TOPIC).len() < readers.len() {
        sleep(Duration::from_millis(20)).await;
    }
    for number in 0..5_u8 {
        // The first message is in flight then, and the others wait for it.
        sender
            .tell(&all(), sender.packet(&[number; 900]))
            .await
            .expect("taken");
    }
    let closing = std::pin::pin!(sender.close());
    let both = async {
        // Closed from the first poll on, while earlier messages are still sent.
        let later = sender.tell(&all(), sender.packet(b"later")).await;
        assert!(matches!(later, Err(Error::Closed)), "{later:?}");
    };
    let ((), ()) = tokio::join!(biased; closing, both);
    for reader in &readers {
        let mut came = BTreeSet::new();
        for _ in 0..5 {
            came.insert(next(reader).await.payload[0]);
        }
        assert_eq!(came, (0..5).collect());
    }
}

#[tokio::test(start_paused = true)]
async fn closing_waits_a_bounded_time_for_a_blocked_neighbour() {
    let realm = MemoryRealm::default();
    let (stuck, inner, other) = (realm.open(), realm.open(), realm.open());
    let peer = stuck.local_addr();
    let node = GossipSwarm::new(Stuck { inner, peer }, Signing::StrictNoSign).expect("a node");
    let other = GossipSwarm::new(other, Signing::StrictNoSign).expect("a node");
    other.subscribe(TOPIC).expect("a topic");
    node.add_peer(&at(&other)).expect("room");
    node.add_peer(&peer).expect("room");
    stuck
        .tell(&node.inner().inner.local_addr(), Packet::from(WANTS))
        .await
        .expect("sent");
    while node.subscribers(TOPIC).len() < 2 {
        sleep(Duration::from_millis(20)).await;
    }
    node.tell(&all(), node.packet(b"last")).await.expect("taken");
    let start = tokio::time::Instant::now();
    tokio::join!(node.close(), node.close());
    let linger = GossipConfig::default().linger;
    assert!(
        start.elapsed() <= linger + Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(next(&other).await.payload, b"last");
    assert!(
        realm.open_at(node.inner().inner.local_addr()).is_ok(),
        "its address is free"
    );
}

/// A peer that currently accepts nothing; the others do.
struct Stuck {
    inner: MemorySwarm,
    peer: MemoryAddr,
}

impl Swarm<MemoryAddr> for Stuck {
    p2p::pass_through!(inner: receive, receive_batch, mtu, local_addrs, parse_addr, close, headroom, visit_counters);

    async fn tell(&self, dst: &MemoryAddr, packet: Packet) -> p2p::Result<()> {
        if *dst == self.peer {
            std::future::pending::<()>().await;
        }
        self.inner.tell(dst, packet).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_neighbour_delays_no_other() {
    let realm = MemoryRealm::default();
    let nodes: Vec<MemorySwarm> = (0..3).map(|_| realm.open()).collect();
    let [stuck, inner, reader] = <[MemorySwarm; 3]>::try_from(nodes).expect("three");
    let (peer, to) = (stuck.local_addr(), reader.local_addr());
    let (a, b) = (
        GossipSwarm::new(Stuck { inner, peer }, Signing::StrictNoSign).expect("a node"),
        GossipSwarm::new(reader, Signing::StrictNoSign).expect("a node"),
    );
    b.subscribe(TOPIC).expect("a topic");
    a.add_peer(&peer).expect("room");
    a.add_peer(&to).expect("room");
    // It subscribes as well.
    stuck
        .tell(&a.inner().inner.local_addr(), Packet::from(WANTS))
        .await
        .expect("sent");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(a.subscribers(TOPIC).len(), 2);
    let limits = GossipConfig::default().engine.queue;
    for number in 0..3 * limits.own {
        let text = number.to_string();
        a.tell(&all(), a.packet(text.as_bytes())).await.expect("sent");
        assert_eq!(next_of(&b).await.payload, text.as_bytes());
    }
    let kept = a.kept().expect("open");
    assert!(kept.queued <= limits.own + limits.control, "{kept:?}");
    a.close().await;
}

async fn next_of<S: Swarm<Addr>>(node: &S) -> Message<Addr> {
    let message = timeout(Duration::from_secs(5), node.receive()).await;
    message.expect("a message in time").expect("open")
}

#[tokio::test(start_paused = true)]
async fn a_tell_waits_while_no_subscriber_accepts_anything() {
    let realm = MemoryRealm::default();
    let (peer, inner) = (realm.open(), realm.open());
    let to = peer.local_addr();
    let a = GossipSwarm::new(Stuck { inner, peer: to }, Signing::StrictNoSign).expect("a node");
    peer.tell(&a.inner().inner.local_addr(), Packet::from(WANTS))
        .await
        .expect("sent");
    sleep(Duration::from_secs(2)).await;
    let mut told = 0;
    let tell_all = async {
        loop {
            a.tell(&all(), Packet::from(&u32::to_be_bytes(told))).await?;
            told += 1;
        }
    };
    let ended: Result<p2p::Result<()>, _> = timeout(Duration::from_secs(10), tell_all).await;
    assert!(ended.is_err(), "{ended:?}");
    let limits = GossipConfig::default().engine.queue;
    let kept = a.kept().expect("open");
    assert!(kept.queued <= limits.own && told >= 100, "{told} told: {kept:?}");
    assert_eq!(a.counts().messages_dropped, 0);
}

/// Signatures of many messages are verified by several threads; no message is lost or reordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_verification_keeps_messages_in_order() {
    let nodes = nodes(2, true);
    nodes[1].subscribe(TOPIC).expect("a topic");
    nodes[0].add_peer(&at(&nodes[1])).expect("room");
    event(&nodes[0], |event| matches!(event, GossipEvent::Subscribed { .. })).await;
    let packet = |number: u32| (all(), nodes[0].packet(&number.to_be_bytes()));
    for burst in 0..5 {
        let mut batch: Vec<_> = (burst * 100..(burst + 1) * 100).map(packet).collect();
        nodes[0].tell_batch(&mut batch).await.expect("sent");
        for number in burst * 100..(burst + 1) * 100 {
            assert_eq!(next(&nodes[1]).await.payload, &number.to_be_bytes());
        }
    }
}

/// Concurrent copies are verified once, and a forged one among them does not block the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_copy_beside_a_forged_one_is_delivered_once() {
    for order in [[true, false, false], [false, true, false], [false, false, true]] {
        let nodes = nodes(1, true);
        nodes[0].subscribe(TOPIC).expect("a topic");
        let good = published(signing(7), "truth").to_vec();
        let mut forged = good.clone();
        let data = forged.windows(5).position(|part| part == b"truth");
        forged[data.expect("the data")] = b'T';
        let strangers = [(); 3].map(|()| stranger(&nodes[0]));
        // All of them wait before the node processes any.
        for (stranger, is_good) in strangers.iter().zip(order) {
            let rpc = Packet::from(if is_good { good.clone() } else { forged.clone() });
            stranger.tell(&at(&nodes[0]), rpc).await.expect("sent");
        }
        assert_eq!(next(&nodes[0]).await.payload, b"truth");
        let came = timeout(Duration::from_millis(100), nodes[0].receive()).await;
        assert!(came.is_err(), "{came:?}");
        let forged = order.iter().take_while(|is_good| !**is_good).count() as u64;
        let counts = nodes[0].counts();
        assert_eq!((counts.rejected, counts.duplicates), (forged, 2 - forged));
    }
}
