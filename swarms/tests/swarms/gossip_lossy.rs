//! Gossip on a medium that loses one packet in ten without retransmission: lost announcements are repeated,
//! lost messages are gossiped.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::{Packet, Swarm};
use p2p_swarms::faulty::{Faults, FaultyConfig, LinkFaults};
use p2p_swarms::gossipsub::Signing;
use p2p_swarms::{FaultySwarm, GossipAddr, GossipSwarm, MemoryAddr, MemoryRealm, MemorySwarm};
use tokio::time::{sleep, timeout};

type Medium = FaultySwarm<MemoryAddr, MemorySwarm>;
type Node = GossipSwarm<MemoryAddr, Medium>;

const TOPIC: &str = "news";
const SECOND: Duration = Duration::from_secs(1);
const ONE_IN_TEN: LinkFaults = LinkFaults {
    loss: 0.1,
    duplicate: 0.0,
    reorder: 0.0,
    corrupt: 0.0,
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(10),
    reorder_by: Duration::from_millis(10),
    rate: 0,
    rate_queue: 256 << 10,
};

fn topic() -> GossipAddr<MemoryAddr> {
    GossipAddr::topic(TOPIC)
}

fn at(node: &Node) -> MemoryAddr {
    node.inner().inner().local_addr()
}

fn medium(seed: u64, link: LinkFaults) -> Faults<MemoryAddr> {
    eprintln!("seed {seed}");
    let config = FaultyConfig {
        seed,
        link,
        ..FaultyConfig::default()
    };
    Faults::new(config).expect("a medium")
}

fn nodes(count: usize, faults: &Faults<MemoryAddr>) -> Vec<Node> {
    let realm = MemoryRealm::default();
    let node = |_| {
        let medium = FaultySwarm::new(realm.open(), faults.clone());
        GossipSwarm::new(medium, Signing::StrictNoSign).expect("a node")
    };
    (0..count).map(node).collect()
}

/// Thirty nodes, each with neighbours at these steps to either side, subscribe on a lossy medium; then each
/// publishes some messages. Returns how many pairs of a message and a reader were delivered, and the number
/// of pairs.
async fn spread(steps: &[usize], seed: u64) -> (usize, usize) {
    let (count, each) = (30, 10);
    let nodes = nodes(count, &medium(seed, ONE_IN_TEN));
    for (number, node) in nodes.iter().enumerate() {
        for step in steps {
            node.add_peer(&at(&nodes[(number + step) % count])).expect("room");
        }
        node.subscribe(TOPIC).expect("a topic");
    }
    sleep(10 * SECOND).await;
    for message in 0..count * each {
        let text = message.to_string();
        nodes[message % count]
            .tell(&topic(), Packet::from(text.as_str()))
            .await
            .expect("sent");
        sleep(SECOND / 20).await;
    }
    let mut served = 0;
    for (number, node) in nodes.iter().enumerate() {
        let mut got = BTreeSet::new();
        while let Ok(message) = timeout(10 * SECOND, node.receive()).await {
            let text = message.expect("open").payload.to_vec();
            let text = String::from_utf8(text).expect("a number");
            let message: usize = text.parse().expect("a number");
            assert!(message < count * each && message % count != number);
            assert!(got.insert(message), "{message} arrived twice at {number}");
        }
        served += got.len();
    }
    (served, count * each * (count - 1))
}

#[tokio::test(start_paused = true)]
async fn gossip_repairs_a_medium_that_loses_one_in_ten() {
    // With eight neighbours some are outside of the mesh; with four none is.
    for (seed, steps) in [(1, &[1, 3, 7, 11][..]), (2, &[1, 7])] {
        let (served, due) = spread(steps, seed).await;
        eprintln!("{served} of {due} with {} neighbours", 2 * steps.len());
        assert!(served * 1000 >= due * 999, "{served} of {due}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_subscription_or_unsubscription_is_repeated_soon() {
    let faults = medium(3, LinkFaults::default());
    let nodes = nodes(2, &faults);
    nodes[0].add_peer(&at(&nodes[1])).expect("room");
    sleep(100 * SECOND).await;
    let knows = || nodes[0].subscribers(TOPIC).len();
    for (subscribed, other) in [(true, 1), (false, 0)] {
        // All announcements are lost for a while, including the third repetition.
        faults.cut(&at(&nodes[1]), &at(&nodes[0]));
        if subscribed {
            nodes[1].subscribe(TOPIC).expect("a topic");
        } else {
            nodes[1].unsubscribe(TOPIC).expect("open");
        }
        sleep(4 * SECOND).await;
        assert_eq!(knows(), 1 - other, "the announcement was lost");
        faults.mend(&at(&nodes[1]), &at(&nodes[0]));
        sleep(6 * SECOND).await;
        assert_eq!(knows(), other, "subscribed: {subscribed}");
    }
}
