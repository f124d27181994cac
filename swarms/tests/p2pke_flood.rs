//! A million hellos from spoofed addresses: messages of two peers arrive, no session ends, work is bounded,
//! and memory stays within its limits, as a counting allocator shows.
//!
//! The file has one test, so that no other code allocates meanwhile.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use cap::Cap;
use p2p::{CounterSnapshot, Counters, DropReason, Message, Packet, Result, Swarm, pass_through};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::{Config, Endpoint, Local};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm, P2pkeConfig, P2pkeSwarm};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

type A = MemoryAddr;

/// Messages between the two peers.
const SAID: u64 = 1000;
/// Hellos between two messages.
const BETWEEN: u64 = 1000;
/// One in this many hellos is correctly signed, by a key of its own.
const SIGNED_EACH: u64 = 2000;
const HALF_OPEN: usize = 64;
const HELLO_RATE: u32 = 1000;
/// Memory that the flood may add: half-open channels, packets in flight, and spare capacity of tables.
const MEMORY: usize = HALF_OPEN * 4096 + (256 << 10);

/// A node's medium, into which hellos are injected, each with a different source.
struct Flooded {
    inner: MemorySwarm,
    hellos: Arc<Hellos>,
    /// Hellos that arrive before the next message.
    due: AtomicUsize,
    thrown: AtomicU64,
}

/// Hellos that are correctly signed, each by a different key. Others are derived from them by changing a
/// byte.
struct Hellos(Vec<Vec<u8>>);

impl Hellos {
    fn new(count: u64, rng: &mut StdRng) -> Self {
        let now = Duration::from_secs(1_700_000_000);
        let hello = |number: u64| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&number.to_be_bytes());
            let local = Local::new(&PrivateKey::ed25519(&seed), Config::default()).expect("a good key");
            let mut endpoint = Endpoint::<u8>::new(Arc::new(local), rng);
            let begun = endpoint.connect(now, &0, None, rng);
            assert!(begun.is_ok_and(|path| path.is_none()));
            endpoint.poll_transmit().expect("a hello").1.to_vec()
        };
        Self((0..count).map(hello).collect())
    }

    fn nth(&self, number: u64) -> Packet {
        let hello = &self.0[(number / SIGNED_EACH) as usize % self.0.len()];
        let mut packet = Packet::from(hello.as_slice());
        if !number.is_multiple_of(SIGNED_EACH) {
            // A byte of the ephemeral key, the time stamp, the key or the signature.
            let at = 4 + number as usize % (packet.len() - 6);
            packet[at] ^= 1 << (number % 8);
        }
        packet
    }
}

impl Swarm<A> for Flooded {
    pass_through!(inner: tell, tell_batch, mtu, local_addrs, parse_addr, close, headroom, visit_counters);

    async fn receive(&self) -> Result<Message<A>> {
        let mut out = Vec::new();
        self.receive_batch(&mut out, 1).await?;
        Ok(out.remove(0))
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        let count = self.due.load(Relaxed).min(max);
        if count == 0 {
            return self.inner.receive_batch(out, max).await;
        }
        tokio::task::consume_budget().await;
        self.due.fetch_sub(count, Relaxed);
        for _ in 0..count {
            let number = self.thrown.fetch_add(1, Relaxed);
            out.push(Message {
                src: MemoryAddr::new(-1 - number.cast_signed()),
                dst: self.inner.local_addr(),
                payload: self.hellos.nth(number),
            });
        }
        Ok(count)
    }
}

fn counts(node: &P2pkeSwarm<A, Flooded>) -> [CounterSnapshot; 2] {
    let mut all = Vec::new();
    node.visit_counters(&mut |counters: &Counters| all.push(counters.snapshot()));
    [all[0], all[1]]
}

#[test]
fn a_million_spoofed_hellos_do_not_affect_two_peers_with_a_session() {
    const SEED: u64 = 1;
    println!("seed {SEED}");
    let hellos = Arc::new(Hellos::new(
        SAID * BETWEEN / SIGNED_EACH,
        &mut StdRng::seed_from_u64(SEED),
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let realm = MemoryRealm::default();
        let mut config = P2pkeConfig::default();
        config.engine.half_open = HALF_OPEN;
        config.engine.hello_rate = HELLO_RATE;
        let [a, b] = [1, 2].map(|seed| {
            let flooded = Flooded {
                inner: realm.open(),
                hellos: hellos.clone(),
                due: AtomicUsize::new(0),
                thrown: AtomicU64::new(0),
            };
            P2pkeSwarm::with_config(flooded, &PrivateKey::ed25519(&[seed; 32]), config.clone())
                .expect("a node")
        });
        let (to_a, to_b) = (a.local_addrs().remove(0), b.local_addrs().remove(0));
        let say = async |number: u64| {
            a.tell(&to_b, a.packet(&number.to_be_bytes()))
                .await
                .expect("a session");
            let message = b.receive().await.expect("open");
            assert_eq!(
                (&message.src, &*message.payload),
                (&to_a, &number.to_be_bytes()[..])
            );
        };
        for number in 0..8 {
            say(number).await;
        }
        let (before, peak_before) = (ALLOCATOR.allocated(), ALLOCATOR.max_allocated());
        let [_, handshakes_before] = counts(&b);
        for number in 0..SAID {
            b.inner().due.fetch_add(BETWEEN as usize, Relaxed);
            say(number).await;
            // The reply passes through the same flood.
            let back = b.tell(&to_a, b.packet(b"heard")).await;
            assert!(back.is_ok() && a.receive().await.is_ok_and(|message| message.payload == b"heard"));
            sleep(Duration::from_millis(1)).await;
        }
        let peak = ALLOCATOR.max_allocated().max(peak_before) - before;
        let flood = SAID * BETWEEN;
        assert_eq!(b.inner().thrown.load(Relaxed), flood);
        let [messages, handshakes] = counts(&b);
        assert_eq!((messages.delivered, messages.dropped_total()), (SAID + 8, 0));
        assert_eq!((a.sessions(), b.sessions()), (1, 1));
        let answered = handshakes.delivered - handshakes_before.delivered;
        let dropped = handshakes.dropped_total() - handshakes_before.dropped_total();
        assert_eq!(answered + dropped, flood, "each is accounted for");
        // The number of verifications: the permitted burst, and that of one second. Some keys are refused for
        // their format.
        let verified = answered + handshakes.dropped(DropReason::Unauthenticated);
        assert!(verified <= 2 * u64::from(HELLO_RATE) * 11 / 10, "{verified}");
        assert!(answered > 0, "some are correctly signed");
        let sent = handshakes.sent - handshakes_before.sent;
        assert_eq!(sent, answered, "one reply for each");
        assert!(peak < MEMORY, "{peak} bytes");
        println!("peak {peak} bytes, {verified} verified, {answered} answered");
    });
}
