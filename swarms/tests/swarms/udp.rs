//! The laws of a swarm where UDP is specific.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use p2p::{CounterSnapshot, Counters, DropReason, Error, Message, Packet, Swarm};
use p2p_swarms::{UdpConfig, UdpSwarm};

const ANY: &str = "127.0.0.1:0";

fn bind(addr: &str) -> UdpSwarm {
    UdpSwarm::bind(addr.parse().expect("an address")).expect("a free port")
}

fn addr(swarm: &UdpSwarm) -> SocketAddr {
    swarm.local_addrs()[0]
}

fn counters(swarm: &UdpSwarm) -> CounterSnapshot {
    let mut sum = CounterSnapshot::default();
    swarm.visit_counters(&mut |counters: &Counters| sum += counters.snapshot());
    sum
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn expect(swarm: &UdpSwarm, payload: &[u8]) -> Message<SocketAddr> {
    let message = swarm.receive().await.expect("a message");
    assert_eq!(message.payload, payload);
    assert!(
        swarm.local_addrs().contains(&message.dst),
        "{} is not ours",
        message.dst
    );
    message
}

#[tokio::test]
async fn a_message_arrives_and_its_source_can_be_told() {
    let (a, b) = (bind(ANY), bind(ANY));
    for payload in [&b"hello"[..], b"", &[7; 1232]] {
        a.tell(&addr(&b), payload.into()).await.unwrap();
        let message = expect(&b, payload).await;
        assert_eq!(message.src, addr(&a));
        assert_eq!(message.dst, addr(&b));
        b.tell(&message.src, message.payload).await.unwrap();
        expect(&a, payload).await;
    }
    let (a, b) = (counters(&a), counters(&b));
    assert_eq!((a.sent, a.received, a.delivered), (3, 3, 3));
    assert_eq!((b.sent, b.received, b.delivered), (3, 3, 3));
}

#[tokio::test]
async fn the_mtu_passes_and_one_byte_more_is_an_error() {
    for mtu in [1, 1232, 9000, 65_507] {
        let mut config = UdpConfig::default();
        config.mtu = mtu;
        let a = UdpSwarm::with_config(ANY.parse().unwrap(), config).unwrap();
        let b = bind(ANY);
        assert_eq!(a.mtu(), mtu);
        a.tell(&addr(&b), vec![1; mtu].into()).await.unwrap();
        expect(&b, &vec![1; mtu]).await;
        let too_long = a.tell(&addr(&b), vec![1; mtu + 1].into()).await;
        let Err(Error::MtuExceeded { size, mtu: said }) = too_long else {
            panic!("{too_long:?}")
        };
        assert_eq!((size, said), (mtu + 1, mtu));
        let mut batch = vec![
            (addr(&b), vec![2; mtu + 1].into()),
            (addr(&b), vec![3; mtu].into()),
        ];
        let error = a.tell_batch(&mut batch).await.unwrap_err();
        assert_eq!((error.sent, error.refused), (1, 1));
        assert!(matches!(error.first, Error::MtuExceeded { .. }));
        expect(&b, &vec![3; mtu]).await;
    }
    for mtu in [0, 65_508] {
        let mut config = UdpConfig::default();
        config.mtu = mtu;
        let refused = UdpSwarm::with_config(ANY.parse().unwrap(), config);
        assert!(matches!(refused, Err(Error::Invalid { .. })));
    }
}

#[tokio::test]
async fn a_batch_of_mixed_destinations_and_sizes_arrives_whole() {
    let a = bind(ANY);
    let peers = [bind(ANY), bind(ANY), bind("0.0.0.0:0")];
    let to = |index: usize| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr(&peers[index]).port());
    let mut expected = vec![Vec::new(); peers.len()];
    let mut batch = Vec::with_capacity(512);
    for index in 0..400_usize {
        // Runs of one destination and of one size, shorter ends, empty messages, longer messages.
        let peer = [0, 0, 0, 0, 0, 1, 0, 2, 2, 2][index / 3 % 10];
        let size = [100, 100, 100, 7, 0, 0, 300, 1200, 1200, 50, 51][index % 11];
        let mut payload = vec![index as u8; size];
        payload
            .iter_mut()
            .zip(index.to_le_bytes())
            .for_each(|(to, byte)| *to = byte);
        expected[peer].push(payload.clone());
        batch.push((to(peer), Packet::from(payload)));
    }
    a.tell_batch(&mut batch).await.unwrap();
    assert!(batch.is_empty());
    assert!(batch.capacity() >= 512);
    assert_eq!(counters(&a).sent, 400);
    for (peer, mut expected) in peers.iter().zip(expected) {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let max = expected.len() - got.len();
            let count = peer.receive_batch(&mut got, max.min(7)).await.unwrap();
            assert!((1..=7).contains(&count));
        }
        let mut got: Vec<_> = got.into_iter().map(|message| message.payload.to_vec()).collect();
        got.sort();
        expected.sort();
        assert!(got == expected);
    }
}

#[tokio::test]
async fn ipv4_peers_of_a_dual_stack_socket_have_plain_ipv4_addresses() {
    let both = bind("[::]:0");
    let port = addr(&both).port();
    let (v4, v6) = (bind(ANY), bind("[::1]:0"));
    for peer in [&v4, &v6] {
        let to = SocketAddr::new(addr(peer).ip(), port);
        peer.tell(&to, b"up".into()).await.unwrap();
        let message = expect(&both, b"up").await;
        assert_eq!(message.src, addr(peer));
        assert_eq!(message.dst, to);
        both.tell(&message.src, b"down".into()).await.unwrap();
        assert_eq!(expect(peer, b"down").await.src, to);
    }
    // An IPv4-mapped IPv6 address is accepted as well.
    let SocketAddr::V4(plain) = addr(&v4) else {
        panic!("bound to IPv4")
    };
    let mapped = SocketAddr::new(plain.ip().to_ipv6_mapped().into(), plain.port());
    both.tell(&mapped, b"mapped".into()).await.unwrap();
    expect(&v4, b"mapped").await;
}

#[tokio::test]
async fn a_wildcard_binds_all_addresses_of_the_host() {
    for wildcard in ["0.0.0.0:0", "[::]:0"] {
        let (all, a) = (bind(wildcard), bind(ANY));
        let addrs = all.local_addrs();
        assert!(
            addrs
                .iter()
                .all(|addr| !addr.ip().is_unspecified() && addr.port() != 0),
            "{addrs:?}"
        );
        let local = addrs
            .iter()
            .find(|addr| **addr == SocketAddr::new(a.local_addrs()[0].ip(), addr.port()));
        a.tell(local.expect("loopback"), b"1".into()).await.unwrap();
        assert_eq!(expect(&all, b"1").await.dst, *local.unwrap());
        for addr in &addrs {
            assert_eq!(all.parse_addr(&addr.to_string()).unwrap(), *addr);
        }
        // No interface has this address, but the host accepts it: `dst` is still one of the addresses.
        let odd = SocketAddr::new(Ipv4Addr::new(127, 9, 9, 9).into(), addrs[0].port());
        a.tell(&odd, b"2".into()).await.unwrap();
        expect(&all, b"2").await;
    }
}

#[tokio::test]
async fn destinations_that_are_not_a_node_are_errors() {
    let (v4, v6, both) = (bind(ANY), bind("[::1]:0"), bind("[::]:0"));
    let cases = [
        (&v4, "127.0.0.1:0"),
        (&v4, "0.0.0.0:9"),
        (&v4, "224.0.0.1:9"),
        (&v4, "255.255.255.255:9"),
        (&v4, "[::1]:9"),
        (&v6, "127.0.0.1:9"),
        (&v6, "[::ffff:127.0.0.1]:9"),
        (&v6, "[::]:9"),
        (&both, "[ff02::1]:9"),
        (&both, "[::ffff:224.0.0.1]:9"),
        (&both, "[::1]:0"),
    ];
    for (swarm, text) in cases {
        let dst: SocketAddr = text.parse().unwrap();
        let told = swarm.tell(&dst, b"x".into()).await;
        assert!(matches!(told, Err(Error::Unreachable { .. })), "{text}: {told:?}");
        let mut batch = vec![(dst, b"x".into()), (dst, b"y".into())];
        let told = swarm.tell_batch(&mut batch).await.unwrap_err();
        assert_eq!((told.sent, told.refused), (0, 2), "{text}");
    }
    assert_eq!(counters(&v4).sent, 0);
}

#[tokio::test]
async fn a_closed_peer_does_not_affect_others() {
    let (a, b) = (bind(ANY), bind(ANY));
    let gone = addr(&bind(ANY));
    for _ in 0..10 {
        a.tell(&gone, b"anybody?".into()).await.unwrap();
        b.tell(&addr(&a), b"here".into()).await.unwrap();
        expect(&a, b"here").await;
    }
}

#[tokio::test]
async fn cancelling_a_receive_loses_nothing() {
    let (a, b) = (bind(ANY), bind(ANY));
    let mut out = Vec::new();
    for round in 0..100_u8 {
        {
            let mut cancelled = pin!(b.receive());
            let mut kept_waiting = pin!(b.receive());
            let mut batch = pin!(b.receive_batch(&mut out, 8));
            assert!(poll_once(cancelled.as_mut()).is_pending());
            assert!(poll_once(kept_waiting.as_mut()).is_pending());
            assert!(poll_once(batch.as_mut()).is_pending());
        }
        a.tell(&addr(&b), (&[round]).into()).await.unwrap();
        expect(&b, &[round]).await;
    }
    assert!(out.is_empty());
}

#[tokio::test]
async fn an_unused_wake_up_passes_to_the_next_reader() {
    let (a, b) = (bind(ANY), std::sync::Arc::new(bind(ANY)));
    let mut first = Box::pin(b.receive());
    assert!(poll_once(first.as_mut()).is_pending());
    let second = tokio::spawn({
        let b = b.clone();
        async move { b.receive().await }
    });
    tokio::task::yield_now().await;
    a.tell(&addr(&b), b"once".into()).await.unwrap();
    // The first reader is woken, and never polled again.
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(second.await.unwrap().unwrap().payload, b"once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_share_what_arrives_each_message_to_one() {
    const COUNT: usize = 2000;
    let (a, b) = (std::sync::Arc::new(bind(ANY)), std::sync::Arc::new(bind(ANY)));
    let (sink, mut got) = tokio::sync::mpsc::channel(COUNT);
    let mut readers = Vec::new();
    for reader in 0..8 {
        let (b, sink) = (b.clone(), sink.clone());
        readers.push(tokio::spawn(async move {
            let mut out = Vec::new();
            loop {
                if reader % 2 == 0 {
                    out.push(b.receive().await?);
                } else {
                    b.receive_batch(&mut out, 3).await?;
                }
                for message in out.drain(..) {
                    sink.send(message.payload.to_vec()).await.expect("room");
                }
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            Ok::<(), Error>(())
        }));
    }
    let mut seen = vec![false; COUNT];
    for start in (0..COUNT).step_by(100) {
        let to = addr(&b);
        let mut batch = (start..start + 100)
            .map(|at| (to, Packet::from(&at.to_le_bytes())))
            .collect();
        a.tell_batch(&mut batch).await.unwrap();
        for _ in 0..100 {
            let payload = got.recv().await.unwrap();
            let at = usize::from_le_bytes(payload.try_into().unwrap());
            assert!(!std::mem::replace(&mut seen[at], true), "{at} came twice");
        }
    }
    b.close().await;
    for reader in readers {
        assert!(matches!(reader.await.unwrap(), Err(Error::Closed)));
    }
}

#[tokio::test]
async fn close_wakes_all_calls_frees_the_port_and_is_idempotent() {
    let (a, b) = (bind(ANY), bind("127.0.0.78:0"));
    let (at, mut out) = (addr(&b), Vec::new());
    let mut receiving = pin!(b.receive());
    let mut batch = pin!(b.receive_batch(&mut out, 9));
    assert!(poll_once(receiving.as_mut()).is_pending());
    assert!(poll_once(batch.as_mut()).is_pending());
    b.close().await;
    assert!(
        UdpSocket::bind(at).is_ok(),
        "the port is free although calls are pending"
    );
    assert!(matches!(receiving.await, Err(Error::Closed)));
    assert!(matches!(batch.await, Err(Error::Closed)));
    b.close().await;
    assert!(matches!(b.tell(&addr(&a), b"x".into()).await, Err(Error::Closed)));
    assert!(matches!(b.receive().await, Err(Error::Closed)));
    let refused = b
        .tell_batch(&mut vec![(addr(&a), b"x".into())])
        .await
        .unwrap_err();
    assert!(matches!(refused.first, Error::Closed));
}

#[tokio::test]
async fn untaken_messages_are_counted_when_the_swarm_closes() {
    let (a, b) = (bind(ANY), bind(ANY));
    let mut batch = (0..10).map(|_| (addr(&b), b"same size".into())).collect();
    a.tell_batch(&mut batch).await.unwrap();
    expect(&b, b"same size").await;
    let waiting = counters(&b).received - 1;
    b.close().await;
    assert_eq!(counters(&b).dropped(DropReason::Closed), waiting);
    assert!(matches!(b.receive().await, Err(Error::Closed)));
}

#[tokio::test]
async fn dropping_frees_the_port() {
    for _ in 0..20 {
        // An address that no other test uses, so that none takes the port meanwhile.
        let swarm = bind("127.0.0.77:0");
        let at = addr(&swarm);
        let mut receiving = Box::pin(swarm.receive());
        assert!(poll_once(receiving.as_mut()).is_pending());
        drop(receiving);
        drop(swarm);
        bind(&at.to_string());
    }
}

#[test]
fn binding_without_a_runtime_is_an_error() {
    assert!(matches!(
        UdpSwarm::bind(ANY.parse().unwrap()),
        Err(Error::Invalid { .. })
    ));
}

/// Lets tells of one task combine: they are polled in turn, as tasks of one thread are.
async fn together<T>(calls: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.into_iter().map(|call| (Box::pin(call), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (call, result) in calls.iter_mut().filter(|(_, result)| result.is_none()) {
            match call.as_mut().poll(cx) {
                Poll::Ready(ready) => *result = Some(ready),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    calls.into_iter().filter_map(|(_, result)| result).collect()
}

#[tokio::test]
async fn combined_tells_each_have_their_own_result() {
    let (a, b) = (bind(ANY), bind(ANY));
    // 240.0.0.1 has no route: the kernel refuses this destination only.
    let nowhere = "240.0.0.1:9".parse().unwrap();
    for _ in 0..20 {
        let to = [addr(&b), nowhere, addr(&b), addr(&b), nowhere];
        let tells = (0..50_u8).map(|at| {
            let (a, to) = (&a, to[usize::from(at) % 5]);
            async move { a.tell(&to, (&[at; 9]).into()).await }
        });
        for (at, told) in together(tells).await.into_iter().enumerate() {
            assert_eq!(told.is_ok(), ![1, 4].contains(&(at % 5)), "{at}: {told:?}");
        }
        let mut got = Vec::new();
        while got.len() < 30 {
            b.receive_batch(&mut got, 30).await.unwrap();
        }
        let mut got: Vec<_> = got.iter().map(|message| message.payload[0]).collect();
        got.sort_unstable();
        assert!(
            got.into_iter()
                .eq((0..50).filter(|at| ![1, 4].contains(&(at % 5))))
        );
    }
}

#[tokio::test]
async fn a_cancelled_tell_was_sent_whole_or_not_at_all_and_blocks_no_other() {
    let (a, b) = (bind(ANY), bind(ANY));
    let to = addr(&b);
    for round in 0..50_u8 {
        {
            let mut cancelled = pin!(a.tell(&to, b"cancelled".into()));
            let _ = poll_once(cancelled.as_mut());
            // The first tell is never polled again while the second waits: it must not depend on it.
            a.tell(&to, (&[round]).into()).await.unwrap();
        }
        loop {
            let message = b.receive().await.unwrap();
            if message.payload == b"cancelled" {
                continue;
            }
            assert_eq!(message.payload, &[round]);
            break;
        }
    }
}

#[tokio::test]
async fn closing_ends_tells_that_wait_to_be_combined() {
    let (a, b) = (bind(ANY), bind(ANY));
    let to = addr(&b);
    let mut first = pin!(a.tell(&to, b"1".into()));
    let mut second = pin!(a.tell(&to, b"2".into()));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    a.close().await;
    assert!(matches!(first.await, Err(Error::Closed)));
    assert!(matches!(second.await, Err(Error::Closed)));
    assert_eq!(counters(&a).sent, 0);
}

#[tokio::test]
async fn more_tells_than_the_queue_holds_are_all_sent() {
    let mut config = UdpConfig::default();
    config.combine = 3;
    let a = UdpSwarm::with_config(ANY.parse().unwrap(), config).unwrap();
    let b = bind(ANY);
    let to = addr(&b);
    let tells = (0..100_u8).map(|at| {
        let a = &a;
        async move { a.tell(&to, (&[at]).into()).await }
    });
    assert!(together(tells).await.iter().all(Result::is_ok));
    let mut got = Vec::new();
    while got.len() < 100 {
        b.receive_batch(&mut got, 100).await.unwrap();
    }
    assert_eq!(counters(&a).sent, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_of_many_tasks_all_arrive_once() {
    const TASKS: u32 = 64;
    let (a, b) = (std::sync::Arc::new(bind(ANY)), bind(ANY));
    let to = addr(&b);
    let mut seen = std::collections::HashSet::new();
    for round in 0..20_u32 {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let a = a.clone();
                tokio::spawn(async move {
                    let mut cancelled = Box::pin(a.tell(&to, b"cancelled".into()));
                    let _ = poll_once(cancelled.as_mut());
                    for nth in 0..4 {
                        let payload = ((round * TASKS + task) * 4 + nth).to_le_bytes();
                        a.tell(&to, (&payload).into()).await.expect("room");
                    }
                })
            })
            .collect();
        while seen.len() < ((round + 1) * TASKS * 4) as usize {
            let payload = b.receive().await.unwrap().payload;
            if payload != b"cancelled" {
                assert!(seen.insert(payload.to_vec()), "{payload:?} came twice");
            }
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}

/// Counts its wake-ups.
#[derive(Default)]
struct Wakes(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Wakes {
    fn take(&self) -> usize {
        self.0.swap(0, std::sync::atomic::Ordering::SeqCst)
    }
}

#[test]
fn tells_that_wait_for_the_socket_sleep_until_it_has_room() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    // A runtime that has not polled its sockets yet does not know that they are writable.
    let (a, b) = {
        let _context = runtime.enter();
        (bind(ANY), bind(ANY))
    };
    let (to, count) = (addr(&b), std::sync::Arc::new(Wakes::default()));
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let mut tells: Vec<_> = (0..3_u8)
        .map(|at| Box::pin(a.tell(&to, (&[at]).into())))
        .collect();
    for tell in &mut tells {
        assert!(tell.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(count.take(), 3, "each tell yields once, so that others can join");
    for tell in &mut tells {
        assert!(tell.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(count.take(), 0, "the socket is full: no task is woken");
    runtime.block_on(async {
        while count.take() == 0 {
            tokio::task::yield_now().await;
        }
        for tell in tells {
            tell.await.unwrap();
        }
        for _ in 0..3 {
            b.receive().await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_reader_that_stops_costs_no_more_than_one_read_of_the_socket() {
    let (a, b) = (bind(ANY), bind(ANY));
    let mut config = UdpConfig::default();
    config.read_buffers = 4;
    let few = UdpSwarm::with_config(ANY.parse().unwrap(), config).unwrap();
    for reader in [&b, &few] {
        let to = addr(reader);
        for _ in 0..50 {
            let mut batch = (0..100).map(|_| (to, Packet::from(&[7; 1000]))).collect();
            a.tell_batch(&mut batch).await.unwrap();
        }
        reader.receive().await.unwrap();
        let counters = counters(reader);
        let waiting = counters.received - counters.delivered;
        assert!(waiting * 1000 <= 8 << 16, "{waiting} messages wait");
    }
}
