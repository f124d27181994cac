//! Gossip among nodes that are reached by id: each message reaches all others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p::{BoxAddr, BoxSwarm, Swarm as _};
use p2p_formats::x509::Registry;
use p2p_swarms::gossipsub::Signing;
use p2p_swarms::stack::{Gossip, StackNode};
use p2p_swarms::{GossipAddr, GossipSwarm};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::network::key;
use crate::{Failure, first_addr};
use p2p_examples::row::Row;

const STACK: &str = "udp=127.0.0.1:0/p2pke/mbapp/kad/gossip=demo";
const TOPIC: &str = "demo";
/// Initial neighbours of a node: those at these distances around the ring.
const NEIGHBOURS: [usize; 4] = [1, 3, 7, 13];
/// Number of messages that each node publishes.
const EACH: usize = 4;
/// Delay between two messages over all nodes: this measures delivery, not rates.
const PAUSE: Duration = Duration::from_millis(2);
/// Timeout for the formation of meshes: several heartbeats.
const MESHES: Duration = Duration::from_secs(5);
/// Time without an arrival after which messages in flight count as lost: longer than repair by gossip takes.
const LOST_AFTER: Duration = Duration::from_secs(4);

/// Returns the number of arrivals if no message is lost.
pub(crate) fn arrivals(nodes: usize) -> usize {
    nodes * EACH * (nodes - 1)
}

/// Makes each member publish to all others.
pub(crate) async fn run(members: &[StackNode], seed: u64) -> Result<Row, Failure> {
    let count = members.len();
    let nodes = members.iter().enumerate();
    let nodes: Vec<Gossip> = nodes
        .map(|(number, member)| node(member, seed, number))
        .collect::<Result<_, _>>()?;
    for (at, node) in nodes.iter().enumerate() {
        for peer in NEIGHBOURS.iter().map(|distance| (at + distance) % count) {
            if let Some(peer) = members.get(peer).filter(|_| peer != at) {
                node.add_peer(&first_addr(&peer.stack)?)?;
            }
        }
    }
    let meshes = async {
        while nodes.iter().any(|node| node.mesh(TOPIC).is_empty()) {
            sleep(PAUSE).await;
        }
    };
    // If a mesh is missing, messages take other routes, or are reported as missing.
    drop(timeout(MESHES, meshes).await);
    let (arrived, mut arriving) = unbounded_channel();
    let mut readers = JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        readers.spawn(read(number, node.clone(), arrived.clone()));
    }
    drop(arrived);
    let mut row = Row::new(STACK, "publish", count, arrivals(count));
    let mut published = HashMap::new();
    for number in 0..count * EACH {
        let Some(node) = nodes.get(number % count) else {
            continue;
        };
        published.insert(number as u64, (node.id(), Instant::now()));
        let packet = node.packet(&(number as u64).to_be_bytes());
        node.tell(&GossipAddr::topic(TOPIC), packet).await?;
        sleep(PAUSE).await;
    }
    let mut arrived_once = HashSet::new();
    while arrived_once.len() < arrivals(count) {
        let Ok(Some(arrival)) = timeout(LOST_AFTER, arriving.recv()).await else {
            break;
        };
        let Arrival {
            reader,
            number,
            author,
            at,
        } = arrival;
        // A message is correct if its author signed it and it arrives once.
        if let Some((publisher, start)) = published.get(&number)
            && *publisher == author
            && arrived_once.insert((reader, number))
        {
            row.done(at.saturating_duration_since(*start));
            row.end();
        }
    }
    readers.shutdown().await;
    Ok(row)
}

fn node(member: &StackNode, seed: u64, number: usize) -> Result<Gossip, Failure> {
    let signer = Registry::default().signer(&key(seed, number))?;
    let inner: BoxSwarm<BoxAddr> = member.stack.swarm();
    let node = GossipSwarm::new(inner, Signing::strict(Arc::from(signer))?)?;
    node.subscribe(TOPIC)?;
    Ok(Arc::new(node))
}

/// A received message.
struct Arrival {
    reader: usize,
    number: u64,
    author: Option<p2p::PeerId>,
    at: Instant,
}

async fn read(reader: usize, node: Gossip, arrived: UnboundedSender<Arrival>) {
    while let Ok(message) = node.receive().await {
        let Ok(number) = <[u8; 8]>::try_from(&*message.payload) else {
            continue;
        };
        let arrival = Arrival {
            reader,
            number: u64::from_be_bytes(number),
            author: p2p::Addr::peer_id(&message.src),
            at: Instant::now(),
        };
        if arrived.send(arrival).is_err() {
            return;
        }
    }
}
