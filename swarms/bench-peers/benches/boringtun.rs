#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! P2PKE over UDP beside boringtun, and long messages over P2PKE beside P2PKE alone.
//!
//! `cargo bench -p p2p-swarms-bench-peers --bench boringtun [-- NAME…] [rounds=N]`. A sender and a receiver have a thread
//! each; the figure is the number of received messages per second. Each line is the median of the rounds.
//! Rounds of both sides alternate, and the ratio is the median of each pair's ratio.
//!
//! - `p2pke_batch`: messages of 1200 bytes in batches, beside boringtun sealing into one segmented send of
//!   quinn-udp and reading with it.
//! - `p2pke_single`: messages of 1200 bytes one at a time, beside boringtun with a call of tokio's socket for
//!   each packet.
//! - `frag_over_p2pke`: bytes in messages of 64 KiB, beside bytes in batches as above.

use std::future::Future;
use std::hint::black_box;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use p2p::{Addr, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{SwarmExt as _, UdpConfig, UdpSwarm};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
const SIZE: usize = 1200;
/// Number of bytes that boringtun adds to a message.
const OVERHEAD: usize = 32;
/// Number of messages of 1200 bytes that fit into one segmented send, sealed by either.
const FULL: usize = 53;
const LONG: usize = 64 << 10;
const RECEIVE_BUFFER: usize = 2 << 20;

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-') && !arg.starts_with("rounds="))
        .collect();
    let benches: [Bench; 3] = [
        ("p2pke_batch", ours_batch, peer_batch),
        ("p2pke_single", ours_single, peer_single),
        ("frag_over_p2pke", long_messages, batched_bytes),
    ];
    for (name, ours, peer) in benches {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            compare(name, ours, peer);
        }
    }
}

/// Returns the number of rounds: that of an argument `rounds=N`, or [`ROUNDS`].
fn rounds() -> usize {
    std::env::args()
        .find_map(|arg| arg.strip_prefix("rounds=")?.parse().ok())
        .unwrap_or(ROUNDS)
}

/// A name, and one round of each side.
type Bench = (&'static str, fn() -> f64, fn() -> f64);

fn compare(name: &str, ours: fn() -> f64, peer: fn() -> f64) {
    let mut rounds: Vec<(f64, f64)> = (0..rounds())
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
        key(&rounds[rounds.len() / 2])
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

/// Two nodes, on a runtime each: the number that `send` sends and `receive` counts per second.
fn between<A: Addr, S: Swarm<A>, F: Future<Output = ()>, G: Future<Output = ()>>(
    node: impl Fn(UdpSwarm, &PrivateKey) -> S,
    send: impl FnOnce(Arc<S>, A, Arc<Clock>) -> F + Send,
    receive: impl FnOnce(Arc<S>, Arc<Clock>) -> G + Send,
) -> f64 {
    let (sending, receiving) = (one_thread(), one_thread());
    let key = |seed| PrivateKey::ed25519(&[seed; 32]);
    let a = Arc::new(sending.block_on(async { node(swarm(), &key(1)) }));
    let b = Arc::new(receiving.block_on(async { node(swarm(), &key(2)) }));
    let (clock, to) = (Arc::new(Clock::default()), b.local_addrs().remove(0));
    let (theirs, here) = (clock.clone(), b.clone());
    clock.clone().rate(
        move || sending.block_on(send(a, to, theirs)),
        || receiving.block_on(receive(here, clock)),
        || one_thread().block_on(b.close()),
    )
}

/// Counts messages received in batches.
async fn count_batches<A: Addr, S: Swarm<A>>(b: Arc<S>, clock: Arc<Clock>) {
    let mut out = Vec::with_capacity(1024);
    while let Ok(received) = b.receive_batch(&mut out, 1024).await {
        clock.add(received);
        black_box(&out);
        out.clear();
    }
}

fn ours_batch() -> f64 {
    between(
        |udp, key| udp.p2pke(key).expect("a node"),
        async |a, to, clock| {
            let (payload, mut batch) = ([7; SIZE], Vec::with_capacity(FULL));
            while clock.runs() {
                batch.extend((0..FULL).map(|_| (to.clone(), a.packet(&payload))));
                a.tell_batch(&mut batch).await.expect("room");
            }
        },
        count_batches,
    )
}

fn ours_single() -> f64 {
    between(
        |udp, key| udp.p2pke(key).expect("a node"),
        async |a, to, clock| {
            while clock.runs() {
                a.tell(&to, a.packet(&[7; SIZE])).await.expect("room");
            }
        },
        async |b, clock| {
            while let Ok(message) = b.receive().await {
                black_box(&message);
                clock.add(1);
            }
        },
    )
}

/// Bytes per second in messages of many fragments.
fn long_messages() -> f64 {
    let rate = between(
        |udp, key| udp.p2pke(key).expect("a node").fragment(LONG),
        async |a, to, clock| {
            let payload = vec![7; LONG];
            while clock.runs() {
                a.tell(&to, a.packet(&payload)).await.expect("room");
            }
        },
        count_batches,
    );
    rate * LONG as f64
}

fn batched_bytes() -> f64 {
    ours_batch() * SIZE as f64
}

/// Two ends of a tunnel after the handshake.
fn tunnel() -> (Tunn, Tunn) {
    let [one, two] = [[1; 32], [2; 32]].map(StaticSecret::from);
    let [first, second] = [&one, &two].map(PublicKey::from);
    let mut a = Tunn::new(one, second, None, None, 1, None);
    let mut b = Tunn::new(two, first, None, None, 2, None);
    let mut buffers = [[0; 2048]; 2];
    let [there, back] = &mut buffers;
    let TunnResult::WriteToNetwork(hello) = a.format_handshake_initiation(there, false) else {
        panic!("a hello")
    };
    let TunnResult::WriteToNetwork(answer) = b.decapsulate(None, hello, back) else {
        panic!("an answer")
    };
    let TunnResult::WriteToNetwork(confirmed) = a.decapsulate(None, answer, there) else {
        panic!("a confirmation")
    };
    assert!(matches!(b.decapsulate(None, confirmed, back), TunnResult::Done));
    (a, b)
}

/// The content of the tunnel: an IPv4 packet of 1200 bytes.
fn ip_packet() -> [u8; SIZE] {
    let mut packet = [7; SIZE];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(SIZE as u16).to_be_bytes());
    packet
}

fn open(tunnel: &mut Tunn, sealed: &[u8], out: &mut [u8]) -> usize {
    usize::from(matches!(
        tunnel.decapsulate(None, sealed, out),
        TunnResult::WriteToTunnelV4(..)
    ))
}

fn peer_batch() -> f64 {
    let ((mut a, b), [from, to]) = (tunnel(), [socket(), socket()]);
    let (clock, destination) = (Clock::default(), to.local_addr().expect("an address"));
    let send = async {
        let state = UdpSocketState::new((&from).into()).expect("a socket");
        let io = UdpSocket::from_std(from).expect("a socket");
        let (payload, mut contents) = (ip_packet(), vec![0; (SIZE + OVERHEAD) * FULL]);
        while clock.runs() {
            for segment in contents.chunks_mut(SIZE + OVERHEAD) {
                let sealed = a.encapsulate(&payload, segment);
                assert!(matches!(sealed, TunnResult::WriteToNetwork(_)));
            }
            let transmit = Transmit {
                destination,
                ecn: None,
                contents: &contents,
                segment_size: Some(SIZE + OVERHEAD),
                src_ip: None,
            };
            loop {
                io.writable().await.expect("a socket");
                let sent = io.try_io(Interest::WRITABLE, || state.try_send((&io).into(), &transmit));
                if sent.is_ok() || !clock.runs() {
                    break;
                }
            }
        }
    };
    clock.rate(
        || one_thread().block_on(send),
        || read_directly(&to, b, |count| clock.add(count)),
        || end_reading(destination),
    )
}

/// Reads `socket` as fast as possible and opens packets, until a datagram of one byte ends it.
fn read_directly(socket: &std::net::UdpSocket, mut tunnel: Tunn, count: impl Fn(usize)) {
    const BUFFERS: usize = 4;
    one_thread().block_on(async {
        let state = UdpSocketState::new(socket.into()).expect("a socket");
        let io = UdpSocket::from_std(socket.try_clone().expect("a socket")).expect("a socket");
        let mut buffers = vec![vec![0; 1 << 16]; BUFFERS];
        let mut metas = [RecvMeta::default(); BUFFERS];
        let mut out = [0; 2048];
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
            for (meta, buffer) in metas[..read].iter().zip(&buffers) {
                if meta.len == 1 {
                    return;
                }
                let segments = buffer[..meta.len].chunks(meta.stride.max(1));
                count(segments.map(|segment| open(&mut tunnel, segment, &mut out)).sum());
            }
        }
    });
}

/// Sends the byte that ends reading; several times, because a full socket drops it.
fn end_reading(to: SocketAddr) {
    let socket = std::net::UdpSocket::bind(any()).expect("a free port");
    for _ in 0..20 {
        let _ = socket.send_to(&[0], to);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn peer_single() -> f64 {
    let ((mut a, mut b), [from, to]) = (tunnel(), [socket(), socket()]);
    let (clock, destination) = (Clock::default(), to.local_addr().expect("an address"));
    let send = async {
        let io = UdpSocket::from_std(from).expect("a socket");
        let (payload, mut buffer) = (ip_packet(), [0; 2048]);
        while clock.runs() {
            let TunnResult::WriteToNetwork(sealed) = a.encapsulate(&payload, &mut buffer) else {
                panic!("a session")
            };
            io.send_to(sealed, destination).await.expect("room");
        }
    };
    let receive = async {
        let io = UdpSocket::from_std(to).expect("a socket");
        let (mut buffer, mut out) = ([0; 2048], [0; 2048]);
        loop {
            let (len, _) = io.recv_from(&mut buffer).await.expect("a socket");
            if len == 1 {
                return;
            }
            clock.add(open(&mut b, &buffer[..len], &mut out));
        }
    };
    clock.rate(
        || one_thread().block_on(send),
        || one_thread().block_on(receive),
        || end_reading(destination),
    )
}
