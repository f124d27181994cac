//! The cost of Kademlia as a swarm: a tell to a known node beside a tell on the swarm below, and lookups
//! among 100 nodes.
//!
//! `cargo bench -p p2p-swarms --bench kad [-- NAME…]`. All nodes are in one thread. Tells of both sides
//! alternate in one run of many short rounds. A figure is the median of the rounds; `fastest_ratio` is that
//! of the fastest round of each side, which other processes disturb least.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]

use std::time::{Duration, Instant};

use p2p::{Addr, AskSwarm, Packet, PeerId, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{
    Identity, KademliaConfig, KademliaSwarm, KeyAddr, MbappSwarm, MemoryRealm, P2pkeSwarm, SwarmExt as _,
    UdpSwarm,
};

const ROUNDS: usize = 2001;
/// Messages of a round, told together and then read.
const BURST: usize = 32;

type Sealed = MbappSwarm<KeyAddr<std::net::SocketAddr>, P2pkeSwarm<std::net::SocketAddr, UdpSwarm>>;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn sealed(seed: u8) -> Sealed {
    let udp = UdpSwarm::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    udp.p2pke(&key(seed)).expect("a node").mbapp(64 << 10)
}

/// Returns the time of telling alone, and of the whole round, per message.
async fn round<A: Addr>(from: &impl Swarm<A>, to: &impl Swarm<A>, addr: &A) -> [f64; 2] {
    let packets: Vec<Packet> = (0..BURST).map(|_| from.packet(&[7; 64])).collect();
    let start = Instant::now();
    for packet in packets {
        from.tell(addr, packet).await.expect("it fits");
    }
    let told = start.elapsed();
    let (mut received, mut messages) = (0, Vec::new());
    while received < BURST {
        received += to.receive_batch(&mut messages, BURST).await.expect("open");
    }
    [told, start.elapsed()].map(|time| time.as_secs_f64() * 1e9 / BURST as f64)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn tells() {
    let [a, b] = [1, 2].map(sealed);
    let [c, d] =
        [3, 4].map(|seed| KademliaSwarm::new(sealed(seed), Identity::Key(&key(seed))).expect("a node"));
    c.join(&d.inner().local_addrs())
        .expect("room")
        .finish()
        .await
        .expect("open");
    let (below, above) = (b.local_addrs().remove(0), d.id());
    let mut figures: [Vec<[f64; 2]>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        figures[0].push(round(&c, &d, &above).await);
        figures[1].push(round(&a, &b, &below).await);
    }
    for (at, name) in ["kad_tell", "kad_tell_and_receive"].into_iter().enumerate() {
        let side = |side: usize| figures[side].iter().map(|figure| figure[at]);
        let best = |of: usize| side(of).fold(f64::MAX, f64::min);
        let [ours, peer] = [0, 1].map(|of| median(side(of).collect()));
        println!(
            "name={name} ours={ours:.0} peer={peer:.0} ratio={:.3} unit=ns fastest_ratio={:.3}",
            peer / ours,
            best(1) / best(0)
        );
    }
}

fn id(number: usize) -> PeerId {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (number as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.rotate_left(8 * at as u32))
            .to_be_bytes()[0];
    }
    PeerId::new(bytes)
}

async fn times<T>(count: usize, mut call: impl AsyncFnMut(usize) -> T) -> f64 {
    let mut figures = Vec::with_capacity(count);
    for at in 0..count {
        let start = Instant::now();
        call(at).await;
        figures.push(start.elapsed().as_secs_f64() * 1e3);
    }
    median(figures)
}

async fn lookups<A: Addr, S: AskSwarm<A>>(medium: &str, nodes: Vec<KademliaSwarm<A, S>>) {
    let size = nodes.len();
    let first = nodes[0].inner().local_addrs();
    for node in &nodes[1..] {
        node.join(&first).expect("room").finish().await.expect("open");
    }
    let keys: Vec<PeerId> = (0..50).map(|at| id(1_000_000 + at)).collect();
    for (node, key) in nodes.iter().zip(&keys) {
        let putting = node.put(*key, &[1; 100], Duration::from_hours(1));
        putting.expect("room").finish().await.expect("open");
    }
    let found = times(500, async |at| {
        let finding = nodes[at % size].find_node(id(2_000_000 + at)).expect("room");
        assert_eq!(finding.finish().await.expect("open").len(), 20);
    })
    .await;
    println!("name=kad_find_node_100_{medium} value={found:.3} unit=ms");
    let got = times(500, async |at| {
        let getting = nodes[(at + 7) % size].get(keys[at % keys.len()]).expect("room");
        assert!(getting.finish().await.expect("open").is_some());
    })
    .await;
    println!("name=kad_get_100_{medium} value={got:.3} unit=ms");
}

fn config() -> KademliaConfig {
    KademliaConfig::default().validator(|_: &PeerId, _: &[u8]| true)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    if wanted("tell") {
        tells().await;
    }
    if wanted("memory") {
        let realm = MemoryRealm::default();
        let node = |at| KademliaSwarm::with_config(realm.open(), Identity::Unproven(id(at)), config());
        let nodes = (0..100).map(node).collect::<Result<_, _>>().expect("nodes");
        lookups("memory", nodes).await;
    }
    if wanted("udp") {
        let node = |seed| KademliaSwarm::with_config(sealed(seed), Identity::Key(&key(seed)), config());
        let nodes = (0..100).map(node).collect::<Result<_, _>>().expect("nodes");
        lookups("udp_p2pke_mbapp", nodes).await;
    }
}
