//! Nodes of rust-libp2p: each a swarm in a task of its own, with connections in further tasks.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use libp2p::core::transport::{MemoryTransport, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, Event, IdentTopic, Message, MessageAuthenticity, MessageId, PublishError,
    ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::{Config, SwarmEvent};
use libp2p::{Multiaddr, Swarm, plaintext, yamux};
use tokio::sync::mpsc;

use super::{CREDIT, Nodes, Progress, TOPIC, payload};

type Node = Swarm<Behaviour>;

/// The parameters of both sides. Queues are long enough, and queued messages may be old enough, that nothing
/// is dropped.
fn behaviour(key: Keypair, signed: bool) -> Behaviour {
    let mut config = ConfigBuilder::default();
    config
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .gossip_lazy(6)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .idontwant_message_size_threshold(1024)
        .connection_handler_queue_len(1 << 16)
        .publish_queue_duration(Duration::from_mins(1))
        .forward_queue_duration(Duration::from_mins(1));
    // Message ids that cost less than the default ones, which are base58 texts.
    let authenticity = if signed {
        config.validation_mode(ValidationMode::Strict);
        config.message_id_fn(|message: &Message| {
            let source = message.source.expect("it is signed");
            let number = message.sequence_number.expect("it is signed");
            let mut id = source.to_bytes();
            id.extend(number.to_be_bytes());
            MessageId::from(id)
        });
        MessageAuthenticity::Signed(key)
    } else {
        config.validation_mode(ValidationMode::Anonymous);
        config.message_id_fn(|message: &Message| {
            let mut hasher = DefaultHasher::new();
            message.data.hash(&mut hasher);
            MessageId::from(hasher.finish().to_be_bytes().to_vec())
        });
        MessageAuthenticity::Anonymous
    };
    let config = config.build().expect("numbers that go together");
    Behaviour::new(authenticity, config).expect("a mode that fits")
}

fn address(number: u64) -> Multiaddr {
    format!("/memory/{number}").parse().expect("an address")
}

fn node(number: u64, base: u64, signed: bool) -> Node {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    let key = Keypair::ed25519_from_bytes(seed).expect("32 bytes");
    let id = key.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(plaintext::Config::new(&key))
        .multiplex(yamux::Config::default())
        .boxed();
    let config = Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_mins(10));
    let mut swarm = Swarm::new(transport, behaviour(key, signed), id, config);
    swarm.listen_on(address(base + number)).expect("free");
    let topic = IdentTopic::new(TOPIC);
    swarm.behaviour_mut().subscribe(&topic).expect("once");
    swarm
}

/// Creates nodes, each of which has dialled all earlier ones.
fn nodes(count: usize, signed: bool) -> Vec<Node> {
    // The transport's addresses are process-wide, and some stay in use for a while.
    static TAKEN: AtomicU64 = AtomicU64::new(1);
    let base = TAKEN.fetch_add(count as u64, Ordering::Relaxed);
    let mut nodes: Vec<_> = (0..count as u64)
        .map(|number| node(number, base, signed))
        .collect();
    for (at, node) in (0..).zip(&mut nodes) {
        for other in 0..at {
            node.dial(address(base + other)).expect("a new address");
        }
    }
    nodes
}

/// Commands for a node: publish the message with this number.
type Orders = mpsc::UnboundedReceiver<u64>;

async fn run(mut swarm: Node, mut orders: Orders, others: usize, progress: Arc<Progress>) {
    let topic = IdentTopic::new(TOPIC).hash();
    let mut known = 0;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(Event::Message { message, .. }) => progress.deliver(message.data.len()),
                SwarmEvent::Behaviour(Event::Subscribed { .. }) => {
                    known += 1;
                    if known == others {
                        progress.ready.add_permits(1);
                    }
                }
                SwarmEvent::Behaviour(Event::SlowPeer { .. }) => panic!("something was dropped"),
                _ => {}
            },
            count = orders.recv_many(&mut batch, CREDIT) => {
                if count == 0 {
                    return;
                }
                for number in batch.drain(..) {
                    match swarm.behaviour_mut().publish(topic.clone(), payload(number)) {
                        Ok(_) => {}
                        Err(PublishError::AllQueuesFull(_)) => panic!("the queues are too short"),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }
}

/// The command channels of the nodes.
pub(super) struct Peers(Vec<mpsc::UnboundedSender<u64>>);

/// Starts nodes that all know each other.
pub(super) async fn start(count: usize, signed: bool, progress: &Arc<Progress>) -> Peers {
    let senders = nodes(count, signed).into_iter().map(|swarm| {
        let (sender, orders) = mpsc::unbounded_channel();
        tokio::spawn(run(swarm, orders, count - 1, progress.clone()));
        sender
    });
    let peers = Peers(senders.collect());
    let all = progress.ready.acquire_many(count as u32).await;
    all.expect("open").forget();
    peers
}

impl Nodes for Peers {
    async fn publish(&self, node: usize, numbers: Range<u64>) {
        for number in numbers {
            self.0[node].send(number).expect("it runs");
        }
    }
}
