//! Whole stacks on memory, in virtual time, repeat their run from a seed: every byte, at the same time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Filter, Packet, PeerId, Result, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::env::Env;
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::{Faults, Identity, KademliaConfig, LinkFaults, MemoryAddr, MemoryRealm, SwarmExt as _};
use tokio::time::Instant;

/// A packet that left a node: when, from where, to where, and a hash of it.
type Sent = (Duration, MemoryAddr, MemoryAddr, u64);

/// The packets of all nodes.
#[derive(Clone, Debug, Default)]
struct Trace(Arc<Mutex<Vec<Sent>>>);

/// Records the packets of one node.
struct Recorder {
    trace: Trace,
    from: MemoryAddr,
    began: Instant,
}

impl Filter<MemoryAddr> for Recorder {
    const LAYER: &'static str = "recorder";

    fn outgoing(&self, to: &MemoryAddr, packet: &mut Packet) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        packet.hash(&mut hasher);
        let sent = (self.began.elapsed(), self.from, *to, hasher.finish());
        self.trace
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sent);
        Ok(())
    }

    fn incoming(&self, _: &MemoryAddr, _: &mut Packet) -> Result<(), DropReason> {
        Ok(())
    }
}

/// Runs a network of `count` nodes from a seed: all nodes join, some put and get records, tell and ask each other by id.
async fn run(seed: u64, count: usize) -> Result<Trace> {
    let guard = Env::seeded(seed).enter();
    let (trace, realm) = (Trace::default(), MemoryRealm::default());
    let faults = Faults::new(FaultyConfig {
        seed,
        link: LinkFaults {
            loss: 0.05,
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(10),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    })?;
    let mut nodes = Vec::new();
    for number in 0..count {
        let key = PrivateKey::ed25519(&[number as u8; 32]);
        let base = realm.open();
        let recorder = Recorder {
            trace: trace.clone(),
            from: base.local_addr(),
            began: Instant::now(),
        };
        let inner = base
            .faulty(faults.clone())
            .filter(recorder)
            .p2pke(&key)?
            .mbapp(64 << 10);
        let config = KademliaConfig::default().validator(|_: &PeerId, _: &[u8]| true);
        nodes.push(Arc::new(p2p_swarms::KademliaSwarm::with_config(
            inner,
            Identity::Key(&key),
            config,
        )?));
    }
    drop(guard);
    let bootstrap = nodes[0].inner().local_addr()?;
    let joins = nodes[1..].iter().map(|node| {
        let (node, bootstrap) = (node.clone(), bootstrap.clone());
        tokio::spawn(async move { node.join(&[bootstrap])?.finish().await })
    });
    for join in joins.collect::<Vec<_>>() {
        assert!(join.await.expect("no panic")? > 0, "a node found no other");
    }
    for number in 0..count / 4 {
        let (one, other) = (&nodes[number], &nodes[count - 1 - number]);
        let key = PeerId::new([number as u8; 32]);
        assert!(
            one.put(key, b"a value", Duration::from_hours(1))?
                .finish()
                .await?
                > 0
        );
        assert!(other.get(key)?.finish().await?.is_some());
        one.tell(&other.id(), one.packet(b"a message")).await?;
        let to = one.id();
        let ask = other.ask(&to, other.packet(b"a request"));
        let answer = async { one.receive_ask().await?.respond(b"an answer".into()).await };
        let (answer, asked) = tokio::join!(biased; ask, answer);
        assert_eq!(answer?, b"an answer");
        asked?;
    }
    Ok(trace)
}

/// Runs a network on a runtime of its own, in virtual time.
fn trace(seed: u64, count: usize) -> Vec<Sent> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let trace = runtime.block_on(run(seed, count)).expect("the network works");
    let sent = trace.0.lock().unwrap_or_else(PoisonError::into_inner);
    sent.clone()
}

#[test]
fn a_stack_of_a_hundred_nodes_sends_the_same_bytes_at_the_same_times_from_the_same_seed() {
    // At the same time, each in a thread of its own.
    let run = || std::thread::spawn(|| trace(1, 100));
    let (first, second) = (run(), run());
    let (first, second) = (first.join().expect("no panic"), second.join().expect("no panic"));
    assert!(first.len() > 1000, "{} packets", first.len());
    let differs = first
        .iter()
        .zip(&second)
        .position(|(first, second)| first != second);
    assert_eq!(
        differs.map(|at| (at, first[at], second[at])),
        None,
        "of {} and {} packets",
        first.len(),
        second.len()
    );
    assert_eq!(first.len(), second.len());
}

#[test]
fn another_seed_is_another_run() {
    assert_ne!(trace(2, 10), trace(3, 10));
}
