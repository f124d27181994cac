//! Spoofed packets, false ids and restarts against a P2PKE node, in virtual time where a memory medium
//! suffices.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use p2p::{
    Addr, AskSwarm as _, CounterSnapshot, Counters, Error, Packet, PeerId, SecureSwarm as _, Swarm,
    serve_asks,
};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{
    KeyAddr, MemoryAddr, MemoryRealm, MemorySwarm, P2pkeConfig, P2pkeSwarm, SwarmExt as _, UdpSwarm,
};
use tokio::time::{Instant, sleep, timeout};

type InMemory = P2pkeSwarm<MemoryAddr, MemorySwarm>;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn in_memory<const N: usize>(realm: &MemoryRealm) -> [InMemory; N] {
    std::array::from_fn(|seed| realm.open().p2pke(&key(seed as u8)).expect("a node"))
}

fn addr<A: Addr, S: Swarm<A>>(node: &P2pkeSwarm<A, S>) -> KeyAddr<A> {
    node.local_addrs().remove(0)
}

fn handshakes<A: Addr, S: Swarm<A>>(node: &P2pkeSwarm<A, S>) -> CounterSnapshot {
    let mut found = None;
    node.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == "p2pke-handshake" {
            found = Some(counters.snapshot());
        }
    });
    found.expect("such counters")
}

async fn pass<A: Addr, S: Swarm<A>>(from: &P2pkeSwarm<A, S>, to: &P2pkeSwarm<A, S>, text: &[u8]) {
    from.tell(&addr(to), from.packet(text)).await.expect("a session");
    let message = to.receive().await.expect("open");
    assert_eq!((&message.src, &*message.payload), (&addr(from), text));
}

/// An id that no node has.
fn made_up<A: Addr>(at: &KeyAddr<A>, number: u8) -> KeyAddr<A> {
    KeyAddr::new(PeerId::new([number; 32]), at.addr.clone())
}

/// Checks that a call fails within a round trip, because the peer `there` answers.
async fn names<T: std::fmt::Debug>(there: PeerId, call: impl Future<Output = p2p::Result<T>>) {
    let begun = Instant::now();
    let failed = call.await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    match failed {
        Err(Error::Unreachable { reason, .. }) => {
            assert!(reason.contains(&there.to_string()), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_id_fails_within_a_round_trip_with_an_error_that_names_the_actual_one() {
    let realm = MemoryRealm::default();
    let [a, b] = in_memory(&realm);
    let there = b.id();
    for round in 0..2 {
        let wrong = made_up(&addr(&b), round);
        names(there, a.tell(&wrong, a.packet(b"x"))).await;
        names(there, a.lookup_public_key(&wrong)).await;
        let mut batch = vec![(wrong.clone(), a.packet(b"x")), (wrong, a.packet(b"y"))];
        names(there, async {
            a.tell_batch(&mut batch).await.map_err(|error| {
                assert_eq!((error.sent, error.refused), (0, 2));
                error.first
            })
        })
        .await;
        // The second time there is a session with the true peer, which continues.
        pass(&a, &b, b"true").await;
        pass(&b, &a, b"and back").await;
    }
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
}

async fn ask_a_wrong_id<A: Addr, S: Swarm<A>>([a, b]: [P2pkeSwarm<A, S>; 2]) {
    let (there, wrong) = (b.id(), made_up(&addr(&b), 7));
    let [a, b] = [a, b].map(|node| node.mbapp(8000));
    let right = b.local_addrs().remove(0);
    let serving = serve_asks(&b, 4, async |asked| Ok(asked.payload));
    let asking = async {
        for _ in 0..2 {
            names(there, a.ask(&wrong, a.packet(b"who"))).await;
            let answered = a.ask(&right, a.packet(b"you")).await;
            assert_eq!(answered.expect("an answer"), b"you");
        }
    };
    tokio::select! {
        () = asking => {}
        ended = serving => panic!("{ended:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_ask_to_a_wrong_id_names_the_actual_peer() {
    ask_a_wrong_id(in_memory(&MemoryRealm::default())).await;
}

fn loopback() -> UdpSwarm {
    UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
}

#[tokio::test]
async fn an_ask_to_a_wrong_id_over_udp_names_the_actual_peer() {
    ask_a_wrong_id([1, 2].map(|seed| loopback().p2pke(&key(seed)).expect("a node"))).await;
}

#[tokio::test(start_paused = true)]
async fn false_ids_at_a_nodes_address_do_not_make_it_unreachable() {
    let realm = MemoryRealm::default();
    for lies in [1, 8, 9, 60] {
        let [a, b] = in_memory(&realm);
        let to = addr(&b);
        let lied: Vec<_> = (0..lies).map(|number| made_up(&to, number)).collect();
        let begun = Instant::now();
        let (before, after) = lied.split_at(lied.len() / 2);
        let tell = async |to: &KeyAddr<MemoryAddr>| a.tell(to, a.packet(b"x")).await;
        let liars = |ids: &[KeyAddr<MemoryAddr>]| {
            futures_util::future::join_all(ids.iter().cloned().map(|id| {
                let a = &a;
                async move { a.tell(&id, a.packet(b"x")).await }
            }))
        };
        let (first, told, second) = tokio::join!(liars(before), tell(&to), liars(after));
        told.expect("the true peer is reached");
        assert!(first.iter().chain(&second).all(Result::is_err));
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(100), "{lies} lies: {took:?}");
        assert_eq!(b.receive().await.expect("open").payload, b"x");
        let sent = handshakes(&a).sent;
        assert!(sent <= 6, "callers share handshakes: {sent} packets");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dial_ends_with_its_last_waiting_caller() {
    let realm = MemoryRealm::default();
    let [a, b] = in_memory(&realm);
    let gone = addr(&b);
    drop(b);
    let patience = Duration::from_secs(5);
    let [first, second] = [patience, patience / 5].map(|patience| {
        let told = a.tell(&gone, a.packet(b"x"));
        timeout(patience, told)
    });
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err() && second.is_err());
    let sent = handshakes(&a).sent;
    assert!(sent > 4, "while a caller still waited: {sent}");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(handshakes(&a).sent, sent);
}

#[tokio::test(start_paused = true)]
async fn the_callers_allow_list_may_call_the_swarm() {
    let realm = MemoryRealm::default();
    let own: Arc<OnceLock<Arc<InMemory>>> = Arc::default();
    let called = own.clone();
    let config = P2pkeConfig::default().allow(move |peer| {
        if let Some(node) = called.get() {
            // Each of these takes a lock of the swarm.
            let _ = (node.sessions(), node.disconnect(&PeerId::new([9; 32])));
        }
        *peer != PeerId::new([8; 32])
    });
    let strict = P2pkeSwarm::with_config(realm.open(), &key(1), config).expect("a node");
    let strict = Arc::new(strict);
    assert!(own.set(strict.clone()).is_ok());
    let other = realm.open().p2pke(&key(2)).expect("a node");
    pass(&strict, &other, b"out").await;
    pass(&other, &strict, b"in").await;
    assert_eq!(strict.disconnect_forbidden(), 0);
    assert_eq!(other.disconnect(&strict.id()), 1);
    pass(&other, &strict, b"in again").await;
    sleep(Duration::from_secs(11)).await;
    pass(&strict, &other, b"replaced").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(strict.sessions(), 1);
}

/// Asks a server that was just restarted; returns the time until the response.
async fn first_ask_after_a_restart<A: Addr, S: Swarm<A>>(
    asker: P2pkeSwarm<A, S>,
    mut open: impl FnMut() -> P2pkeSwarm<A, S>,
) -> Duration {
    let asker = asker.mbapp(8000);
    for round in 0..2 {
        let server = open().mbapp(8000);
        let to = server.local_addrs().remove(0);
        let serving = serve_asks(&server, 4, async |asked| Ok(asked.payload));
        let asking = async {
            let begun = Instant::now();
            let answered = asker.ask(&to, asker.packet(b"hello")).await;
            assert_eq!(answered.expect("an answer"), b"hello");
            begun.elapsed()
        };
        let took = tokio::select! {
            took = asking => took,
            ended = serving => panic!("{ended:?}"),
        };
        if round == 1 {
            return took;
        }
        server.close().await;
    }
    unreachable!("two rounds");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_peer_answers_the_first_ask_within_a_second() {
    let realm = MemoryRealm::default();
    let at = realm.open().local_addr();
    let asker = realm.open().p2pke(&key(1)).expect("a node");
    let open = || realm.open_at(at).expect("free").p2pke(&key(2)).expect("a node");
    let took = first_ask_after_a_restart(asker, open).await;
    println!("{took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_restarted_peer_answers_the_first_ask_over_udp_within_a_second() {
    let at = loopback().local_addrs()[0];
    let asker = loopback().p2pke(&key(1)).expect("a node");
    let open = || UdpSwarm::bind(at).expect("free").p2pke(&key(2)).expect("a node");
    let took = first_ask_after_a_restart(asker, open).await;
    println!("{took:?}");
    // Without the hint it took as long as detecting silence: 10 s.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn replies_to_unknown_sources_are_no_longer_than_what_they_sent() {
    let realm = MemoryRealm::default();
    let [node] = in_memory(&realm);
    let (to, stranger) = (addr(&node).addr, realm.open());
    let (mut sent, mut got) = (0, 0);
    for number in 0..2000_usize {
        let mut packet = vec![7; 4 + number % 300];
        packet[..4].copy_from_slice(&(number as u32 % 30).to_be_bytes());
        sent += packet.len();
        stranger.tell(&to, Packet::from(packet)).await.expect("room");
        while let Ok(answer) = timeout(Duration::from_micros(1), stranger.receive()).await {
            got += answer.expect("open").payload.len();
        }
        assert!(got <= sent);
    }
    assert!(got > 0 && node.sessions() == 0);
}

#[tokio::test(start_paused = true)]
async fn messages_told_before_close_arrive() {
    let realm = MemoryRealm::default();
    for count in [1_u32, 50] {
        let [a, b] = in_memory(&realm);
        let to = addr(&b);
        for number in 0..count {
            a.tell(&to, a.packet(&number.to_be_bytes()))
                .await
                .expect("a session");
        }
        let at = addr(&a).addr;
        let mut closing = Box::pin(a.close());
        let first = futures_util::poll!(&mut closing);
        let told = a.tell(&to, a.packet(b"late")).await;
        assert!(
            matches!(told, Err(Error::Closed)),
            "closed from the first poll on: {told:?}"
        );
        if first.is_pending() {
            closing.await;
        }
        realm.open_at(at).expect("free");
        for number in 0..count {
            let message = timeout(Duration::from_secs(1), b.receive()).await;
            let message = message.expect("it arrives").expect("open");
            assert_eq!(message.payload, &number.to_be_bytes());
        }
    }
}
