#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! QUIC, and asks over P2PKE, beside quinn used directly: the same streams, cipher, certificates and checks.
//!
//! `cargo bench -p p2p-swarms --bench secure [-- NAME…]`. Both ends are in one runtime, of one thread or of
//! two workers; each side counts with the better of the two. Rounds alternate; each line has the medians, and
//! the ratio is the median of each round's ratio. Rates are deliveries per second, or Gbit/s of delivered
//! data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use p2p::{Addr, AskSwarm, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{QuicSwarm, SwarmExt as _, UdpSwarm};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

mod bulk;
mod plain;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(400);
/// The start of a round is not counted: handshakes, and windows that grow.
const WARM_UP: Duration = Duration::from_millis(150);
/// Maximum length of a message that the peer reads to its end.
const LONGEST: usize = 1 << 20;
/// The weight of a byte.
const GBIT: f64 = 8e-9;

/// One round with this many workers: its deliveries per second.
type Side = fn(usize) -> f64;
/// A name, both sides, and the weight of a delivery.
type Bench = (&'static str, Side, Side, f64);

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let (only, chosen): (Vec<_>, Vec<_>) = words
        .into_iter()
        .partition(|word| word == "ours" || word == "peer");
    let benches: [Bench; 9] = [
        ("p2pke_ask", p2pke_ask::<1>, peer_ask::<1>, 1.0),
        ("p2pke_ask_64_in_flight", p2pke_ask::<64>, peer_ask::<64>, 1.0),
        ("quic_ask", quic_ask::<1>, peer_ask::<1>, 1.0),
        ("quic_ask_64_in_flight", quic_ask::<64>, peer_ask::<64>, 1.0),
        ("quic_tell_64", quic_tell::<64>, peer_tell::<64>, 1.0),
        ("quic_tell_1024", quic_tell::<1024>, peer_tell::<1024>, 1.0),
        ("quic_bulk_gbit", bulk::on_sockets, bulk::peer, GBIT),
        (
            "quic_bulk_gbit_long_datagrams",
            bulk::on_sockets,
            bulk::peer_with_long_datagrams,
            GBIT,
        ),
        // Quinn cannot run in memory: the figure is compared with quinn on UDP.
        ("quic_on_memory_bulk_gbit", bulk::on_memory, bulk::peer, GBIT),
    ];
    for (name, ours, peer, unit) in benches {
        if !chosen.is_empty() && !chosen.iter().any(|chosen| chosen == name) {
            continue;
        }
        match only.first().map(String::as_str) {
            Some("ours") => cost(name, ours, unit),
            Some(_) => cost(name, peer, unit),
            None => compare(name, ours, peer, unit),
        }
    }
}

/// Prints the rate of one side in one thread, and the processor time of a unit, which other load changes less: for
/// profilers, and for changes that are too small for rounds.
fn cost(name: &str, side: Side, unit: f64) {
    let rounds = (0..ROUNDS).map(|_| {
        let from = processor_time();
        let rate = unit * side(1);
        let used = processor_time() - from;
        (rate, used / (rate * (WARM_UP + ROUND).as_secs_f64()))
    });
    let rounds: Vec<_> = rounds.collect();
    let rate = median(rounds.iter().map(|(rate, _)| *rate));
    let cost = median(rounds.iter().map(|(_, cost)| *cost));
    println!("name={name} rate={rate:.2} processor_seconds={cost:.4}");
}

/// Returns the seconds for which this thread has run.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: f64 = stat
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    nanoseconds / 1e9
}

fn compare(name: &str, ours: Side, peer: Side, unit: f64) {
    const SIDES: usize = 4;
    let sides: [(Side, usize); SIDES] = [(ours, 1), (peer, 1), (ours, 2), (peer, 2)];
    let rounds: Vec<[f64; SIDES]> = (0..ROUNDS)
        .map(|round| {
            let mut rates = [0.0; SIDES];
            for turn in 0..SIDES {
                let at = (turn + round) % SIDES;
                let (side, workers) = sides[at];
                rates[at] = unit * side(workers);
            }
            rates
        })
        .collect();
    let of = |at: usize| median(rounds.iter().map(|round| round[at]));
    let better = |one: usize, two: usize| if of(one) >= of(two) { one } else { two };
    let (ours, peer) = (better(0, 2), better(1, 3));
    let ratio = median(rounds.iter().map(|round| round[ours] / round[peer]));
    println!(
        "name={name} ours={:.2} peer={:.2} ratio={ratio:.3} ours_1_2={:.2},{:.2} peer_1_2={:.2},{:.2}",
        of(ours),
        of(peer),
        of(0),
        of(2),
        of(1),
        of(3)
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn runtime(workers: usize) -> Runtime {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let builder = builder.worker_threads(workers).enable_all();
    builder.build().expect("a runtime")
}

/// Runs `work` in a task that counts deliveries until the round ends; returns the rate.
fn rate<F: Future<Output = ()> + Send + 'static>(
    workers: usize,
    work: impl FnOnce(Arc<AtomicU64>) -> F,
) -> f64 {
    let runtime = runtime(workers);
    let count = Arc::new(AtomicU64::new(0));
    let _work = runtime.spawn(work(count.clone()));
    let rate = runtime.block_on(async {
        tokio::time::sleep(WARM_UP).await;
        let (from, start) = (count.load(Relaxed), Instant::now());
        tokio::time::sleep(ROUND).await;
        (count.load(Relaxed) - from) as f64 / start.elapsed().as_secs_f64()
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    rate
}

/// Runs each of `futures` in a task until the round ends.
async fn all<F: Future<Output = ()> + Send + 'static>(futures: impl Iterator<Item = F>) {
    let mut tasks: JoinSet<()> = futures.collect();
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn on_udp(seed: u8) -> QuicSwarm<SocketAddr> {
    QuicSwarm::bind_udp(loopback(), &key(seed)).expect("a free port")
}

fn quic_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    rate(workers, |count| async {
        asks(on_udp(1), on_udp(2), IN_FLIGHT, count).await;
    })
}

/// The stack `udp/p2pke/mbapp`.
fn p2pke_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    let node = |seed| {
        let udp = UdpSwarm::bind(loopback()).expect("a free port");
        udp.p2pke(&key(seed)).expect("a good key").mbapp(64 << 10)
    };
    rate(workers, |count| async move {
        asks(node(1), node(2), IN_FLIGHT, count).await;
    })
}

async fn asks<A: Addr, S: AskSwarm<A>>(a: S, b: S, in_flight: usize, count: Arc<AtomicU64>) {
    let (a, to) = (Arc::new(a), b.local_addrs().remove(0));
    tokio::spawn(async move {
        while let Ok(request) = b.receive_ask().await {
            // The asker exists until the round ends.
            let _ = request.responder.respond(request.message.payload).await;
        }
    });
    all((0..in_flight).map(|_| {
        let (a, to, count) = (a.clone(), to.clone(), count.clone());
        async move {
            while let Ok(response) = a.ask(&to, a.packet(&[7; 64])).await {
                assert_eq!(response.len(), 64);
                count.fetch_add(1, Relaxed);
            }
        }
    }))
    .await;
}

fn peer_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    rate(workers, |count| async move {
        let (a, b) = plain::connected().await;
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = b.accept_bi().await {
                let request = recv.read_to_end(LONGEST).await.unwrap_or_default();
                // The asker exists until the round ends.
                let _ = send.write_all(&request).await;
                let _ = send.finish();
            }
        });
        all((0..IN_FLIGHT).map(|_| {
            let (a, count) = (a.clone(), count.clone());
            async move {
                while let Some(response) = plain_ask(&a).await {
                    assert_eq!(response.len(), 64);
                    count.fetch_add(1, Relaxed);
                }
            }
        }))
        .await;
    })
}

async fn plain_ask(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(&[7; 64]).await.ok()?;
    send.finish().ok()?;
    recv.read_to_end(LONGEST).await.ok()
}

fn quic_tell<const LEN: usize>(workers: usize) -> f64 {
    rate(workers, |count| async {
        tell::<LEN, _, _>(on_udp(1), on_udp(2), count).await;
    })
}

async fn tell<const LEN: usize, A: Addr, S: Swarm<A>>(a: S, b: S, count: Arc<AtomicU64>) {
    let to = b.local_addrs().remove(0);
    tokio::spawn(async move {
        let payload = vec![7; LEN];
        while a.tell(&to, a.packet(&payload)).await.is_ok() {}
    });
    while let Ok(message) = b.receive().await {
        assert_eq!(message.payload.len(), LEN);
        count.fetch_add(1, Relaxed);
    }
}

fn peer_tell<const LEN: usize>(workers: usize) -> f64 {
    rate(workers, |count| async move {
        let (a, b) = plain::connected().await;
        tokio::spawn(async move {
            let payload = vec![7; LEN];
            while let Ok(mut send) = a.open_uni().await {
                // The receiver exists until the round ends.
                let _ = send.write_all(&payload).await;
                let _ = send.finish();
            }
        });
        while let Ok(mut recv) = b.accept_uni().await {
            let Ok(message) = recv.read_to_end(LONGEST).await else {
                return;
            };
            assert_eq!(message.len(), LEN);
            count.fetch_add(1, Relaxed);
        }
    })
}
