//! A long random exchange by gossip: nodes restart, leave and join, readers are slow and cancel receives.
//! Among connected subscribers on a lossless medium each message arrives exactly once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Packet, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossipsub::Signing;
use p2p_swarms::{GossipAddr, GossipSwarm, MemoryAddr, MemoryRealm, MemorySwarm};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "news";
const NODES: usize = 7;
const ROUNDS: usize = 8;
/// Messages of a round, fewer than may wait for a reader.
const MESSAGES: usize = 60;

type Node = GossipSwarm<MemoryAddr, MemorySwarm>;
type Got = Arc<Mutex<BTreeMap<Vec<u8>, usize>>>;

/// A node, while it is open, and the messages that it received.
struct Member {
    node: Arc<Node>,
    got: Got,
    reader: JoinHandle<()>,
}

/// Reads as a busy program does: one at a time or in batches, late, and never waiting for long.
async fn read(node: Arc<Node>, got: Got, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let (patience, max) = (
            Duration::from_millis(rng.random_range(1..40)),
            rng.random_range(1..65),
        );
        let mut messages = Vec::new();
        let closed = match rng.random_range(0..3) {
            0 => match timeout(patience, node.receive()).await {
                Ok(Ok(message)) => {
                    messages.push(message);
                    false
                }
                Ok(Err(_)) => true,
                Err(_) => false,
            },
            1 => {
                let reading = timeout(patience, node.receive_batch(&mut messages, max)).await;
                matches!(reading, Ok(Err(_)))
            }
            _ => {
                sleep(patience).await;
                false
            }
        };
        for message in messages {
            *got.lock()
                .expect("no panic")
                .entry(message.payload.to_vec())
                .or_default() += 1;
        }
        if closed {
            return;
        }
    }
}

fn open(realm: &MemoryRealm, key: u8, at: Option<MemoryAddr>, seed: u64) -> Member {
    let inner = match at {
        Some(addr) => realm.open_at(addr).expect("the address is free"),
        None => realm.open(),
    };
    let signer = Registry::default()
        .signer(&PrivateKey::ed25519(&[key; 32]))
        .expect("a key");
    let node = GossipSwarm::new(inner, Signing::strict(Arc::from(signer)).expect("ed25519")).expect("a node");
    node.subscribe(TOPIC).expect("a topic");
    let (node, got) = (Arc::new(node), Got::default());
    let reader = tokio::spawn(read(node.clone(), got.clone(), seed));
    Member { node, got, reader }
}

/// Adds some peers to a node, including the next one, so that all nodes are connected.
fn connect(members: &[Member], at: usize, rng: &mut StdRng) {
    let next = (at + 1) % members.len();
    let others = (0..members.len()).filter(|other| *other != at).sample(rng, 2);
    for other in others.into_iter().chain([next]) {
        let to = members[other].node.inner().local_addr();
        members[at].node.add_peer(&to).expect("room");
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_arrives_once_at_connected_subscribers() {
    for seed in [1_u64] {
        println!("seed {seed}");
        let (mut rng, realm) = (StdRng::seed_from_u64(seed), MemoryRealm::default());
        let mut keys = 0_u8;
        let mut make = |at, key: Option<u8>, rng: &mut StdRng| {
            keys += 1;
            (
                key.unwrap_or(keys),
                open(&realm, key.unwrap_or(keys), at, rng.random()),
            )
        };
        let mut members: Vec<(u8, Member)> = (0..NODES).map(|_| make(None, None, &mut rng)).collect();
        for round in 0..ROUNDS {
            // Some nodes restart at their address, some leave, and new ones join.
            for _ in 0..rng.random_range(0..3) {
                let at = rng.random_range(0..members.len());
                let (key, gone) = members.remove(at);
                let addr = gone.node.inner().local_addr();
                let restarts = rng.random_bool(0.5);
                if rng.random_bool(0.7) {
                    gone.node.close().await;
                    gone.reader.await.expect("no panic");
                } else {
                    // Without a goodbye.
                    gone.reader.abort();
                    drop(gone.reader.await);
                }
                drop(gone.node);
                members.push(make(restarts.then_some(addr), restarts.then_some(key), &mut rng));
            }
            let (numbers, open): (Vec<u8>, Vec<Member>) = members.into_iter().unzip();
            (0..open.len()).for_each(|at| connect(&open, at, &mut rng));
            // Until subscriptions are known and meshes have formed.
            sleep(Duration::from_secs(8)).await;
            let mut due = Vec::new();
            for number in 0..MESSAGES {
                let from = rng.random_range(0..open.len());
                let len = rng.random_range(16..open[from].node.mtu().min(4000));
                let mut payload = format!("{seed} {round} {number} ").into_bytes();
                payload.resize(len.max(payload.len()), rng.random());
                let to = GossipAddr::topic(TOPIC);
                let mut batch = vec![(to.clone(), Packet::from(payload.clone()))];
                if rng.random_bool(0.5) {
                    open[from].node.tell_batch(&mut batch).await.expect("it leaves");
                } else {
                    open[from]
                        .node
                        .tell(&to, Packet::from(payload.clone()))
                        .await
                        .expect("it leaves");
                }
                due.push((from, payload));
                if rng.random_bool(0.2) {
                    sleep(Duration::from_millis(rng.random_range(0..300))).await;
                }
            }
            sleep(Duration::from_secs(10)).await;
            for (at, member) in open.iter().enumerate() {
                let got = member.got.lock().expect("no panic");
                assert!(
                    got.values().all(|times| *times == 1),
                    "seed {seed}, round {round}: a message arrived twice"
                );
                for (from, payload) in due.iter().filter(|(from, _)| *from != at) {
                    let text = String::from_utf8_lossy(&payload[..12]);
                    assert!(
                        got.contains_key(payload),
                        "seed {seed}, round {round}: {text} of node {from} did not reach node {at}"
                    );
                }
            }
            members = numbers.into_iter().zip(open).collect();
        }
    }
}
