//! The laws of a swarm for asks over datagrams, and that lost datagrams lose no ask.

use std::collections::HashMap;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use p2p::{AskSwarm as _, Error, Swarm as _, serve_asks};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::{
    Faults, LinkFaults, MbappConfig, MbappSwarm, MemoryAddr, MemoryRealm, SwarmExt as _, UdpConfig, UdpSwarm,
};
use p2p_swarmtest::{Ask, Profile, SecureAsk, Testbed, conformance, loopback};

const SEED: u64 = 11;

/// The memory swarm has keys only for the tests of layers above it.
const NO_WIRE: [&str; 2] = ["wire::", "messages move between nodes in memory, without a wire"];

fn without_wire(profile: Profile) -> Profile {
    let [laws, why] = NO_WIRE;
    profile.waive(laws, why)
}

/// A realm with the MTU of a real medium.
fn realm() -> MemoryRealm {
    MemoryRealm::new(MemoryConfig {
        mtu: 1232,
        ..MemoryConfig::default()
    })
}

fn faults(link: LinkFaults) -> Faults<MemoryAddr> {
    println!("seed {SEED}");
    let config = FaultyConfig {
        seed: SEED,
        link,
        ..FaultyConfig::default()
    };
    Faults::new(config).expect("faults in range")
}

fn memory() -> Testbed<MemoryAddr> {
    let realm = realm();
    let again = realm.clone();
    Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count).map(|_| realm.open().mbapp(8000)).collect()))
    })
    .rebind(move |addr| ready(again.open_at(addr).map(|node| node.mbapp(8000))))
    .profile(without_wire(Profile::default()))
}

fn lossy() -> Testbed<MemoryAddr> {
    let faults = faults(LinkFaults {
        loss: 0.3,
        ..LinkFaults::default()
    });
    let realm = realm();
    let profile = Profile {
        // Four datagrams.
        loss_at_mtu: 0.77,
        // A flood beside asks of which each takes a second, at normal effort, is four million messages.
        ..Profile::lossy(0.3).quick()
    };
    Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count)
            .map(|_| realm.open().faulty(faults.clone()).mbapp(4000))
            .collect()))
    })
    .profile(without_wire(profile))
}

/// A small kernel buffer, so that a small flood fills it.
fn bind(addr: SocketAddr) -> p2p::Result<MbappSwarm<SocketAddr, UdpSwarm>> {
    let mut config = UdpConfig::default();
    config.receive_buffer = 256 << 10;
    let udp = UdpSwarm::with_config(addr, config)?;
    let mut config = MbappConfig::default();
    config.engine.mtu = 16 << 10;
    // These tests run in real time.
    config.timeout = Duration::from_secs(5);
    Ok(MbappSwarm::with_config(udp, config))
}

fn udp() -> Testbed<SocketAddr> {
    let quick = Profile {
        holds: 2048,
        ..Profile::default()
    };
    let law = "counters::every_drop_is_counted";
    let why = "the kernel drops messages when its buffer is full, without reporting it";
    let loopback = loopback();
    Testbed::new(Ask, move |count| {
        ready((0..count).map(|_| bind(SocketAddr::new(loopback, 0))).collect())
    })
    .profile(quick.waive(law, why))
    .rebind(|addr| ready(bind(addr)))
}

conformance!(#[tokio::test(start_paused = true)] mod over_memory: SecureAsk => memory());
conformance!(#[tokio::test(start_paused = true)] mod over_thirty_percent_loss: SecureAsk => lossy());
conformance!(#[tokio::test] mod over_udp: Ask => udp());

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_asks_over_thirty_percent_loss_none_is_lost_and_none_runs_twice() {
    let faults = faults(LinkFaults {
        loss: 0.3,
        duplicate: 0.1,
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(2),
        ..LinkFaults::default()
    });
    let realm = realm();
    let [asker, server] = [(); 2].map(|()| realm.open().faulty(faults.clone()).mbapp(8000));
    let ran = Mutex::new(HashMap::<u32, u32>::new());
    let serving = serve_asks(&server, 256, async |asked| {
        let number = u32::from_be_bytes(*asked.payload.first_chunk().expect("four bytes"));
        *ran.lock().expect("no task panics").entry(number).or_default() += 1;
        Ok(asked.payload)
    });
    let dst = &server.local_addrs()[0];
    let asking = async {
        let asks = stream::iter(0..10_000_u32).map(|number| {
            let asker = &asker;
            async move {
                let mut request = number.to_be_bytes().to_vec();
                request.resize(if number % 16 == 0 { 8000 } else { 64 }, 7);
                let response = asker.ask(dst, asker.packet(&request)).await;
                assert_eq!(response.expect("an answer"), &request[..], "ask {number}");
            }
        });
        asks.buffer_unordered(64).count().await
    };
    let answered = tokio::select! {
        answered = asking => answered,
        ended = serving => panic!("{ended:?}"),
    };
    let ran = ran.into_inner().expect("no task panics");
    assert_eq!((answered, ran.len()), (10_000, 10_000));
    assert!(ran.values().all(|ran| *ran == 1), "an ask ran twice");
}

#[tokio::test]
async fn a_restarted_node_receives_the_responses_to_its_own_asks() {
    let realm = realm();
    let server = realm.open().mbapp(8000);
    let (to, at) = (
        server.local_addrs().remove(0),
        realm.open().local_addrs().remove(0),
    );
    let asking = async {
        // So many within a millisecond that some first asks have the same time.
        for round in 0..100_u8 {
            let node = realm.open_at(at).expect("free").mbapp(8000);
            let answer = node.ask(&to, node.packet(&[round])).await.expect("an answer");
            assert_eq!(*answer, [round], "the response to another ask");
            node.close().await;
        }
    };
    tokio::select! {
        () = asking => {}
        end = serve_asks(&server, 8, async |asked| Ok(asked.payload)) => panic!("{end:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_waiting_calls_still_retransmits_a_lost_response() {
    let faults = faults(LinkFaults::default());
    let realm = realm();
    let [asker, server] = [(); 2].map(|()| realm.open().faulty(faults.clone()).mbapp(8000));
    let dst = server.local_addrs()[0];
    let serving = async {
        let request = server.receive_ask().await.expect("a request");
        faults.cut(&dst, &request.message.src);
        let src = request.message.src;
        request.respond(server.packet(b"pong")).await.expect("it leaves");
        faults.mend(&dst, &src);
    };
    let asking = asker.ask(&dst, asker.packet(b"ping"));
    let (response, ()) = tokio::join!(asking, serving);
    assert_eq!(response.expect("an answer"), b"pong");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_ask_ends_at_its_timeout() {
    let realm = realm();
    let [asker, server] = [(); 2].map(|()| realm.open().mbapp(8000));
    let limit = Duration::from_millis(250);
    let begun = tokio::time::Instant::now();
    let ended = asker
        .ask_within(&server.local_addrs()[0], asker.packet(b"ping"), limit)
        .await;
    assert!(matches!(ended, Err(Error::TimedOut { .. })), "{ended:?}");
    assert!(begun.elapsed() < limit + Duration::from_millis(10));
}

/// Two asks; the server has responded to one, while the other waits.
#[tokio::test(start_paused = true)]
async fn a_response_is_sent_although_its_server_does_something_else() {
    let realm = realm();
    let [asker, server] = [(); 2].map(|()| realm.open().mbapp(8000));
    let dst = server.local_addrs()[0];
    let limit = Duration::from_secs(1);
    let begun = tokio::time::Instant::now();
    let ask = async || {
        let answer = asker.ask_within(&dst, asker.packet(b"ping"), limit).await;
        (answer, begun.elapsed())
    };
    let serving = async {
        // Both requests have arrived before one is received.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let request = server.receive_ask().await.expect("a request");
        request.respond(server.packet(b"pong")).await.expect("room");
        tokio::time::sleep(2 * limit).await;
    };
    let ((one, took), (other, _), ()) = tokio::join!(ask(), ask(), serving);
    assert_eq!(one.expect("an answer"), b"pong");
    // If it came later, it would be the response to a retransmission.
    assert!(took < Duration::from_millis(10), "{took:?}");
    assert!(matches!(other, Err(Error::TimedOut { .. })), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_is_sent_although_its_server_closes() {
    let realm = realm();
    let [asker, server] = [(); 2].map(|()| realm.open().mbapp(8000));
    let dst = server.local_addrs()[0];
    let ask = || asker.ask_within(&dst, asker.packet(b"ping"), Duration::from_secs(1));
    let serving = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let request = server.receive_ask().await.expect("a request");
        request.respond(server.packet(b"pong")).await.expect("room");
        server.close().await;
    };
    let (one, _, ()) = tokio::join!(ask(), ask(), serving);
    assert_eq!(one.expect("an answer"), b"pong");
}
