//! P2PKE in use: handshakes happen automatically, and end with an error that states the cause.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, future, stream};
use p2p::{
    Addr, AskSwarm as _, CounterSnapshot, Counters, DropReason, Error, Packet, SecureSwarm as _, Swarm,
    serve_asks,
};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::Config;
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::p2pke::MIN_INNER_MTU;
use p2p_swarms::{
    Faults, FaultySwarm, KeyAddr, LinkFaults, MemoryAddr, MemoryRealm, MemorySwarm, P2pkeConfig, P2pkeSwarm,
    SwarmExt as _, UdpSwarm,
};
use tokio::time::{Instant, sleep, timeout};

type InMemory = P2pkeSwarm<MemoryAddr, MemorySwarm>;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

/// Nodes on a medium.
fn nodes<A: Addr, S: Swarm<A>, const N: usize>(open: impl Fn() -> S) -> [P2pkeSwarm<A, S>; N] {
    std::array::from_fn(|seed| open().p2pke(&key(seed as u8)).expect("a node"))
}

fn in_memory<const N: usize>() -> [InMemory; N] {
    let realm = MemoryRealm::default();
    nodes(|| realm.open())
}

fn with_engine(inner: MemorySwarm, seed: u8, change: impl FnOnce(&mut Config)) -> InMemory {
    let mut config = P2pkeConfig::default();
    change(&mut config.engine);
    P2pkeSwarm::with_config(inner, &key(seed), config).expect("a node")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn addr<A: Addr, S: Swarm<A>>(node: &P2pkeSwarm<A, S>) -> KeyAddr<A> {
    node.local_addrs().remove(0)
}

/// Returns the counters of messages and of handshakes.
fn counts<A: Addr, S: Swarm<A>>(node: &P2pkeSwarm<A, S>) -> [CounterSnapshot; 2] {
    let mut all = Vec::new();
    node.visit_counters(&mut |counters: &Counters| all.push((counters.layer(), counters.snapshot())));
    assert_eq!((all[0].0, all[1].0), ("p2pke", "p2pke-handshake"));
    [all[0].1, all[1].1]
}

/// Tells a number and receives it at the other end.
async fn pass<A: Addr, S: Swarm<A>>(from: &P2pkeSwarm<A, S>, to: &P2pkeSwarm<A, S>, number: u32) {
    let packet = from.packet(&number.to_be_bytes());
    from.tell(&addr(to), packet).await.expect("a session");
    let message = to.receive().await.expect("open");
    assert_eq!((&message.src, &message.dst), (&addr(from), &addr(to)));
    assert_eq!(message.payload, &number.to_be_bytes());
}

async fn talk<A: Addr, S: Swarm<A>>([a, b]: [P2pkeSwarm<A, S>; 2]) {
    pass(&a, &b, 1).await;
    pass(&b, &a, 2).await;
    assert_eq!(
        a.lookup_public_key(&addr(&b)).await.expect("a key"),
        b.public_key()
    );
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_talk_in_memory() {
    talk(in_memory()).await;
}

#[tokio::test]
async fn two_nodes_talk_over_udp() {
    talk(nodes(|| UdpSwarm::bind(loopback()).expect("a free port"))).await;
}

#[tokio::test]
async fn two_nodes_talk_over_two_layers_of_it() {
    let realm = MemoryRealm::default();
    talk(nodes(|| {
        realm
            .open()
            .p2pke(&PrivateKey::ed25519(&rand::random()))
            .expect("a node")
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tell_to_an_unused_address_times_out_and_the_next_one_tries_again() {
    let [a, b] = in_memory();
    let gone = addr(&b);
    drop(b);
    for _ in 0..2 {
        let begun = Instant::now();
        let told = a.tell(&gone, a.packet(b"ping")).await;
        assert!(matches!(told, Err(Error::TimedOut { .. })), "{told:?}");
        let limit = Config::default().handshake_timeout;
        assert!(begun.elapsed() >= limit && begun.elapsed() < limit + Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tell_to_a_wrong_identity_reaches_no_node_and_returns_an_error() {
    let [a, b, c] = in_memory();
    let wrong = KeyAddr::new(b.id(), addr(&c).addr);
    let told = a.tell(&wrong, a.packet(b"ping")).await;
    let Err(Error::Unreachable { addr: at, reason }) = told else {
        panic!("{told:?}")
    };
    let expected = format!("another peer answers at this address: {}", c.id());
    assert_eq!((&*at, &*reason), (&*wrong.to_string(), &*expected));
    assert!(matches!(
        a.lookup_public_key(&wrong).await,
        Err(Error::Unreachable { .. })
    ));
    assert_eq!(counts(&c)[0].received, 0);
    // The same if the right identity is known to be there.
    pass(&a, &c, 1).await;
    assert!(matches!(
        a.tell(&wrong, a.packet(b"ping")).await,
        Err(Error::Unreachable { .. })
    ));
    pass(&a, &c, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_allowed_is_denied_locally_and_receives_nothing() {
    let realm = MemoryRealm::default();
    let open = Arc::new(AtomicBool::new(false));
    let allowed = open.clone();
    let config = P2pkeConfig::default().allow(move |_| allowed.load(Relaxed));
    let strict = P2pkeSwarm::with_config(realm.open(), &key(1), config).expect("a node");
    let other = realm.open().p2pke(&key(2)).expect("a node");
    let told = strict.tell(&addr(&other), strict.packet(b"ping")).await;
    assert!(matches!(told, Err(Error::Denied { .. })), "{told:?}");
    let told = other.tell(&addr(&strict), other.packet(b"ping")).await;
    assert!(matches!(told, Err(Error::TimedOut { .. })), "{told:?}");
    let [messages, handshakes] = counts(&strict);
    assert_eq!(
        (messages.received, handshakes.dropped(DropReason::Denied)),
        (0, handshakes.received)
    );
    // An allow-list may change; sessions that it forbids later end when the caller requests it.
    open.store(true, Relaxed);
    pass(&other, &strict, 1).await;
    open.store(false, Relaxed);
    pass(&other, &strict, 2).await;
    assert_eq!((strict.disconnect_forbidden(), strict.sessions()), (1, 0));
    other
        .tell(&addr(&strict), other.packet(b"lost"))
        .await
        .expect("it leaves");
    assert!(timeout(Duration::from_secs(1), strict.receive()).await.is_err());
    assert_eq!(counts(&strict)[0].dropped(DropReason::NoPeer), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_peer_can_be_reached_again() {
    let [a, b] = in_memory();
    pass(&a, &b, 1).await;
    assert_eq!((a.disconnect(&b.id()), a.disconnect(&b.id())), (1, 0));
    pass(&a, &b, 2).await;
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn channels_beyond_the_limit_are_refused_until_there_is_room() {
    let realm = MemoryRealm::default();
    let a = with_engine(realm.open(), 0, |engine| engine.channels = 2);
    let others: [InMemory; 3] = nodes(|| realm.open());
    let [b, c, d] = &others;
    pass(&a, b, 1).await;
    pass(&a, c, 2).await;
    let told = a.tell(&addr(d), a.packet(b"ping")).await;
    assert!(matches!(told, Err(Error::Limit { limit: 2, .. })), "{told:?}");
    assert_eq!(a.disconnect(&b.id()), 1);
    pass(&a, d, 3).await;
}

#[tokio::test]
async fn a_swarm_whose_mtu_is_too_small_for_a_handshake_is_refused() {
    let realm = |mtu| {
        MemoryRealm::new(MemoryConfig {
            mtu,
            ..MemoryConfig::default()
        })
    };
    let small = realm(MIN_INNER_MTU - 1).open().p2pke(&key(0));
    assert!(matches!(small, Err(Error::Invalid { .. })));
    let realm = realm(MIN_INNER_MTU);
    talk(nodes(|| realm.open())).await;
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let changes: [fn(&mut P2pkeConfig); 5] = [
        |config| config.batch = 0,
        |config| config.engine.channels = 0,
        |config| config.engine.half_open = 0,
        |config| config.engine.rekey_after_silence = config.engine.max_silence,
        |config| config.engine.rekey_after = config.engine.reject_after,
    ];
    for change in changes {
        let mut config = P2pkeConfig::default();
        change(&mut config);
        let made = P2pkeSwarm::with_config(MemorySwarm::new(), &key(0), config);
        assert!(matches!(made, Err(Error::Invalid { .. })));
    }
}

#[test]
fn a_node_outside_of_a_runtime_is_refused() {
    let made = MemorySwarm::new().p2pke(&key(0));
    assert!(matches!(made, Err(Error::Invalid { .. })));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_never_receive_answer_handshakes_and_hold_a_bounded_number_of_messages() {
    let realm = MemoryRealm::default();
    let mut config = P2pkeConfig::default();
    config.messages.items = 10;
    let [a, b] =
        [1, 2].map(|seed| P2pkeSwarm::with_config(realm.open(), &key(seed), config.clone()).expect("a node"));
    let begun = Instant::now();
    for number in 0..100_u32 {
        a.tell(&addr(&b), a.packet(&number.to_be_bytes()))
            .await
            .expect("a session");
    }
    assert!(begun.elapsed().is_zero(), "no call waited: {:?}", begun.elapsed());
    sleep(Duration::from_secs(1)).await;
    let [messages, _] = counts(&b);
    assert_eq!(
        (messages.received, messages.dropped(DropReason::QueueFull)),
        (100, 90)
    );
    for number in 0..10_u32 {
        assert_eq!(b.receive().await.expect("open").payload, &number.to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unpolled_receive_does_not_block_handshakes() {
    let [a, b, c] = in_memory();
    // Both wait, and poll their receive only at intervals, as `select!` in a loop does.
    let mut waiting = [Box::pin(a.receive()), Box::pin(b.receive())];
    for waiting in &mut waiting {
        assert!(timeout(Duration::ZERO, waiting).await.is_err());
    }
    let begun = Instant::now();
    a.tell(&addr(&b), a.packet(b"one")).await.expect("a session");
    a.tell(&addr(&c), a.packet(b"two")).await.expect("a session");
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
    let [_, second] = &mut waiting;
    assert_eq!(second.await.expect("open").payload, b"one");
    assert_eq!(c.receive().await.expect("open").payload, b"two");
}

#[tokio::test(start_paused = true)]
async fn a_node_receives_its_own_messages_to_itself() {
    let [a] = in_memory();
    let (own, mut out) = (addr(&a), Vec::new());
    let telling = async {
        sleep(Duration::from_secs(1)).await;
        a.tell(&own, a.packet(b"one")).await.expect("room");
        let mut batch = vec![(own.clone(), a.packet(b"two")), (own.clone(), a.packet(b"three"))];
        a.tell_batch(&mut batch).await.expect("room");
    };
    let receiving = async {
        while out.len() < 3 {
            a.receive_batch(&mut out, 8).await.expect("open");
        }
    };
    tokio::join!(receiving, telling);
    assert!(out.iter().all(|message| message.src == own && message.dst == own));
    let [messages, handshakes] = counts(&a);
    assert_eq!((messages.sent, messages.delivered, handshakes.sent), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn reachable_peers_in_a_batch_do_not_wait_for_others() {
    let [a, b, c, d] = in_memory();
    pass(&a, &b, 0).await;
    let gone = addr(&d);
    drop(d);
    let to = [&gone, &addr(&b), &addr(&c), &gone, &addr(&b), &addr(&c)];
    let mut batch = (0..)
        .zip(to)
        .map(|(number, to): (u8, _)| (to.clone(), a.packet(&[number])))
        .collect();
    let begun = Instant::now();
    let telling = async {
        let error = a
            .tell_batch(&mut batch)
            .await
            .expect_err("two messages to unused addresses");
        assert_eq!((error.sent, error.refused), (4, 2));
        assert!(matches!(error.first, Error::TimedOut { .. }), "{error}");
        assert!(batch.is_empty());
    };
    let receiving = async {
        let mut came = Vec::new();
        for node in [&b, &b, &c, &c] {
            came.push(node.receive().await.expect("open").payload[0]);
        }
        assert_eq!(came, [1, 4, 2, 5]);
        assert!(begun.elapsed() < Duration::from_millis(100));
    };
    tokio::join!(telling, receiving);
}

#[tokio::test(start_paused = true)]
async fn many_tells_wait_for_one_handshake() {
    let [a, b] = in_memory();
    let to = addr(&b);
    let telling = future::join_all((0..500_u32).map(|number| {
        let packet = a.packet(&number.to_be_bytes());
        a.tell(&to, packet)
    }));
    let told = telling.await;
    assert!(told.iter().all(Result::is_ok));
    let [messages, handshakes] = counts(&a);
    assert_eq!(
        (messages.sent, handshakes.sent),
        (500, 2),
        "a hello and a confirmation"
    );
    let mut out = Vec::new();
    while out.len() < 500 {
        b.receive_batch(&mut out, 500).await.expect("open");
    }
}

/// One side tells once a second for ten minutes, the other one never sends.
async fn one_way(from: &InMemory, to: &InMemory) {
    let mut waited = Duration::ZERO;
    for number in 0..600_u32 {
        let begun = Instant::now();
        pass(from, to, number).await;
        waited += begun.elapsed();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(
        waited < Duration::from_millis(200),
        "tells waited for handshakes: {waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_stays_alive_in_the_direction_of_its_hello() {
    let [a, b] = in_memory();
    pass(&a, &b, 0).await;
    one_way(&a, &b).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_stays_alive_against_the_direction_of_its_hello() {
    let [a, b] = in_memory();
    pass(&a, &b, 0).await;
    one_way(&b, &a).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_are_replaced_under_traffic_in_both_directions_without_a_gap() {
    let [a, b] = in_memory();
    let begun = Instant::now();
    for number in 0..1200_u32 {
        pass(&a, &b, number).await;
        pass(&b, &a, number).await;
        sleep(Duration::from_secs(1)).await;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1202), "tells waited: {took:?}");
    let [messages, handshakes] = counts(&a);
    assert_eq!(messages.dropped_total(), 0);
    // Every two minutes, and not more often.
    assert!((18..=26).contains(&handshakes.sent), "{}", handshakes.sent);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_expires_and_then_costs_nothing() {
    let [a, b] = in_memory();
    pass(&a, &b, 0).await;
    sleep(Duration::from_mins(4)).await;
    assert_eq!((a.sessions(), b.sessions()), (0, 0));
    pass(&b, &a, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_is_reachable_in_both_directions() {
    let realm = MemoryRealm::default();
    let [a, mut b]: [InMemory; 2] = nodes(|| realm.open());
    pass(&a, &b, 0).await;
    for round in 0..3 {
        let at = addr(&b).addr;
        drop(b);
        b = realm.open_at(at).expect("free").p2pke(&key(1)).expect("a node");
        if round % 2 == 0 {
            pass(&b, &a, round).await;
        } else {
            // The old session is used until its silence is noticed.
            for _ in 0..20 {
                a.tell(&addr(&b), a.packet(b"ping")).await.expect("it leaves");
                sleep(Duration::from_secs(1)).await;
            }
            while timeout(Duration::from_secs(1), b.receive()).await.is_ok() {}
        }
        pass(&a, &b, round).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_restarted_at_the_same_instant_is_accepted() {
    let realm = MemoryRealm::default();
    let [a, mut b]: [InMemory; 2] = nodes(|| realm.open());
    pass(&b, &a, 0).await;
    for round in 1..20 {
        let at = addr(&b).addr;
        drop(b);
        b = realm.open_at(at).expect("free").p2pke(&key(1)).expect("a node");
        pass(&b, &a, round).await;
    }
}

#[tokio::test]
async fn dropping_a_node_frees_its_port_at_once() {
    let node = UdpSwarm::bind(loopback())
        .and_then(|udp| udp.p2pke(&key(0)))
        .expect("a node");
    let at = addr(&node).addr;
    // A reader waits, and the background has run.
    assert!(timeout(Duration::from_millis(20), node.receive()).await.is_err());
    drop(node);
    UdpSwarm::bind(at).expect("free");
}

#[tokio::test]
async fn a_node_whose_medium_is_closed_is_closed() {
    let realm = MemoryRealm::default();
    let below = Arc::new(realm.open());
    let node = below.clone().p2pke(&key(0)).expect("a node");
    let receiving = node.receive();
    let closing = async {
        tokio::task::yield_now().await;
        below.close().await;
    };
    let (received, ()) = tokio::join!(receiving, closing);
    assert!(matches!(received, Err(Error::Closed)));
    let own = KeyAddr::new(node.id(), MemorySwarm::local_addr(&below));
    assert!(matches!(
        node.tell(&own, Packet::default()).await,
        Err(Error::Closed)
    ));
}

#[tokio::test(start_paused = true)]
async fn cancelled_tells_leave_nothing_behind() {
    let [a, b] = in_memory();
    let gone = addr(&b);
    drop(b);
    for _ in 0..100 {
        let told = timeout(Duration::from_millis(1), a.tell(&gone, a.packet(b"ping"))).await;
        assert!(told.is_err());
    }
    sleep(Duration::from_secs(20)).await;
    let [messages, handshakes] = counts(&a);
    assert_eq!(messages.sent, 0);
    // One handshake, whose callers were cancelled before its end.
    assert!(handshakes.sent < 30, "{}", handshakes.sent);
}

/// A bad medium with datagrams of UDP's length.
fn bad(seed: u64, loss: f64) -> impl Fn() -> FaultySwarm<MemoryAddr, MemorySwarm> {
    println!("seed {seed}");
    let config = FaultyConfig {
        seed,
        link: LinkFaults {
            loss,
            duplicate: 0.3,
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(3),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("in range");
    let realm = MemoryRealm::new(MemoryConfig {
        mtu: 1232,
        ..MemoryConfig::default()
    });
    move || realm.open().faulty(faults.clone())
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_asks_over_thirty_percent_loss_none_is_lost_and_none_runs_twice() {
    let [asker, server] = nodes(bad(6, 0.3)).map(|node| node.mbapp(8000));
    let ran = Mutex::new(HashMap::<u32, u32>::new());
    let serving = serve_asks(&server, 256, async |asked| {
        let number = u32::from_be_bytes(*asked.payload.first_chunk().expect("four bytes"));
        *ran.lock().expect("no task panics").entry(number).or_default() += 1;
        Ok(asked.payload)
    });
    let dst = &server.local_addrs()[0];
    let asks = stream::iter(0..10_000_u32).map(|number| {
        let asker = &asker;
        async move {
            let mut request = number.to_be_bytes().to_vec();
            request.resize(if number % 16 == 0 { 8000 } else { 64 }, 7);
            let response = asker.ask(dst, asker.packet(&request)).await;
            assert_eq!(response.expect("an answer"), &request[..], "ask {number}");
        }
    });
    let answered = tokio::select! {
        answered = asks.buffer_unordered(64).count() => answered,
        ended = serving => panic!("{ended:?}"),
    };
    let ran = ran.into_inner().expect("no task panics");
    assert_eq!((answered, ran.len()), (10_000, 10_000));
    assert!(ran.values().all(|ran| *ran == 1), "an ask ran twice");
}

#[tokio::test(start_paused = true)]
async fn every_message_is_accounted_for_over_a_lossy_duplicating_medium() {
    let [a, b] = nodes(bad(5, 0.2));
    let mut received = BTreeSet::new();
    for number in 0..2000_u32 {
        a.tell(&addr(&b), a.packet(&number.to_be_bytes()))
            .await
            .expect("a session");
        let patience = Duration::from_millis(if number == 1999 { 100 } else { 1 });
        while let Ok(message) = timeout(patience, b.receive()).await {
            let number = u32::from_be_bytes(*message.expect("open").payload.first_chunk().expect("four"));
            assert!(received.insert(number), "{number} came twice");
        }
    }
    let [there, _] = counts(&a);
    let [here, _] = counts(&b);
    assert_eq!(there.sent, 2000);
    assert_eq!(here.delivered, received.len() as u64);
    assert_eq!(here.received, here.delivered + here.dropped_total());
    // Only the medium's duplicates are dropped here.
    assert_eq!(here.dropped_total(), here.dropped(DropReason::Duplicate));
    assert!((1500..1700).contains(&received.len()), "{}", received.len());
}
