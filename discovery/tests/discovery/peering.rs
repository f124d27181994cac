//! A gossip node has the peers that a discovery reports, as they join, move and leave.

use std::time::Duration;

use p2p::{PeerId, Swarm as _};
use p2p_discovery::{
    Addrs, Discovery as _, FixedList, MAX_KEPT, MemoryCell, Node, TRY_AGAIN, Topic, keep_peers,
};
use p2p_swarms::gossipsub::Signing;
use p2p_swarms::{GossipAddr, GossipConfig, GossipSwarm, MemoryAddr, MemoryRealm, MemorySwarm};
use tokio::time::{sleep, timeout};

use crate::testbeds::TrackerTestbed;

type Gossip = GossipSwarm<MemoryAddr, MemorySwarm>;

const TTL: Duration = Duration::from_mins(10);

fn topic() -> Topic {
    "chat".parse().expect("a topic")
}

/// A node that has only the peers that were added.
fn node(realm: &MemoryRealm) -> Gossip {
    let config = GossipConfig {
        accept_peers: false,
        ..GossipConfig::default()
    };
    GossipSwarm::with_config(realm.open(), Signing::StrictNoSign, config).expect("a node")
}

fn addrs(nodes: &[&Gossip]) -> Addrs {
    Addrs::new(nodes.iter().flat_map(|node| node.inner().local_addrs())).expect("addresses")
}

/// Returns the entry of a node in a list.
fn listed(id: u8, addrs: Addrs) -> Node {
    let id = PeerId::new([id; 32]);
    Node { id, addrs }
}

fn local(nodes: &[&Gossip]) -> Vec<MemoryAddr> {
    let mut local: Vec<_> = nodes.iter().flat_map(|node| node.inner().local_addrs()).collect();
    local.sort_unstable();
    local
}

fn peers(node: &Gossip) -> Vec<MemoryAddr> {
    let mut peers = node.peers();
    peers.sort_unstable();
    peers
}

/// Waits until a node has exactly these peers.
async fn until(node: &Gossip, expected: &[&Gossip]) {
    let expected = local(expected);
    let until = async {
        while peers(node) != expected {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = timeout(TTL, until).await;
    assert!(in_time.is_ok(), "{:?} instead of {expected:?}", peers(node));
}

#[tokio::test(start_paused = true)]
async fn a_listed_node_becomes_a_peer_and_receives_messages() {
    let realm = MemoryRealm::default();
    let [a, b, c] = [(); 3].map(|()| node(&realm));
    // All share one list, in which each finds itself as well.
    let mut list = FixedList::new();
    for (id, node) in [&a, &b, &c].into_iter().enumerate() {
        node.subscribe("news").expect("a topic");
        list = list.with(&topic(), listed(id as u8, addrs(&[node])));
    }
    let topic = topic();
    let keeping = async {
        let failed = |error| panic!("{error}");
        tokio::join!(
            keep_peers(&list, &topic, &a, failed),
            keep_peers(&list, &topic, &b, failed),
            keep_peers(&list, &topic, &c, failed),
        )
    };
    let talking = async {
        until(&a, &[&b, &c]).await;
        until(&b, &[&a, &c]).await;
        until(&c, &[&a, &b]).await;
        while a.subscribers("news").len() < 2 {
            sleep(Duration::from_millis(100)).await;
        }
        a.tell(&GossipAddr::topic("news"), a.packet(b"hello"))
            .await
            .expect("sent");
        for node in [&b, &c] {
            assert_eq!(node.receive().await.expect("open").payload, b"hello");
        }
    };
    tokio::select! {
        (ended, ..) = keeping => panic!("{ended:?}"),
        talked = timeout(TTL, talking) => talked.expect("in time"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_is_a_peer_at_its_new_address_and_one_that_withdraws_is_removed() {
    let realm = MemoryRealm::default();
    let [a, b, elsewhere, by_hand] = [(); 4].map(|()| node(&realm));
    a.add_peer(&by_hand.inner().local_addr()).expect("room");
    let testbed = TrackerTestbed::new(MemoryCell::default());
    let (topic, of_a, of_b) = (topic(), testbed.tracker(1), testbed.tracker(2));
    let changing = async {
        until(&a, &[&by_hand]).await;
        of_b.announce(&topic, &addrs(&[&b]), TTL).await.expect("room");
        until(&a, &[&b, &by_hand]).await;
        of_b.announce(&topic, &addrs(&[&elsewhere]), TTL)
            .await
            .expect("room");
        until(&a, &[&elsewhere, &by_hand]).await;
        // One more address changes nothing.
        of_b.announce(&topic, &addrs(&[&b, &elsewhere]), TTL)
            .await
            .expect("room");
        sleep(TRY_AGAIN * 3).await;
        until(&a, &[&elsewhere, &by_hand]).await;
        of_b.withdraw(&topic).await.expect("there");
        until(&a, &[&by_hand]).await;
        a.close().await;
    };
    let failed = |error| panic!("{error}");
    let (ended, ()) = tokio::join!(keep_peers(&of_a, &topic, &a, failed), changing);
    assert!(matches!(ended, Err(p2p::Error::Closed)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_node_is_tried_at_its_next_address() {
    let realm = MemoryRealm::default();
    let (a, b) = (node(&realm), node(&realm));
    let gone = node(&realm);
    let both = addrs(&[&gone, &b]);
    drop(gone);
    let (list, topic) = (FixedList::new().with(&topic(), listed(7, both)), topic());
    b.add_peer(&a.inner().local_addr()).expect("room");
    let expected = [&b];
    tokio::select! {
        ended = keep_peers(&list, &topic, &a, |error| panic!("{error}")) => panic!("{ended:?}"),
        () = until(&a, &expected) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_address_is_reported_and_blocks_no_other_node() {
    let realm = MemoryRealm::default();
    let (a, b) = (node(&realm), node(&realm));
    let nowhere = Addrs::new(["127.0.0.1:80"]).expect("an address");
    let list = FixedList::new().with(&topic(), listed(1, nowhere));
    let (list, topic) = (list.with(&topic(), listed(2, addrs(&[&b]))), topic());
    let mut failures = Vec::new();
    let expected = [&b];
    tokio::select! {
        ended = keep_peers(&list, &topic, &a, |error| failures.push(error)) => panic!("{ended:?}"),
        () = until(&a, &expected) => {}
    }
    assert_eq!(failures.len(), 1, "{failures:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_silent_nodes_as_are_kept_do_not_keep_one_that_answers_out() {
    let realm = MemoryRealm::default();
    let (a, b) = (node(&realm), node(&realm));
    b.add_peer(&a.inner().local_addr()).expect("room");
    let mut list = FixedList::new();
    for number in 0..i64::try_from(MAX_KEPT).expect("a small number") {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let nowhere = Addrs::new([MemoryAddr::new(1_000_000 + number)]).expect("addresses");
        let silent = Node {
            id: PeerId::new(id),
            addrs: nowhere,
        };
        list = list.with(&topic(), silent);
    }
    // It is found last.
    let (list, topic) = (list.with(&topic(), listed(255, addrs(&[&b]))), topic());
    let met = async {
        while !a.is_met(&b.inner().local_addr()) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        ended = keep_peers(&list, &topic, &a, |_| ()) => panic!("{ended:?}"),
        met = timeout(TRY_AGAIN * 6, met) => met.expect("in time"),
    }
    assert!(a.peers().len() <= MAX_KEPT);
}
