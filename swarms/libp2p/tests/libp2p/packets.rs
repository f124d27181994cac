//! Packets of hosts: QUIC datagrams by protocol.

use std::time::Duration;

use p2p::{DropReason, Error, Result, Swarm as _};
use p2p_libp2p::packets::MAX_MTU;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostSwarmConfig, PacketConfig, PacketSwarm};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm};
use p2p_swarmtest::{Profile, Secure, Testbed, conformance};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::nodes::{Way, dialling_host, forged, host, memory_addr, numbered_key, pair, private};
use crate::raw::{Shown, accept_connection, keypair, open, place_of};

const ID: &str = "/test/1.0.0";
const STREAM: &str = "/test/1.0.0/packets";

fn packets(host: &Host) -> PacketSwarm {
    host.packets(ID, PacketConfig::default()).expect("a new protocol")
}

#[tokio::test]
async fn packets_reach_the_peer_and_its_answer_the_source() {
    let (listener, dialler, addr) = pair(Way::Quic).await;
    let (ours, theirs) = (packets(&dialler), packets(&listener));
    for payload in [&b"hello"[..], b"", &[7; MAX_MTU]] {
        ours.tell(&addr, ours.packet(payload)).await.expect("a peer");
        let message = theirs.receive().await.expect("a message");
        assert_eq!(message.payload, *payload);
        assert_eq!(message.src, HostAddr::of_peer(dialler.peer_id()));
        theirs
            .tell(&message.src, "back".into())
            .await
            .expect("the source is reached");
        assert_eq!(ours.receive().await.expect("a message").payload, b"back");
    }
    let long = ours.tell(&addr, ours.packet(&[7; MAX_MTU + 1])).await;
    assert!(matches!(long, Err(Error::MtuExceeded { .. })), "{long:?}");
    assert_eq!(dialler.connections().len(), 1);
}

#[tokio::test]
async fn the_bytes_are_those_of_the_protocol() {
    let host = host(1, Way::Quic).await;
    let first = host
        .packets("/first/1.0.0", PacketConfig::default())
        .expect("a new protocol");
    let theirs = packets(&host);
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    let mut stream = open(&peer, STREAM).await;
    assert_eq!(stream.read_u8().await.expect("a number"), 1);
    peer.send_datagram(b"\x01hello"[..].into()).expect("datagrams");
    let message = theirs.receive().await.expect("a message");
    assert_eq!(
        (&*message.payload, message.src.libp2p_id()),
        (&b"hello"[..], Some(keypair(7).peer_id()))
    );
    // Unknown numbers, a number that is not in its shortest form, and a packet that is too long.
    for datagram in [
        &b"\x07x"[..],
        b"\x81\x00x",
        b"\x80",
        b"",
        &[&[1][..], &[0; MAX_MTU + 1]].concat(),
    ] {
        // The path may not carry the longest.
        let _ = peer.send_datagram(datagram.to_vec().into());
    }
    peer.send_datagram(b"\x01last"[..].into()).expect("datagrams");
    assert_eq!(theirs.receive().await.expect("a message").payload, b"last");
    let mut counted = Vec::new();
    theirs.visit_counters(&mut |counters| counted.push(counters.snapshot()));
    assert_eq!(counted[0].delivered, 2);
    assert_eq!(counted[1].dropped(DropReason::NoChannel), 1);
    assert_eq!(counted[1].dropped(DropReason::Malformed), 3);
    drop(first);

    // The other way around.
    let (recv, mut send) = stream.into_inner();
    send.reset(0_u32.into()).expect("an open stream");
    drop(recv);
    let back = async {
        theirs
            .tell(&HostAddr::of_peer(keypair(7).peer_id()), "back".into())
            .await
    };
    let taken = async {
        loop {
            let (send, recv) = peer.accept_bi().await.expect("a stream");
            let mut stream = tokio::io::join(recv, send);
            if accept_packets(&mut stream).await {
                stream.write_all(&[0xac, 0x02]).await.expect("an open stream");
                return (stream, peer.read_datagram().await.expect("a datagram"));
            }
        }
    };
    let (told, (_stream, datagram)) = tokio::join!(back, taken);
    told.expect("the peer takes packets");
    assert_eq!(&datagram[..], b"\xac\x02back");
}

/// Accepts the protocol of packets, and no other.
async fn accept_packets(stream: &mut tokio::io::Join<quinn::RecvStream, quinn::SendStream>) -> bool {
    let mut length = [0; 21];
    if stream.read_exact(&mut length).await.is_err() || usize::from(length[20]) != STREAM.len() + 1 {
        return false;
    }
    let mut id = vec![0; STREAM.len() + 1];
    stream.read_exact(&mut id).await.expect("an id");
    assert_eq!(id, format!("{STREAM}\n").as_bytes());
    let answer = [&length[..], &id].concat();
    stream.write_all(&answer).await.expect("an open stream");
    true
}

#[tokio::test]
async fn a_peer_without_the_protocol_or_over_tcp_takes_no_packets_and_nothing_else_happens() {
    let (listener, dialler, addr) = pair(Way::Quic).await;
    let ours = packets(&dialler);
    let told = ours.tell(&addr, "nobody".into()).await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    assert_eq!(dialler.connections().len(), 1);
    // It takes them once it has the protocol.
    let theirs = packets(&listener);
    ours.tell(&addr, "hello".into()).await.expect("a peer");
    assert_eq!(theirs.receive().await.expect("a message").payload, b"hello");
    // And no more once it has not.
    theirs.close().await;
    let told = async {
        // The end of the offer has to arrive.
        while ours.tell(&addr, "nobody".into()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .expect("an error");
    let again = packets(&listener);
    ours.tell(&addr, "again".into()).await.expect("a peer");
    assert_eq!(again.receive().await.expect("a message").payload, b"again");

    for way in [Way::Noise, Way::Tls] {
        let (listener, dialler, addr) = pair(way).await;
        let (ours, _theirs) = (packets(&dialler), packets(&listener));
        let told = ours.tell(&addr, "hello".into()).await.expect_err("TCP");
        assert!(told.to_string().contains("TCP"), "{told}");
        let mut pinger = dialler.pinger(&addr).await.expect("a stream");
        pinger.ping().await.expect("the connection goes on");
    }
}

#[tokio::test]
async fn a_peer_that_offers_no_datagrams_takes_no_packets() {
    let dialler = dialling_host(1).await;
    let ours = packets(&dialler);
    let endpoint = Shown::of(7).endpoint_without_datagrams();
    let at = place_of(7, &endpoint);
    let serve = async {
        let peer = accept_connection(&endpoint).await;
        peer.closed().await;
    };
    let tell = async {
        let told = ours.tell(&at, "hello".into()).await.expect_err("no datagrams");
        assert!(told.to_string().contains("no QUIC datagrams"), "{told}");
        dialler.close().await;
    };
    tokio::join!(serve, tell);
}

#[tokio::test]
async fn numbers_that_break_the_rules_are_an_error_and_bound_in_time() {
    let config = HostConfig {
        stream_timeout: Duration::from_millis(300),
        ..HostConfig::default()
    };
    let builder = Host::builder(&private(1)).config(config);
    let dialler = builder.start().await.expect("no port");
    let config = PacketConfig {
        send_timeout: Duration::from_millis(600),
        ..PacketConfig::default()
    };
    let ours = dialler.packets(ID, config).expect("a new protocol");
    let endpoint = Shown::of(7).endpoint();
    let at = place_of(7, &endpoint);
    let answers: [Option<&[u8]>; 4] = [Some(&[0x80, 0x00]), Some(&[0xff; 6]), Some(&[]), None];
    let serve = async {
        let peer = accept_connection(&endpoint).await;
        let (mut kept, mut answers) = (Vec::new(), answers.into_iter());
        while let Ok((send, recv)) = peer.accept_bi().await {
            let mut stream = tokio::io::join(recv, send);
            if accept_packets(&mut stream).await
                && let Some(answer) = answers.next()
            {
                if let Some(answer) = answer {
                    stream.write_all(answer).await.expect("an open stream");
                    let _ = stream.shutdown().await;
                }
                kept.push(stream);
            }
        }
    };
    let tell = async {
        for answer in answers {
            let told = ours.tell(&at, "hello".into()).await.expect_err("no number");
            let fits = match answer {
                Some(_) => matches!(told, Error::Unreachable { .. }),
                None => matches!(told, Error::TimedOut { .. }),
            };
            assert!(fits, "{answer:?}: {told}");
        }
        dialler.close().await;
    };
    tokio::join!(serve, tell);
}

#[tokio::test]
async fn a_peer_that_floods_costs_bounded_memory_and_holds_up_no_stream() {
    let host = host(1, Way::Quic).await;
    let theirs = packets(&host);
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    let mut stream = open(&peer, STREAM).await;
    let number = stream.read_u8().await.expect("a number");
    let flood = async {
        loop {
            let datagram = vec![number; 1000].into();
            peer.send_datagram_wait(datagram).await.expect("datagrams");
        }
    };
    let dialler = crate::nodes::host(2, Way::Quic).await;
    let served = async {
        let addr = host.local_addrs().remove(0);
        let mut pinger = dialler.pinger(&addr).await.expect("a stream");
        for _ in 0..50 {
            pinger.ping().await.expect("an answer");
        }
        // Another stream of the flooding peer.
        open(&peer, p2p_libp2p::ping::PING).await;
    };
    tokio::select! {
        () = flood => unreachable!("it never ends"),
        () = served => {}
    }
    let mut counted = Vec::new();
    theirs.visit_counters(&mut |counters| counted.push(counters.snapshot()));
    let waiting = counted[0].received - counted[0].dropped_total();
    assert!(waiting <= 1024, "{:?}", counted[0]);
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let host = host(1, Way::Quic).await;
    for mtu in [0, MAX_MTU + 1] {
        let config = PacketConfig {
            mtu,
            ..PacketConfig::default()
        };
        assert!(matches!(host.packets(ID, config), Err(Error::Invalid { .. })));
    }
    let first = packets(&host);
    assert!(host.packets(ID, PacketConfig::default()).is_err());
    host.swarm(ID, HostSwarmConfig::default())
        .expect("streams of the same id are apart");
    drop(first);
    packets(&host);
    host.close().await;
}

async fn node(seed: u32, node: MemorySwarm) -> Result<PacketSwarm> {
    let builder = Host::builder(&numbered_key(seed));
    let host = builder.over(node)?.start().await?;
    host.packets(ID, PacketConfig::default())
}

/// Nodes of one realm; the address of a node in it is its seed as well, and follows from its address as a host.
fn testbed() -> Testbed<HostAddr> {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    let seed = |memory: &MemoryAddr| memory.to_string().parse::<u32>().expect("a number");
    let nodes = move |count| {
        let realm = realm.clone();
        async move {
            let mut nodes = Vec::new();
            for _ in 0..count {
                let memory = realm.open();
                nodes.push(node(seed(&memory.local_addrs()[0]), memory).await?);
            }
            Ok(nodes)
        }
    };
    let rebind = move |addr: HostAddr| {
        let realm = again.clone();
        async move {
            let at = memory_addr(&addr)?;
            node(seed(&at), realm.open_at(at)?).await
        }
    };
    let profile = Profile {
        settle: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        holds: 2048,
        ..Profile::default().quick()
    };
    Testbed::new(Secure, nodes)
        .profile(profile)
        .rebind(rebind)
        .forge(forged)
}

conformance!(#[tokio::test(start_paused = true)] mod in_memory: Secure => testbed());
