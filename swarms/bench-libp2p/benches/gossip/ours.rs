//! Nodes of this library: each a swarm with a task that reads its messages.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use p2p::Swarm as _;
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossipsub::wire::Message;
use p2p_swarms::gossipsub::{
    Config, GossipAddr, GossipConfig, GossipSwarm, MessageId, NameMessage, QueueConfig, Signing,
};
use p2p_swarms::inbox::Limits;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm};

use super::{Nodes, Progress, TOPIC, WINDOW, payload};

pub(super) type Node = Arc<GossipSwarm<MemoryAddr, MemorySwarm>>;

/// Room for all messages in flight.
fn room() -> Limits {
    Limits {
        items: 16 * WINDOW,
        bytes: 64 << 20,
        ..Limits::default()
    }
}

/// Computes the id of an unsigned message as the other side does.
fn name(message: &Message) -> MessageId {
    let mut hasher = DefaultHasher::new();
    message.data().hash(&mut hasher);
    MessageId::copy_from_slice(&hasher.finish().to_be_bytes())
}

fn node(number: u64, realm: &MemoryRealm, signed: bool) -> Node {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let key = PrivateKey::ed25519(&seed);
    let signing = if signed {
        let owner = Registry::default().signer(&key).expect("a key");
        Signing::strict(Arc::from(owner)).expect("ed25519")
    } else {
        Signing::StrictNoSign
    };
    let queue = QueueConfig {
        bytes: 64 << 20,
        own: 16 * WINDOW,
        own_age: Duration::from_mins(1),
        forwarded: 16 * WINDOW,
        forwarded_age: Duration::from_mins(1),
        ..QueueConfig::default()
    };
    let config = GossipConfig {
        engine: Config {
            queue,
            // Memory loses nothing, so messages that wait together leave together, as in the peer's stream.
            pack: 64 << 10,
            ..Config::default()
        },
        messages: room(),
        // As on the other side.
        message_id: (!signed).then(|| Arc::new(name) as NameMessage),
        ..GossipConfig::default()
    };
    let node = GossipSwarm::with_config(realm.open(), signing, config).expect("limits that work");
    node.subscribe(TOPIC).expect("open");
    Arc::new(node)
}

/// Starts nodes that all know each other.
pub(super) async fn start(count: usize, signed: bool, progress: &Arc<Progress>) -> Vec<Node> {
    let config = MemoryConfig {
        messages: room(),
        ..MemoryConfig::default()
    };
    let realm = MemoryRealm::new(config);
    let nodes: Vec<_> = (0..count as u64)
        .map(|number| node(number, &realm, signed))
        .collect();
    for (at, node) in nodes.iter().enumerate() {
        for other in &nodes[..at] {
            node.add_peer(&other.inner().local_addr()).expect("room");
        }
        let (node, progress) = (node.clone(), progress.clone());
        tokio::spawn(async move {
            let mut messages = Vec::new();
            while node.receive_batch(&mut messages, 64).await.is_ok() {
                for message in messages.drain(..) {
                    progress.deliver(message.payload.len());
                }
            }
        });
    }
    while nodes
        .iter()
        .any(|node| node.subscribers(TOPIC).len() + 1 < nodes.len())
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    nodes
}

impl Nodes for Vec<Node> {
    async fn publish(&self, node: usize, numbers: Range<u64>) {
        let (node, topic) = (&self[node], GossipAddr::topic(TOPIC));
        let packets = numbers.map(|number| (topic.clone(), node.packet(&payload(number))));
        let mut packets: Vec<_> = packets.collect();
        node.tell_batch(&mut packets).await.expect("published");
    }
}
