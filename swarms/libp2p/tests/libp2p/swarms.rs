//! The laws of swarms for hosts, over QUIC and over TCP.

use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Error, Rejection, Result, Swarm as _};
use p2p_formats::varint;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostSwarm, HostSwarmConfig};
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::nodes::{Numbers, Way, dialling_host, forged, host, numbered_key};
use crate::raw::{Shown, keep_streams, keypair, open, place_of};

const ID: &str = "/test/1.0.0";

fn profile() -> Profile {
    Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        ask_patience: Duration::from_secs(40),
        holds: 1024 + 256,
        asks: 1024 + 256,
        ..Profile::default().quick()
    }
}

async fn node(number: u32, way: Way, place: &str) -> Result<HostSwarm> {
    let config = HostConfig {
        max_handshakes_per_prefix: 256,
        // A dial to a node that is gone ends with it.
        handshake_timeout: Duration::from_secs(3),
        ..HostConfig::default()
    };
    let builder = Host::builder(&numbered_key(number)).config(config);
    let builder = builder.security(&[way.security()]).listen(place)?;
    let config = HostSwarmConfig {
        ask_timeout: Duration::from_secs(5),
        mtu: 256 << 10,
        ..HostSwarmConfig::default()
    };
    builder.start().await?.swarm(ID, config)
}

fn testbed(way: Way) -> Testbed<HostAddr> {
    let numbers = Numbers::default();
    let made = numbers.clone();
    let nodes = move |count| {
        let numbers = numbers.clone();
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push(node(numbers.next(), way, way.place()).await?);
            }
            Ok(nodes)
        }
    };
    let rebind = move |addr: HostAddr| {
        let number = made.of(&addr);
        async move { node(number, way, &addr.place().to_string()).await }
    };
    Testbed::new(SecureAsk, nodes)
        .profile(profile())
        .rebind(rebind)
        .forge(forged)
}

/// Writes these bytes on a stream for the swarm, and waits for the end of the stream.
async fn write(host: &Host, to: &HostAddr, bytes: &[u8]) {
    let mut stream = host.open(to, &[ID]).await.expect("a stream");
    // The peer may refuse the rest.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn messages_that_break_the_rules_are_dropped_and_counted() {
    let host = host(1, Way::Quic).await;
    let config = HostSwarmConfig {
        mtu: 100_000,
        reassembly: 110_000,
        ..HostSwarmConfig::default()
    };
    let swarm = host.swarm(ID, config).expect("a new protocol");
    let to = swarm.local_addr().expect("an address");
    let dialler = dialling_host(2).await;
    let framed = |length: u64, len: usize| {
        let mut bytes = p2p_formats::varint::write(length, &mut [0; 10]).to_vec();
        bytes.resize(bytes.len() + len, 7);
        bytes
    };
    write(&dialler, &to, &framed(100_001, 0)).await; // longer than the MTU
    write(&dialler, &to, &framed(10, 9)).await; // shorter than announced
    write(&dialler, &to, &framed(10, 11)).await; // longer than announced
    write(&dialler, &to, &[0x81, 0x00, 7]).await; // a length that is not in its shortest form
    write(&dialler, &to, &[0x80, 0x00, 7]).await; // a rejection
    write(&dialler, &to, &[]).await;
    // Two messages that arrive in part exceed the budget together.
    let mut first = dialler.open(&to, &[ID]).await.expect("a stream");
    first
        .write_all(&framed(100_000, 90_000))
        .await
        .expect("an open stream");
    first.flush().await.expect("an open stream");
    let mut second = dialler.open(&to, &[ID]).await.expect("a stream");
    let _ = second.write_all(&framed(100_000, 99_999)).await;
    let dropped = tokio::select! {
        first = first.read_u8() => first,
        second = second.read_u8() => second,
    };
    assert!(dropped.is_err(), "one of the two is dropped");
    write(&dialler, &to, &framed(3, 3)).await;
    assert_eq!(swarm.receive().await.expect("a message").payload, b"\x07\x07\x07");
    let mut counted = Vec::new();
    swarm.visit_counters(&mut |counters| counted.push(counters.snapshot()));
    let tells = counted[0];
    assert_eq!(tells.dropped(DropReason::Oversize), 1);
    assert_eq!(tells.dropped(DropReason::Lost), 1);
    assert_eq!(tells.dropped(DropReason::Malformed), 4);
    assert_eq!(tells.dropped(DropReason::Budget), 1);
    assert_eq!((tells.received, tells.delivered), (9, 1));
}

/// Opens a stream for the swarm, and writes the length of a message of 100,000 bytes and most of it.
async fn begin_message(
    peer: &quinn::Connection,
    len: usize,
) -> tokio::io::Join<quinn::RecvStream, quinn::SendStream> {
    let mut stream = open(peer, ID).await;
    let mut bytes = varint::write(100_000, &mut [0; varint::MAX_LEN]).to_vec();
    bytes.resize(bytes.len() + len, 7);
    // The host may refuse the rest.
    let _ = stream.write_all(&bytes).await;
    stream
}

#[tokio::test]
async fn one_identity_with_many_connections_takes_no_more_than_one_peers_share() {
    let host = host(1, Way::Quic).await;
    let config = HostSwarmConfig {
        mtu: 100_000,
        reassembly: 1_000_000,
        peer_reassembly: 150_000,
        ..HostSwarmConfig::default()
    };
    let swarm = host.swarm(ID, config).expect("a new protocol");
    let peers = [7, 7, 8].map(Shown::of);
    let [one, same, other] = [&peers[0], &peers[1], &peers[2]].map(|peer| peer.dial_quic(&host));
    let (one, same, other) = tokio::join!(one, same, other);
    let mut first = begin_message(&one.1, 90_000).await;
    // The second connection of the identity gets what the first has left.
    let mut second = begin_message(&same.1, 99_999).await;
    let dropped = tokio::select! {
        first = first.read_u8() => first,
        second = second.read_u8() => second,
    };
    assert!(dropped.is_err(), "one of the two is dropped");
    let mut whole = begin_message(&other.1, 100_000).await;
    whole.shutdown().await.expect("an open stream");
    let message = swarm.receive().await.expect("a message");
    assert_eq!(message.src, HostAddr::of_peer(keypair(8).peer_id()));
    let mut counted = Vec::new();
    swarm.visit_counters(&mut |counters| counted.push(counters.snapshot()));
    assert_eq!(counted[0].dropped(DropReason::Budget), 1);
}

#[tokio::test]
async fn messages_that_a_peer_does_not_end_cost_no_task_each() {
    let host = dialling_host(1).await;
    let swarm = host
        .swarm(ID, HostSwarmConfig::default())
        .expect("a new protocol");
    let endpoint = Shown::of(7).endpoint();
    let to = place_of(7, &endpoint);
    let serve = keep_streams(&endpoint);
    let tell = async {
        swarm.tell(&to, "first".into()).await.expect("a peer");
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        for _ in 0..80 {
            swarm.tell(&to, "more".into()).await.expect("a peer");
        }
        assert!(tasks() <= before + 8, "{} tasks, and {before} before", tasks());
    };
    tokio::select! {
        () = serve => unreachable!("the connection stays"),
        () = tell => {}
    }
}

#[tokio::test]
async fn two_swarms_of_one_host_are_apart_and_the_host_outlives_them() {
    let host = host(1, Way::Quic).await;
    let (one, two) = (
        host.swarm("/one", HostSwarmConfig::default()),
        host.swarm("/two", HostSwarmConfig::default()),
    );
    let (one, two) = (one.expect("a new protocol"), two.expect("a new protocol"));
    assert!(host.swarm("/one", HostSwarmConfig::default()).is_err());
    let peer = node(7, Way::Quic, Way::Quic.place()).await.expect("a free port");
    let theirs = peer
        .host()
        .expect("an open host")
        .swarm("/two", HostSwarmConfig::default())
        .expect("a new protocol");
    let to = host.local_addrs().remove(0);
    theirs.tell(&to, theirs.packet(b"two")).await.expect("a peer");
    assert_eq!(two.receive().await.expect("a message").payload, b"two");
    let refused = peer.ask(&to, peer.packet(b"no such swarm")).await;
    assert!(
        matches!(refused, Err(Error::Rejected(Rejection::NO_CHANNEL))),
        "{refused:?}"
    );
    one.close().await;
    assert!(matches!(one.receive().await, Err(Error::Closed)));
    theirs.tell(&to, theirs.packet(b"again")).await.expect("a peer");
    assert_eq!(two.receive().await.expect("a message").payload, b"again");
    host.swarm("/one", HostSwarmConfig::default())
        .expect("the protocol is free");
    host.close().await;
    assert!(matches!(two.receive().await, Err(Error::Closed)));
}

conformance!(#[tokio::test] mod over_quic: SecureAsk => testbed(Way::Quic));
conformance!(#[tokio::test] mod over_noise: SecureAsk => testbed(Way::Noise));
conformance!(#[tokio::test] mod over_tls: SecureAsk => testbed(Way::Tls));
