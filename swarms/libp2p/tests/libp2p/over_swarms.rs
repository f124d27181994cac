//! QUIC of hosts over swarms: in memory, and over a medium with faults, in virtual time.

use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Result, Swarm};
use p2p_libp2p::addr::{Place, Target};
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent, HostSwarm, HostSwarmConfig};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::{Faults, LinkFaults, MemoryAddr, MemoryRealm, SwarmExt as _};
use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance};

use crate::nodes::{Numbers, forged, memory_addr, numbered_key};

const ID: &str = "/test/1.0.0";
const SEED: u64 = 7;

async fn host<A: Addr>(number: u32, swarm: impl Swarm<A>) -> Result<Host> {
    let config = HostConfig {
        max_handshakes_per_prefix: 256,
        ..HostConfig::default()
    };
    Host::builder(&numbered_key(number))
        .config(config)
        .over(swarm)?
        .start()
        .await
}

/// Loses, duplicates and delays.
fn faults() -> Faults<MemoryAddr> {
    println!("seed {SEED}");
    let config = FaultyConfig {
        seed: SEED,
        link: LinkFaults {
            loss: 0.02,
            duplicate: 0.02,
            delay: Duration::from_millis(2),
            jitter: Duration::from_millis(2),
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    };
    Faults::new(config).expect("faults in range")
}

#[tokio::test(start_paused = true)]
async fn a_hundred_hosts_on_a_bad_medium_ping_and_identify_one_another() {
    let (realm, faults) = (MemoryRealm::default(), faults());
    let mut hosts = Vec::new();
    for seed in 0..100 {
        hosts.push(
            host(seed, realm.open().faulty(faults.clone()))
                .await
                .expect("a host"),
        );
    }
    let addrs: Vec<_> = hosts.iter().map(|host| host.local_addrs().remove(0)).collect();
    let exchanges = hosts.iter().enumerate().map(|(index, host)| {
        let addrs = &addrs;
        async move {
            for step in [1, 7, 31] {
                let to = &addrs[(index + step) % addrs.len()];
                let rtt = host.pinger(to).await?.ping().await?;
                assert!(
                    rtt >= Duration::from_millis(4),
                    "both ways take 2 ms at least: {rtt:?}"
                );
                let identified = host.identify(to).await?;
                assert_eq!(identified.listen_addrs, [to.place().clone()]);
            }
            p2p::Result::<()>::Ok(())
        }
    });
    for exchanged in futures_util::future::join_all(exchanges).await {
        exchanged.expect("QUIC repairs what the medium loses");
    }
    for host in &hosts {
        // Three that it dialled and three that dialled it.
        assert_eq!(host.connections().len(), 6);
    }
}

/// Returns hosts on a medium that takes 100 ms, each with a swarm.
async fn slow_swarms<const N: usize>() -> [HostSwarm; N] {
    let (realm, link) = (MemoryRealm::default(), LinkFaults::default());
    let delay = Duration::from_millis(100);
    let config = FaultyConfig {
        link: LinkFaults { delay, ..link },
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("faults in range");
    let mut swarms = Vec::new();
    for seed in 0..N {
        let seed = u32::try_from(seed).expect("few");
        let host = host(seed, realm.open().faulty(faults.clone()))
            .await
            .expect("a host");
        swarms.push(
            host.swarm(ID, HostSwarmConfig::default())
                .expect("a new protocol"),
        );
    }
    swarms.try_into().expect("as many")
}

#[tokio::test(start_paused = true)]
async fn responses_that_were_accepted_before_close_arrive_on_a_slow_medium() {
    for len in [1, 1_000, 100_000] {
        let [asker, server] = slow_swarms().await;
        let to = server.local_addr().expect("an address");
        let answering = async {
            let request = server.receive_ask().await.expect("a request");
            let accepted = request.respond(vec![7; len].into()).await;
            accepted.expect("room");
            server.close().await;
        };
        let (answer, ()) = tokio::join!(asker.ask(&to, asker.packet(b"request")), answering);
        assert_eq!(answer.expect("an answer").len(), len);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_on_their_way_to_a_node_that_closes_are_counted_once() {
    let [teller, closing] = slow_swarms().await;
    let to = closing.local_addr().expect("an address");
    teller.tell(&to, teller.packet(b"first")).await.expect("room");
    closing.receive().await.expect("open");
    for _ in 0..3 {
        teller.tell(&to, teller.packet(b"late")).await.expect("room");
    }
    closing.close().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let dropped = |swarm: &HostSwarm| {
        let mut dropped = 0;
        swarm.visit_counters(&mut |counters| dropped += counters.snapshot().dropped_total());
        dropped
    };
    assert_eq!((dropped(&teller), dropped(&closing)), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_lost_connection_says_why_it_was_lost() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (host(1, realm.open()).await, host(2, realm.open()).await);
    let (ours, theirs) = (ours.expect("a host"), theirs.expect("a host"));
    let mut pinger = ours
        .pinger(&theirs.local_addrs()[0])
        .await
        .expect("a peer that pings");
    pinger.ping().await.expect("an answer");
    theirs.close().await;
    let error = pinger.ping().await.expect_err("the peer has closed").to_string();
    assert!(error.contains("connection lost: closed by peer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn callers_and_the_host_itself_share_one_identify_stream() {
    // js-libp2p permits one, and resets the second.
    let realm = MemoryRealm::default();
    let (ours, theirs) = (host(1, realm.open()).await, host(2, realm.open()).await);
    let (ours, theirs) = (ours.expect("a host"), theirs.expect("a host"));
    let mut events = ours.events();
    let to = theirs.local_addrs().remove(0);
    let (first, second) = tokio::join!(ours.identify(&to), ours.identify(&to));
    assert_eq!(first.expect("an answer"), second.expect("an answer"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    ours.close().await;
    let mut exchanges = 0;
    while let Ok(event) = events.next().await {
        exchanges += usize::from(matches!(event, HostEvent::Identified { .. }));
    }
    assert_eq!(exchanges, 1);
}

#[tokio::test(start_paused = true)]
async fn the_place_is_the_address_in_the_swarm_below() {
    let realm = MemoryRealm::default();
    let node = realm.open();
    let text = node.local_addrs()[0].to_string();
    let host = host(1, node).await.expect("a host");
    let addr = host.local_addrs().remove(0);
    assert_eq!(addr.transport(), Some(Place::Quic(Target::Swarm(text.clone()))));
    assert_eq!(
        addr.to_string(),
        format!("/unix/{text}/quic-v1/p2p/{}", host.peer_id())
    );
    let escaped: HostAddr = "/unix/a%2Fb%25c/quic-v1".parse().expect("a valid address");
    assert_eq!(
        escaped.transport(),
        Some(Place::Quic(Target::Swarm("a/b%c".to_owned())))
    );
}

async fn node<A: Addr>(number: u32, swarm: impl Swarm<A>) -> Result<HostSwarm> {
    let config = HostSwarmConfig {
        ask_timeout: Duration::from_secs(5),
        mtu: 256 << 10,
        ..HostSwarmConfig::default()
    };
    host(number, swarm).await?.swarm(ID, config)
}

fn with_profile(testbed: Testbed<HostAddr>) -> Testbed<HostAddr> {
    let profile = Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        ask_patience: Duration::from_secs(40),
        holds: 1024 + 256,
        asks: 1024 + 256,
        ..Profile::default().quick()
    };
    testbed.profile(profile).forge(forged)
}

fn memory() -> Testbed<HostAddr> {
    let (realm, numbers) = (MemoryRealm::default(), Numbers::default());
    let (again, made) = (realm.clone(), numbers.clone());
    let nodes = move |count| {
        let (realm, numbers) = (realm.clone(), numbers.clone());
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push(node(numbers.next(), realm.open()).await?);
            }
            Ok(nodes)
        }
    };
    let rebind = move |addr: HostAddr| {
        let (number, place) = (made.of(&addr), memory_addr(&addr));
        let place = place.and_then(|at| again.open_at(at));
        async move { node(number, place?).await }
    };
    with_profile(Testbed::new(SecureAsk, nodes)).rebind(rebind)
}

/// On the wire of the suite, under attack, and with hosts that are made again with their keys.
fn wire() -> Testbed<HostAddr> {
    let numbers = Numbers::default();
    let made = numbers.clone();
    let nodes = move |taps: Vec<Tap>| {
        let numbers = numbers.clone();
        async move {
            let mut nodes = Vec::new();
            for tap in taps {
                nodes.push(node(numbers.next(), tap).await?);
            }
            Ok(nodes)
        }
    };
    let again = move |tap: Tap, addr: HostAddr| node(made.of(&addr), tap);
    with_profile(Testbed::over(SecureAsk, nodes)).restart(SecureAsk, again)
}

conformance!(#[tokio::test(start_paused = true)] mod in_memory: SecureAsk => memory());
conformance!(#[tokio::test(start_paused = true)] mod on_the_wire: SecureAsk => wire());
