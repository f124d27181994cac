//! Closing: messages told before arrive, the port is freed, and the time is bounded.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, DropReason, Error, Packet, Swarm as _};
use tokio::time::{Instant, sleep, timeout};

use super::{addr, counted, dropped, eventually, key, nodes, udp};
use crate::quic::{QuicConfig, QuicSwarm};
use crate::{KeyAddr, MemoryRealm, memory::MemoryConfig};

/// Receives `count` messages numbered from 0, in any order.
async fn all_arrive<A: Addr>(swarm: &QuicSwarm<A>, count: u32) {
    arrive(swarm, count, count).await;
}

/// Receives `count` different messages of `told` that are numbered from 0, in any order.
async fn arrive<A: Addr>(swarm: &QuicSwarm<A>, count: u32, told: u32) {
    let mut seen = vec![false; told as usize];
    for received in 0..count {
        let message = timeout(Duration::from_secs(20), swarm.receive()).await;
        let message = message.unwrap_or_else(|_| panic!("{received} of {count} arrived: {}", counted(swarm)));
        let payload = message.expect("open").payload;
        let number = payload.first_chunk().map(|number| u32::from_be_bytes(*number));
        let number = number.expect("a number") as usize;
        assert!(
            !std::mem::replace(&mut seen[number], true),
            "{number} arrived twice"
        );
    }
}

/// Tells `count` numbered messages of `len` bytes each.
async fn tell<A: Addr>(swarm: &QuicSwarm<A>, to: &KeyAddr<A>, count: u32, len: usize) {
    for number in 0..count {
        swarm.tell(to, numbered(number, len)).await.expect("sent");
    }
}

/// Returns a message of `len` bytes, at least 4, that begins with its number.
fn numbered(number: u32, len: usize) -> Packet {
    let mut payload = vec![0; len.max(4)];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    Packet::from(payload)
}

/// Keeps both cores busy until it is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let over = over.clone();
            std::thread::spawn(move || while !over.load(Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_told_before_close_or_drop_arrive_on_udp_under_load() {
    let to = udp(1, QuicConfig::default());
    let load = Load::begin();
    for run in 0..40_u32 {
        let node = udp(2, QuicConfig::default());
        let count = [1, 3, 40, 300][run as usize % 4];
        let reading = all_arrive(&to, count);
        let telling = async {
            tell(&node, &addr(&to), count, 40).await;
            if run % 8 < 4 {
                node.close().await;
            } else {
                drop(node);
            }
        };
        tokio::join!(reading, telling);
    }
    drop(load);
}

#[tokio::test(start_paused = true)]
async fn messages_told_before_close_or_drop_arrive_in_memory() {
    let realm = MemoryRealm::default();
    let to = QuicSwarm::new(realm.open(), &key(1)).expect("a node");
    for run in 0..200_u32 {
        let node = QuicSwarm::new(realm.open(), &key(2)).expect("a node");
        let count = [1, 2, 17, 100][run as usize % 4];
        let telling = async {
            tell(&node, &addr(&to), count, 1 + (run as usize * 97) % 3000).await;
            if run % 8 < 4 {
                node.close().await;
            } else {
                drop(node);
            }
        };
        tokio::join!(all_arrive(&to, count), telling);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_dials_arrives_before_close_or_drop_or_is_counted() {
    let realm = MemoryRealm::default();
    let to = QuicSwarm::new(realm.open(), &key(1)).expect("a node");
    let silent = realm.open();
    let absent = KeyAddr::new(to.id(), silent.local_addr());
    for run in 0..40_u32 {
        let node = QuicSwarm::new(realm.open(), &key(2)).expect("a node");
        let count = [1, 3, 17, 100][run as usize % 4];
        let packet = |number: u32| Packet::from(number.to_be_bytes().as_slice());
        let mut batch: Vec<_> = (0..count).map(|number| (addr(&to), packet(number))).collect();
        batch.insert(run as usize % batch.len(), (absent.clone(), packet(0)));
        let telling = async {
            let told = node.tell_batch(&mut batch).await;
            told.expect("there is room here");
            if run % 8 < 4 {
                node.close().await;
                let (lost, closed) = (DropReason::NoPeer, DropReason::Closed);
                assert_eq!(dropped(&node, "quic", lost) + dropped(&node, "quic", closed), 1);
            } else {
                drop(node);
            }
        };
        tokio::join!(all_arrive(&to, count), telling);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_in_a_session_whose_peer_vanishes_are_counted_as_lost() {
    let realm = MemoryRealm::default();
    let b_below = Arc::new(realm.open());
    let a = QuicSwarm::new(realm.open(), &key(1)).expect("a node");
    let b = QuicSwarm::new(b_below.clone(), &key(2)).expect("a node");
    tell(&a, &addr(&b), 1, 4).await;
    all_arrive(&b, 1).await;
    // Without sending a close.
    b_below.close().await;
    let to = addr(&b);
    tell(&a, &to, 5, 4).await;
    sleep(QuicConfig::default().idle_timeout * 2).await;
    assert_eq!(a.sessions(), 0);
    assert_eq!(dropped(&a, "quic", DropReason::Lost), 5);
}

/// A message that is lost several times in a row is acknowledged after the linger: about one node in 400 closes
/// before, and what it counts as lost may have arrived. One dial in 30,000 fails.
#[tokio::test(start_paused = true)]
async fn messages_told_before_close_arrive_on_a_lossy_medium_or_are_counted_as_lost() {
    const MESSAGES: u32 = 20;
    for seed in 0..4 {
        println!("seed {seed}");
        let config = crate::faulty::FaultyConfig {
            seed,
            link: crate::LinkFaults {
                loss: 0.1,
                delay: Duration::from_millis(20),
                ..crate::LinkFaults::default()
            },
            ..crate::faulty::FaultyConfig::default()
        };
        let faults = crate::Faults::new(config).expect("in range");
        let realm = MemoryRealm::default();
        let open = |seed| {
            use crate::SwarmExt as _;
            QuicSwarm::new(realm.open().faulty(faults.clone()), &key(seed)).expect("a node")
        };
        let mut unlucky = 0;
        for _ in 0..30 {
            let (to, node) = (open(1), open(2));
            let mut told = 0;
            for number in 0..MESSAGES {
                let message = numbered(number, 500);
                match node.tell(&addr(&to), message).await {
                    Ok(()) => told += 1,
                    Err(error) => assert!(matches!(error, Error::TimedOut { .. }), "{error}"),
                }
            }
            node.close().await;
            let lost = dropped(&node, "quic", DropReason::Lost);
            unlucky += u32::from(told < MESSAGES || lost > 0);
            arrive(&to, told - u32::try_from(lost).expect("few"), MESSAGES).await;
        }
        assert!(unlucky <= 3, "{unlucky} of 30");
    }
}

#[tokio::test]
async fn a_long_message_that_was_told_before_drop_arrives_whole() {
    let [a, b] = nodes();
    tell(&a, &addr(&b), 2, a.mtu()).await;
    drop(a);
    all_arrive(&b, 2).await;
}

#[tokio::test]
async fn a_response_that_was_accepted_before_close_arrives() {
    for run in 0..20 {
        let [a, b] = nodes();
        let to = addr(&b);
        let answering = async {
            let request = b.receive_ask().await.expect("a request");
            request.respond(Packet::from(vec![7; 5000])).await.expect("sent");
            if run % 2 == 0 {
                b.close().await;
            } else {
                drop(b);
            }
        };
        let (response, ()) = tokio::join!(a.ask(&to, Packet::from(b"ping")), answering);
        assert_eq!(response.expect("it left before").len(), 5000);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_an_evicted_session_arrive() {
    let realm = MemoryRealm::default();
    let config = QuicConfig {
        max_sessions: 1,
        ..QuicConfig::default()
    };
    let hub = QuicSwarm::with_config(realm.open(), &key(1), config).expect("a node");
    let peers = [2, 3, 4].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    for _ in 0..20 {
        for peer in &peers {
            tell(&hub, &addr(peer), 1, 2000).await;
        }
    }
    for peer in &peers {
        for _ in 0..20 {
            let received = timeout(Duration::from_secs(20), peer.receive()).await;
            received.expect("it arrives").expect("open");
        }
    }
}

#[tokio::test]
async fn the_port_is_free_once_close_returned_even_with_unpolled_calls() {
    for _ in 0..20 {
        let [a, b] = nodes();
        let (at, to) = (addr(&a), addr(&b));
        tell(&a, &to, 1, 4).await;
        let mut cx = Context::from_waker(Waker::noop());
        // Polled once, and then neither polled nor dropped.
        let mut ask = pin!(a.ask(&to, Packet::from(b"ping")));
        let mut receive = pin!(a.receive());
        assert!(ask.as_mut().poll(&mut cx).is_pending());
        assert!(receive.as_mut().poll(&mut cx).is_pending());
        a.close().await;
        std::net::UdpSocket::bind(at.addr).expect("the port is free");
        assert!(matches!(ask.await, Err(Error::Closed)));
        assert!(matches!(receive.await, Err(Error::Closed)));
    }
}

#[tokio::test]
async fn close_takes_effect_at_its_first_poll_even_if_it_lingers() {
    let [a, b] = nodes();
    let to = addr(&b);
    tell(&a, &to, 1, 4).await;
    // The peer is gone without a close: no data will be acknowledged.
    b.node.mapping.release();
    tell(&a, &to, 1, 4).await;
    let asking = a.ask(&to, Packet::from(b"ping"));
    let closing = async {
        sleep(Duration::from_millis(50)).await;
        let mut closing = pin!(a.close());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(closing.as_mut().poll(&mut cx).is_pending(), "it waits");
        let told = a.tell(&to, Packet::from(b"late")).await;
        assert!(matches!(told, Err(Error::Closed)), "{told:?}");
        assert!(matches!(a.receive().await, Err(Error::Closed)));
        let began = Instant::now();
        closing.await;
        began.elapsed()
    };
    let began = Instant::now();
    let asked = async { (asking.await, began.elapsed()) };
    let ((asked, after), closed_after) = tokio::join!(asked, closing);
    assert!(matches!(asked, Err(Error::Closed)), "{asked:?}");
    assert!(after < closed_after, "a pending ask ends before the linger time");
    assert!(closed_after < Duration::from_secs(10), "{closed_after:?}");
}

#[tokio::test]
async fn a_dropped_node_with_an_unreachable_peer_frees_its_port_in_time() {
    let config = QuicConfig {
        linger: Duration::from_millis(300),
        ..QuicConfig::default()
    };
    let (a, b) = (udp(1, config), udp(2, QuicConfig::default()));
    let at = addr(&a);
    tell(&a, &addr(&b), 1, 4).await;
    b.node.mapping.release();
    tell(&a, &addr(&b), 1, 4).await;
    drop(a);
    let free = || std::net::UdpSocket::bind(at.addr).is_ok();
    eventually("its port is free", free).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_close_still_closes_the_node() {
    let realm = MemoryRealm::new(MemoryConfig::default());
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    tell(&a, &addr(&b), 3, 100).await;
    let cancelled = timeout(Duration::ZERO, a.close()).await;
    assert!(cancelled.is_err(), "it waits");
    all_arrive(&b, 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.sessions(), 0);
}

#[tokio::test]
async fn a_node_is_dropped_outside_of_its_runtime_and_its_messages_arrive() {
    let [a, b] = nodes();
    tell(&a, &addr(&b), 3, 100).await;
    std::thread::spawn(move || drop(a)).join().expect("no panic");
    all_arrive(&b, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_can_be_restarted_at_its_address_immediately_after_close() {
    let peer = udp(1, QuicConfig::default());
    let at: SocketAddr = addr(&udp(2, QuicConfig::default())).addr;
    for run in 0..20 {
        let node = match QuicSwarm::bind_udp(at, &key(2)) {
            Ok(node) => node,
            // The very first node was dropped.
            Err(_) if run == 0 => {
                eventually("it is free", || std::net::UdpSocket::bind(at).is_ok()).await;
                QuicSwarm::bind_udp(at, &key(2)).expect("free")
            }
            Err(error) => panic!("run {run}: {error}"),
        };
        tokio::join!(all_arrive(&peer, 2), async {
            tell(&node, &addr(&peer), 2, 10).await;
            node.close().await;
        });
    }
}
