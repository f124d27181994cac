//! Gossipsub among hosts: streams, topics, peers that come and go, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Error, Swarm};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_libp2p::{Host, HostAddr, HostConfig, HostGossip, HostGossipConfig};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::gossipsub::{Departure, GossipAddr, GossipEvent, Place, Signing};
use p2p_swarms::{Faults, GossipSwarm, LinkFaults, MemoryAddr, MemoryRealm, SwarmExt as _};
use tokio::time::timeout;

use crate::nodes::in_memory;

const TOPIC: &str = "news";
/// A time in which everything that can happen has happened.
const SETTLED: Duration = Duration::from_secs(5);

pub(crate) fn key(seed: u32) -> PrivateKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

pub(crate) fn signing(seed: u32) -> Signing {
    let signer = Registry::default().signer(&key(seed)).expect("a key");
    Signing::strict(signer.into()).expect("an Ed25519 key")
}

pub(crate) fn join(host: &Host, seed: u32) -> HostGossip {
    let config = HostGossipConfig::default();
    host.gossip(signing(seed), config)
        .expect("the first on this host")
}

pub(crate) async fn node(seed: u32, realm: &MemoryRealm) -> HostGossip {
    join(&in_memory(seed, realm, HostConfig::default()).await, seed)
}

/// Waits until `peers` are subscribed to the topic, as far as `node` knows.
pub(crate) async fn until_subscribed<A: Addr, S: Swarm<A>>(node: &GossipSwarm<A, S>, peers: usize) {
    let wait = async {
        while node.subscribers(TOPIC).len() < peers {
            node.event().await.expect("the node is open");
        }
    };
    timeout(Duration::from_mins(1), wait)
        .await
        .expect("subscriptions arrive");
}

pub(crate) async fn publish<A: Addr, S: Swarm<A>>(node: &GossipSwarm<A, S>, data: &[u8]) {
    let told = node.tell(&GossipAddr::topic(TOPIC), node.packet(data)).await;
    told.expect("an open node");
}

async fn receive<A: Addr, S: Swarm<A>>(node: &GossipSwarm<A, S>) -> p2p::Message<GossipAddr<A>> {
    let received = timeout(Duration::from_mins(1), node.receive()).await;
    received.expect("the message arrives").expect("the node is open")
}

fn addr(node: &HostGossip) -> HostAddr {
    node.inner().local_addr().expect("a host that listens")
}

/// Publishes in both directions. What it does is the same on any medium.
async fn exchange<A: Addr, S: Swarm<A>>(ours: &GossipSwarm<A, S>, theirs: &GossipSwarm<A, S>, to: &A) {
    for node in [ours, theirs] {
        node.subscribe(TOPIC).expect("a valid topic");
    }
    ours.add_peer(to).expect("room");
    ours.until_met(to).await.expect("it is there");
    until_subscribed(ours, 1).await;
    until_subscribed(theirs, 1).await;
    publish(ours, b"one").await;
    let message = receive(theirs).await;
    assert_eq!(message.payload, b"one");
    let author = ours.id().expect("messages are signed");
    assert_eq!(message.src.at, Some(Place::Author(author)));
    publish(theirs, b"two").await;
    assert_eq!(receive(ours).await.payload, b"two");
}

#[tokio::test(start_paused = true)]
async fn one_program_runs_on_datagrams_and_among_hosts() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (node(1, &realm).await, node(2, &realm).await);
    exchange(&ours, &theirs, &addr(&theirs)).await;
    // The author of a message is the host.
    assert_eq!(ours.id(), addr(&ours).peer_id());

    let (ours, theirs) = (realm.open(), realm.open());
    let to = theirs.local_addr();
    let (ours, theirs) = (ours.gossip(signing(1)), theirs.gossip(signing(2)));
    exchange(&ours.expect("a node"), &theirs.expect("a node"), &to).await;
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_connected_before_and_after_become_peers_and_leave_with_their_connection() {
    let realm = MemoryRealm::default();
    let hosts = [1, 2, 3].map(|seed| in_memory(seed, &realm, HostConfig::default()));
    let [one, two, three] = futures_util::future::join_all(hosts)
        .await
        .try_into()
        .expect("three hosts");
    let to = one.local_addrs().remove(0);
    two.connect(&to).await.expect("it listens");
    two.identify(&to).await.expect("it answers");
    let (one, two) = (join(&one, 1), join(&two, 2));
    one.subscribe(TOPIC).expect("a valid topic");
    // Identify push tells of the protocols.
    until_subscribed(&two, 1).await;
    let three = join(&three, 3);
    let connected = three.inner().host().expect("open").connect(&to).await;
    connected.expect("it listens");
    until_subscribed(&three, 1).await;
    assert_eq!(one.peers().len(), 2);

    let left = two.inner().host().expect("open").disconnect(&to);
    assert_eq!(left, 1);
    let peer = addr(&two);
    let wait = async {
        loop {
            let event = one.event().await.expect("the node is open");
            if matches!(&event, GossipEvent::Left { peer: left, why: Departure::Gone } if *left == peer) {
                return;
            }
        }
    };
    timeout(SETTLED, wait).await.expect("it leaves");
    assert_eq!(one.peers(), [addr(&three)]);
    assert!(two.peers().is_empty() && two.subscribers(TOPIC).is_empty());

    // A host is a peer again when it connects again.
    two.add_peer(&to).expect("room");
    until_subscribed(&two, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_the_program_removed_joins_again_when_it_is_added() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (node(1, &realm).await, node(2, &realm).await);
    exchange(&ours, &theirs, &addr(&theirs)).await;
    assert!(ours.remove_peer(&addr(&theirs)).expect("an open node"));
    tokio::time::sleep(SETTLED).await;
    assert!(ours.peers().is_empty());
    let gone = ours.until_met(&addr(&theirs)).await;
    assert!(matches!(gone, Err(Error::Unreachable { .. })), "{gone:?}");
    ours.add_peer(&addr(&theirs)).expect("room");
    ours.until_met(&addr(&theirs)).await.expect("it is connected");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_dialled_is_no_peer() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (node(1, &realm).await, node(2, &realm).await);
    let to = addr(&theirs);
    theirs.close().await;
    ours.add_peer(&to).expect("room");
    let met = ours.until_met(&to).await;
    assert!(matches!(met, Err(Error::Unreachable { .. })), "{met:?}");
    let place = HostAddr::from_multiaddr(to.place().clone());
    let unnamed = ours.add_peer(&place);
    assert!(matches!(unnamed, Err(Error::Invalid { .. })), "{unnamed:?}");
}

#[tokio::test(start_paused = true)]
async fn hosts_without_the_protocol_and_hosts_that_are_not_accepted_are_no_peers() {
    let realm = MemoryRealm::default();
    let mut config = HostGossipConfig::default();
    config.gossip.accept_peers = false;
    let host = in_memory(1, &realm, HostConfig::default()).await;
    let ours = host.gossip(signing(1), config).expect("a node");
    let theirs = node(2, &realm).await;
    let plain = in_memory(3, &realm, HostConfig::default()).await;
    for to in [addr(&theirs), plain.local_addrs().remove(0)] {
        host.connect(&to).await.expect("it listens");
    }
    tokio::time::sleep(SETTLED).await;
    assert!(ours.peers().is_empty());
    ours.add_peer(&addr(&theirs)).expect("room");
    ours.until_met(&addr(&theirs)).await.expect("it is connected");
    assert_eq!(ours.peers(), [addr(&theirs)]);
}

#[tokio::test(start_paused = true)]
async fn a_second_gossip_node_on_a_host_is_refused_and_leaves_the_first_alone() {
    let realm = MemoryRealm::default();
    let host = in_memory(1, &realm, HostConfig::default()).await;
    let ours = join(&host, 1);
    let second = host.gossip(signing(1), HostGossipConfig::default());
    assert!(matches!(second, Err(Error::Invalid { .. })));
    let theirs = node(2, &realm).await;
    exchange(&ours, &theirs, &addr(&theirs)).await;
    // After it was closed, another one takes its place.
    ours.close().await;
    tokio::time::sleep(SETTLED).await;
    assert!(theirs.peers().is_empty());
    let ours = join(&host, 1);
    exchange(&ours, &theirs, &addr(&theirs)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_published_before_closing_arrives() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (node(1, &realm).await, node(2, &realm).await);
    exchange(&ours, &theirs, &addr(&theirs)).await;
    for number in 0..200_u8 {
        publish(&ours, &[number; 1000]).await;
    }
    ours.close().await;
    for number in 0..200_u8 {
        assert_eq!(receive(&theirs).await.payload, [number; 1000][..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_floodsub_node_and_a_gossipsub_node_understand_one_another() {
    let realm = MemoryRealm::default();
    let mut config = HostGossipConfig::default();
    config.gossip.engine.floodsub = true;
    let host = in_memory(1, &realm, HostConfig::default()).await;
    let flood = host.gossip(signing(1), config).expect("a node");
    let mesh = node(2, &realm).await;
    exchange(&flood, &mesh, &addr(&mesh)).await;
    assert!(mesh.mesh(TOPIC).is_empty(), "floodsub peers have no meshes");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_mtu_arrives_and_a_longer_one_is_refused() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (node(1, &realm).await, node(2, &realm).await);
    exchange(&ours, &theirs, &addr(&theirs)).await;
    let longest = vec![7; ours.mtu()];
    publish(&ours, &longest).await;
    assert_eq!(receive(&theirs).await.payload, longest[..]);
    let longer = vec![7; ours.mtu() + 1];
    let told = ours.tell(&GossipAddr::topic(TOPIC), ours.packet(&longer)).await;
    assert!(matches!(told, Err(Error::MtuExceeded { .. })), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn every_message_reaches_twenty_hosts_on_a_medium_that_loses() {
    const NODES: u32 = 20;
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let faults: Faults<MemoryAddr> = Faults::new(FaultyConfig {
        seed: SEED,
        link: LinkFaults {
            loss: 0.02,
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(5),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    })
    .expect("faults in range");
    let realm = MemoryRealm::default();
    let mut nodes: Vec<Arc<HostGossip>> = Vec::new();
    for seed in 0..NODES {
        let builder = Host::builder(&key(seed)).config(HostConfig {
            max_handshakes_per_prefix: 256,
            ..HostConfig::default()
        });
        let builder = builder.over(realm.open().faulty(faults.clone())).expect("an MTU");
        let host = builder.start().await.expect("a host");
        let node = join(&host, seed);
        node.subscribe(TOPIC).expect("a valid topic");
        nodes.push(Arc::new(node));
    }
    // A ring with chords: each node dials four others, and none knows all.
    for (index, node) in nodes.iter().enumerate() {
        for step in [1, 3, 7, 9] {
            let to = addr(&nodes[(index + step) % nodes.len()]);
            node.add_peer(&to).expect("room");
        }
    }
    for node in &nodes {
        until_subscribed(node, 8).await;
    }
    // A few heartbeats, in which meshes form.
    tokio::time::sleep(SETTLED).await;
    for node in &nodes {
        assert!(
            (4..=8).contains(&node.mesh(TOPIC).len()),
            "{:?}",
            node.mesh(TOPIC)
        );
    }
    for (index, node) in nodes.iter().enumerate() {
        publish(node, &[index as u8]).await;
    }
    for (index, node) in nodes.iter().enumerate() {
        let mut left: Vec<u8> = (0..NODES as u8)
            .filter(|other| usize::from(*other) != index)
            .collect();
        while !left.is_empty() {
            let message = receive(node).await;
            let from = message.payload[0];
            let author = nodes[usize::from(from)].id().expect("messages are signed");
            assert_eq!(message.src.at, Some(Place::Author(author)));
            let at = left.iter().position(|other| *other == from);
            left.remove(at.expect("each message arrives once"));
        }
    }
}
