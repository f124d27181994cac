//! Nodes of rust-libp2p: each a swarm in a task of its own, which receives queries over a channel.

use std::collections::HashMap;
use std::iter;
use std::time::Duration;

use futures_util::StreamExt as _;
use libp2p::core::transport::{MemoryTransport, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, Event, GetRecordOk, Mode, QueryId, QueryResult, Quorum, Record, RecordKey};
use libp2p::swarm::{Config, SwarmEvent};
use libp2p::{Multiaddr, Swarm, plaintext, yamux};
use tokio::sync::{mpsc, oneshot};

use super::{NODES, RECORDS, bytes};

/// A query to a node, with the channel for the number of results.
enum Question {
    Closest([u8; 32]),
    Put([u8; 32]),
    Get([u8; 32]),
}

pub(super) struct Node(mpsc::Sender<(Question, oneshot::Sender<usize>)>);

impl Node {
    async fn ask(&self, question: Question) -> usize {
        let (sender, answer) = oneshot::channel();
        assert!(self.0.send((question, sender)).await.is_ok(), "it runs");
        answer.await.expect("it runs")
    }

    /// Returns how many nodes were found.
    pub(super) async fn closest(&self, key: [u8; 32]) -> usize {
        self.ask(Question::Closest(key)).await
    }

    /// Returns whether the record was found.
    pub(super) async fn get(&self, key: [u8; 32]) -> bool {
        self.ask(Question::Get(key)).await > 0
    }
}

pub(super) async fn nodes() -> Vec<Node> {
    let mut swarms: Vec<_> = (0..NODES as u64).map(swarm).collect();
    let known: Vec<_> = iter::zip(&swarms, 0..)
        .map(|(swarm, number)| (*swarm.local_peer_id(), address(number)))
        .collect();
    // All nodes know all addresses, which replaces the identify protocol: their routing tables are the best
    // possible.
    for (swarm, (own, own_address)) in iter::zip(&mut swarms, &known) {
        swarm.listen_on(own_address.clone()).expect("free");
        for (peer, address) in known.iter().filter(|(peer, _)| peer != own) {
            swarm.behaviour_mut().add_address(peer, address.clone());
        }
    }
    let nodes: Vec<_> = swarms
        .into_iter()
        .map(|swarm| {
            let (sender, questions) = mpsc::channel(1);
            tokio::spawn(run(swarm, questions));
            Node(sender)
        })
        .collect();
    for (node, record) in iter::zip(&nodes, 0..RECORDS as u64) {
        assert_eq!(node.ask(Question::Put(bytes(1_000_000 + record))).await, 1);
    }
    nodes
}

fn address(number: u64) -> Multiaddr {
    format!("/memory/{}", 1000 + number).parse().expect("an address")
}

fn swarm(number: u64) -> Swarm<kad::Behaviour<MemoryStore>> {
    let key = Keypair::ed25519_from_bytes(bytes(number)).expect("32 bytes");
    let id = key.public().to_peer_id();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(plaintext::Config::new(&key))
        .multiplex(yamux::Config::default())
        .boxed();
    let mut behaviour = kad::Behaviour::new(id, MemoryStore::new(id));
    behaviour.set_mode(Some(Mode::Server));
    let config = Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_mins(10));
    Swarm::new(transport, behaviour, id, config)
}

async fn run(
    mut swarm: Swarm<kad::Behaviour<MemoryStore>>,
    mut questions: mpsc::Receiver<(Question, oneshot::Sender<usize>)>,
) {
    let mut waiting: HashMap<QueryId, oneshot::Sender<usize>> = HashMap::new();
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some((question, asker)) = question else { return };
                let kad = swarm.behaviour_mut();
                let query = match question {
                    Question::Closest(key) => kad.get_closest_peers(key.to_vec()),
                    Question::Put(key) => {
                        let record = Record::new(RecordKey::new(&key), vec![1; 100]);
                        kad.put_record(record, Quorum::One).expect("room")
                    }
                    Question::Get(key) => kad.get_record(RecordKey::new(&key)),
                };
                waiting.insert(query, asker);
            }
            event = swarm.select_next_some() => {
                let SwarmEvent::Behaviour(Event::OutboundQueryProgressed { id, result, step, .. }) = event else {
                    continue;
                };
                let results = match result {
                    QueryResult::GetClosestPeers(Ok(found)) => found.peers.len(),
                    QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(_))) | QueryResult::PutRecord(Ok(_)) => 1,
                    _ if step.last => 0,
                    _ => continue,
                };
                // The first record is the result; the query would look for others.
                if let Some(asker) = waiting.remove(&id) {
                    let _ = asker.send(results);
                }
                if !step.last && let Some(mut query) = swarm.behaviour_mut().query_mut(&id) {
                    query.finish();
                }
            }
        }
    }
}
