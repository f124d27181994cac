//! Kademlia among 100 nodes of one process: lookups of the nodes closest to a key, and of a record, beside
//! rust-libp2p, over the memory transport of each.
//!
//! `cargo bench -p p2p-swarms-bench-libp2p --bench lookups [-- rounds=N]`. All nodes of both are in one thread, and
//! the two alternate. A figure is the median of all lookups in milliseconds, and a ratio the median of the
//! rounds' ratios.

use std::iter;
use std::time::{Duration, Instant};

use p2p::PeerId;
use p2p_swarms::{Identity, KademliaConfig, KademliaSwarm, MemoryAddr, MemoryRealm, MemorySwarm};

mod peer;

const NODES: usize = 100;
const ROUNDS: usize = 7;
/// Lookups of each kind in a round.
const LOOKUPS: usize = 100;
const RECORDS: usize = 50;

/// Returns pseudorandom bytes, the same in each run.
fn bytes(number: u64) -> [u8; 32] {
    let mut state = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let words: [[u8; 8]; 4] = std::array::from_fn(|_| {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state ^= state >> 32;
        state.to_be_bytes()
    });
    let mut bytes = [0; 32];
    bytes
        .iter_mut()
        .zip(words.concat())
        .for_each(|(to, from)| *to = from);
    bytes
}

fn key(number: u64) -> PeerId {
    PeerId::new(bytes(number))
}

type Node = KademliaSwarm<MemoryAddr, MemorySwarm>;

async fn nodes() -> Vec<Node> {
    let realm = MemoryRealm::default();
    let config = || KademliaConfig::default().validator(|_: &PeerId, _: &[u8]| true);
    let node =
        |at| KademliaSwarm::with_config(realm.open(), Identity::Unproven(key(at)), config()).expect("a node");
    let nodes: Vec<_> = (0..NODES as u64).map(node).collect();
    let first = p2p::Swarm::local_addrs(nodes[0].inner());
    for node in &nodes[1..] {
        node.join(&first).expect("room").finish().await.expect("open");
    }
    for (node, record) in iter::zip(&nodes, 0..RECORDS as u64) {
        let putting = node.put(key(1_000_000 + record), &[1; 100], Duration::from_hours(1));
        putting.expect("room").finish().await.expect("open");
    }
    nodes
}

/// Returns the time of each of `count` calls in milliseconds.
async fn times(mut call: impl AsyncFnMut(usize)) -> Vec<f64> {
    let mut figures = Vec::with_capacity(LOOKUPS);
    for at in 0..LOOKUPS {
        let start = Instant::now();
        call(at).await;
        figures.push(start.elapsed().as_secs_f64() * 1e3);
    }
    figures
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The figures of each round, of both sides.
#[derive(Default)]
struct Figures(Vec<[Vec<f64>; 2]>);

impl Figures {
    fn print(&self, name: &str) {
        let side = |side: usize| median(self.0.iter().flat_map(|round| round[side].iter().copied()));
        let ratio = median(self.0.iter().map(|[ours, peer]| {
            let [ours, peer] = [ours, peer].map(|figures| median(figures.iter().copied()));
            ours / peer
        }));
        println!(
            "name={name} ours={:.3} peer={:.3} ratio={ratio:.3} unit=ms",
            side(0),
            side(1)
        );
    }
}

/// Returns the number of rounds: that of an argument `rounds=N`, or [`ROUNDS`].
fn rounds() -> usize {
    std::env::args()
        .find_map(|arg| arg.strip_prefix("rounds=")?.parse().ok())
        .unwrap_or(ROUNDS)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (ours, peers) = (nodes().await, peer::nodes().await);
    let (mut closest, mut gets) = (Figures::default(), Figures::default());
    for round in 0..rounds() {
        let number = |at: usize| (2_000_000 + round * LOOKUPS + at) as u64;
        let own = times(async |at| {
            let finding = ours[at % NODES].find_node(key(number(at))).expect("room");
            assert_eq!(finding.finish().await.expect("open").len(), 20);
        });
        let own = own.await;
        let others = times(async |at| {
            let found = peers[at % NODES].closest(bytes(number(at))).await;
            assert_eq!(found, 20);
        });
        closest.0.push([own, others.await]);
        let record = |at: usize| 1_000_000 + (at % RECORDS) as u64;
        let own = times(async |at| {
            let getting = ours[(at + 7) % NODES].get(key(record(at))).expect("room");
            assert!(getting.finish().await.expect("open").is_some());
        });
        let own = own.await;
        let others = times(async |at| {
            assert!(peers[(at + 7) % NODES].get(bytes(record(at))).await);
        });
        gets.0.push([own, others.await]);
    }
    closest.print("kad_find_node_100");
    gets.print("kad_get_100");
}
