#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! The UDP base beside its peers: quinn-udp used directly for batches, tokio's socket for single messages.
//!
//! `cargo bench -p p2p-swarms --bench udp [-- NAME…]`. Each line has the median of the rounds. Rounds of both
//! sides alternate, and the ratio is the median of each pair's ratio. Rates are messages per second.

use std::future::Future;
use std::hint::black_box;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use p2p::{Headroom, Packet, Swarm};
use p2p_swarms::{UdpConfig, UdpSwarm};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(250);
const SIZE: usize = 1200;
/// Messages of 1200 bytes that fit into one segmented send.
const FULL: usize = 54;
const TASKS: usize = 64;
const RECEIVE_BUFFER: usize = 2 << 20;

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let benches: [Bench; 8] = [
        ("udp_batch", ours_batch, peer_batch),
        ("udp_batch_send", ours_send, peer_batch),
        ("udp_batch_receive", ours_receive, peer_batch),
        ("udp_single", ours_single::<64>, peer_single::<64>),
        ("udp_single_1200", ours_single::<1200>, peer_single::<1200>),
        ("udp_roundtrip", ours_roundtrip, peer_roundtrip),
        ("udp_64_tasks", ours_tasks::<1>, peer_tasks::<1>),
        ("udp_64_tasks_2_workers", ours_tasks::<2>, peer_tasks::<2>),
    ];
    for (name, ours, peer) in benches {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            compare(name, ours, peer);
        }
    }
}

/// A name, and one round of each side.
type Bench = (&'static str, fn() -> f64, fn() -> f64);

fn compare(name: &str, ours: fn() -> f64, peer: fn() -> f64) {
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|round| {
            if round % 2 == 0 {
                let ours = ours();
                (ours, peer())
            } else {
                let peer = peer();
                (ours(), peer)
            }
        })
        .collect();
    let mut median = |key: fn(&(f64, f64)) -> f64| {
        rounds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&rounds[ROUNDS / 2])
    };
    let (ours, peer) = (median(|round| round.0), median(|round| round.1));
    let ratio = median(|round| round.0 / round.1);
    println!("name={name} ours={ours:.0} peer={peer:.0} ratio={ratio:.3}");
}

fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn swarm() -> UdpSwarm {
    let mut config = UdpConfig::default();
    config.receive_buffer = RECEIVE_BUFFER;
    UdpSwarm::with_config(any(), config).expect("a free port")
}

fn socket() -> std::net::UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BUFFER).expect("a size");
    socket.bind(&any().into()).expect("a free port");
    socket.set_nonblocking(true).expect("a mode");
    socket.into()
}

/// The count of a round, and its end.
#[derive(Default)]
struct Clock {
    count: AtomicU64,
    over: AtomicBool,
}

impl Clock {
    fn runs(&self) -> bool {
        !self.over.load(Relaxed)
    }

    fn add(&self, count: usize) {
        self.count.fetch_add(count as u64, Relaxed);
    }

    /// Runs `one` and `other` on a thread each; returns their count as a rate. `end` stops the thread that
    /// still waits when the time is up.
    fn rate(&self, one: impl FnOnce() + Send, other: impl FnOnce() + Send, end: impl FnOnce()) -> f64 {
        std::thread::scope(|scope| {
            scope.spawn(one);
            scope.spawn(other);
            std::thread::sleep(ROUND / 5);
            let (from, start) = (self.count.load(Relaxed), Instant::now());
            std::thread::sleep(ROUND);
            let rate = (self.count.load(Relaxed) - from) as f64 / start.elapsed().as_secs_f64();
            self.over.store(true, Relaxed);
            end();
            rate
        })
    }
}

/// Batches of 1200 bytes from one thread to another through swarms, each on a runtime of its own.
fn ours_batch() -> f64 {
    let (sending, receiving) = (one_thread(), one_thread());
    let a = sending.block_on(async { swarm() });
    let b = receiving.block_on(async { swarm() });
    let (clock, to) = (Clock::default(), b.local_addrs()[0]);
    clock.rate(
        || sending.block_on(tell_batches(&a, to, &clock)),
        || receiving.block_on(count_batches(&b, &clock)),
        || one_thread().block_on(b.close()),
    )
}

/// This crate sends, the peer reads: the cost of sending.
fn ours_send() -> f64 {
    let sending = one_thread();
    let (a, to) = (sending.block_on(async { swarm() }), socket());
    let (clock, destination) = (Clock::default(), to.local_addr().expect("an address"));
    clock.rate(
        || sending.block_on(tell_batches(&a, destination, &clock)),
        || read_directly(&to, |count| clock.add(count)),
        || end_reading(destination),
    )
}

/// The peer sends, this crate reads: the cost of receiving.
fn ours_receive() -> f64 {
    let receiving = one_thread();
    let (from, b) = (socket(), receiving.block_on(async { swarm() }));
    let (clock, to) = (Clock::default(), b.local_addrs()[0]);
    clock.rate(
        || send_directly(from, to, &clock),
        || receiving.block_on(count_batches(&b, &clock)),
        || one_thread().block_on(b.close()),
    )
}

/// Tells full batches, each message in a packet of its own.
async fn tell_batches(a: &UdpSwarm, to: SocketAddr, clock: &Clock) {
    let (payload, mut batch) = ([7; SIZE], Vec::with_capacity(FULL));
    while clock.runs() {
        batch.extend((0..FULL).map(|_| (to, Packet::new(Headroom::default(), &payload))));
        a.tell_batch(&mut batch).await.expect("room");
    }
}

async fn count_batches(b: &UdpSwarm, clock: &Clock) {
    let mut out = Vec::with_capacity(1024);
    while let Ok(received) = b.receive_batch(&mut out, 1024).await {
        clock.add(received);
        black_box(&out);
        out.clear();
    }
}

fn peer_batch() -> f64 {
    let (from, to) = (socket(), socket());
    let (clock, destination) = (Clock::default(), to.local_addr().expect("an address"));
    clock.rate(
        || send_directly(from, destination, &clock),
        || read_directly(&to, |count| clock.add(count)),
        || end_reading(destination),
    )
}

/// Sends full batches from one buffer as fast as possible.
fn send_directly(from: std::net::UdpSocket, destination: SocketAddr, clock: &Clock) {
    one_thread().block_on(async {
        let state = UdpSocketState::new((&from).into()).expect("a socket");
        let io = UdpSocket::from_std(from).expect("a socket");
        let contents = vec![7; SIZE * FULL];
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: &contents,
            segment_size: Some(SIZE),
            src_ip: None,
        };
        while clock.runs() {
            io.writable().await.expect("a socket");
            let _ = io.try_io(Interest::WRITABLE, || state.try_send((&io).into(), &transmit));
        }
    });
}

/// Reads `socket` as fast as possible, until a datagram of one byte ends it.
fn read_directly(socket: &std::net::UdpSocket, count: impl Fn(usize)) {
    const BUFFERS: usize = 4;
    one_thread().block_on(async {
        let state = UdpSocketState::new(socket.into()).expect("a socket");
        let io = UdpSocket::from_std(socket.try_clone().expect("a socket")).expect("a socket");
        let mut buffers = vec![vec![0; 1 << 16]; BUFFERS];
        let mut metas = [RecvMeta::default(); BUFFERS];
        loop {
            io.readable().await.expect("a socket");
            let mut slices: [IoSliceMut<'_>; BUFFERS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            for (slice, buffer) in slices.iter_mut().zip(&mut buffers) {
                *slice = IoSliceMut::new(buffer);
            }
            let read = || state.recv((&io).into(), &mut slices, &mut metas);
            let Ok(read) = io.try_io(Interest::READABLE, read) else {
                continue;
            };
            for meta in &metas[..read] {
                if meta.len == 1 {
                    return;
                }
                count(meta.len.div_ceil(meta.stride.max(1)));
            }
        }
    });
}

/// Sends the byte that ends [`read_directly`]; several times, because a full socket drops it.
fn end_reading(to: SocketAddr) {
    let socket = std::net::UdpSocket::bind(any()).expect("a free port");
    for _ in 0..20 {
        let _ = socket.send_to(&[0], to);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Messages told one after the other, with a sink that reads in batches.
fn singles<F: Future<Output = ()>>(sender: impl FnOnce(SocketAddr, Arc<Clock>) -> F + Send) -> f64 {
    let to = socket();
    let (clock, destination) = (Arc::new(Clock::default()), to.local_addr().expect("an address"));
    clock.rate(
        || one_thread().block_on(sender(destination, clock.clone())),
        || read_directly(&to, drop),
        || end_reading(destination),
    )
}

fn ours_single<const LEN: usize>() -> f64 {
    singles(async |to, clock| {
        let a = swarm();
        while clock.runs() {
            a.tell(&to, Packet::from(&[7; LEN])).await.expect("room");
            clock.add(1);
        }
    })
}

fn peer_single<const LEN: usize>() -> f64 {
    singles(async |to, clock| {
        let a = UdpSocket::from_std(socket()).expect("a socket");
        while clock.runs() {
            a.send_to(&[7; LEN], to).await.expect("room");
            clock.add(1);
        }
    })
}

/// Round trips of 64 bytes between two tasks of one thread.
fn ours_roundtrip() -> f64 {
    one_thread().block_on(async {
        let (a, b) = (swarm(), Arc::new(swarm()));
        let to = b.local_addrs()[0];
        let echo = tokio::spawn(async move {
            while let Ok(message) = b.receive().await {
                b.tell(&message.src, message.payload).await.expect("room");
            }
        });
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                a.tell(&to, Packet::from(&[7; 64])).await.expect("room");
                black_box(a.receive().await.expect("an echo"));
            }
            count += 100;
        }
        echo.abort();
        f64::from(count) / start.elapsed().as_secs_f64()
    })
}

fn peer_roundtrip() -> f64 {
    one_thread().block_on(async {
        let bind = || UdpSocket::from_std(socket()).expect("a socket");
        let (a, b) = (bind(), bind());
        let to = b.local_addr().expect("an address");
        let echo = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((len, src)) = b.recv_from(&mut buffer).await {
                b.send_to(&buffer[..len], src).await.expect("room");
            }
        });
        let (start, mut count) = (Instant::now(), 0_u32);
        let mut buffer = [0; 2048];
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                a.send_to(&[7; 64], to).await.expect("room");
                black_box(a.recv_from(&mut buffer).await.expect("an echo"));
            }
            count += 100;
        }
        echo.abort();
        f64::from(count) / start.elapsed().as_secs_f64()
    })
}

/// 64 telling tasks, on a runtime of one thread or of two workers, and a sink on a thread of its own, which
/// counts arrivals.
fn tasks<S, F>(
    workers: usize,
    bind: impl Fn() -> S,
    sender: impl Fn(Arc<S>, SocketAddr, Arc<Clock>) -> F + Sync,
) -> f64
where
    S: Send + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = if workers == 1 {
        one_thread()
    } else {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let a = Arc::new(runtime.block_on(async { bind() }));
    let to = socket();
    let (clock, destination) = (Arc::new(Clock::default()), to.local_addr().expect("an address"));
    let send = || {
        runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| tokio::spawn(sender(a.clone(), destination, clock.clone())))
                .collect();
            for task in tasks {
                task.await.expect("a task that ends");
            }
        });
    };
    clock.rate(
        send,
        || read_directly(&to, |count| clock.add(count)),
        || end_reading(destination),
    )
}

fn ours_tasks<const WORKERS: usize>() -> f64 {
    tasks(WORKERS, swarm, async |a, to, clock| {
        while clock.runs() {
            a.tell(&to, Packet::from(&[7; 64])).await.expect("room");
        }
    })
}

fn peer_tasks<const WORKERS: usize>() -> f64 {
    let bind = || UdpSocket::from_std(socket()).expect("a socket");
    tasks(WORKERS, bind, async |a, to, clock| {
        while clock.runs() {
            a.send_to(&[7; 64], to).await.expect("room");
        }
    })
}
