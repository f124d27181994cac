//! Two hosts over QUIC, and over TCP with Noise and with TLS.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use p2p::{Addr as _, Error};
use p2p_libp2p::identify::{IDENTIFY, PUSH};
use p2p_libp2p::ping::PING;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent, Stream, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::nodes::{WAYS, Way, dialling_host, host, host_with, pair, private, until};

const ECHO: &str = "/echo/1.0.0";

async fn echo(mut stream: Stream) {
    let (mut read, mut write) = tokio::io::split(&mut stream);
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let mut stream = dialler.open(&addr, &["/unknown", ECHO]).await.expect("a stream");
        assert_eq!((stream.protocol(), stream.peer()), (ECHO, &addr));
        let sent: Vec<u8> = (0..300_000_u32).map(|index| index as u8).collect();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let writing = async {
            write.write_all(&sent).await.expect("an open stream");
            write.shutdown().await.expect("an open stream");
        };
        let mut back = Vec::new();
        let (read, ()) = tokio::join!(read.read_to_end(&mut back), writing);
        read.expect("an open stream");
        assert!(back == sent, "{way:?}: {} bytes came back", back.len());
    }
}

#[tokio::test]
async fn a_connection_is_reused_and_proves_both_peers() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let (sources, mut heard) = mpsc::unbounded_channel();
        let handler = move |mut stream: Stream| {
            let _ = sources.send(stream.peer().clone());
            async move {
                let _ = stream.shutdown().await;
                let _ = stream.read_u8().await;
            }
        };
        listener.handle(ECHO, handler).expect("a new protocol");
        for _ in 0..5 {
            dialler.open(&addr, &[ECHO]).await.expect("a stream");
            assert_eq!(heard.recv().await, Some(HostAddr::of_peer(dialler.peer_id())));
        }
        for (host, peer, is_dialled) in [(&dialler, &listener, true), (&listener, &dialler, false)] {
            let connections = host.connections();
            let [connection] = &connections[..] else {
                panic!("{way:?}: {connections:?}");
            };
            assert_eq!(connection.peer.libp2p_id(), Some(peer.peer_id()));
            assert_eq!(connection.is_dialled, is_dialled);
            let transport = match way {
                Way::Quic => Transport::Quic,
                Way::Noise | Way::Tls | Way::Mplex => Transport::Tcp(way.security(), way.muxer()),
            };
            assert_eq!(connection.transport, transport);
        }
    }
}

#[tokio::test]
async fn the_listener_opens_streams_on_the_same_connection() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        dialler.handle(ECHO, echo).expect("a new protocol");
        let mut events = listener.events();
        dialler.connect(&addr).await.expect("a connection");
        let peer = until(&mut events, |event| match event {
            HostEvent::Connected(connection) => Some(connection.peer),
            _ => None,
        })
        .await;
        let mut stream = listener.open(&peer, &[ECHO]).await.expect("a stream");
        stream.write_all(b"hello").await.expect("an open stream");
        stream.shutdown().await.expect("an open stream");
        let mut back = String::new();
        stream.read_to_string(&mut back).await.expect("an open stream");
        assert_eq!(back, "hello");
        assert_eq!(listener.connections().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_protocol_costs_nothing_else() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let refused = dialler.open(&addr, &["/a", "/b"]).await;
        assert!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
        let mut stream = dialler.open_lazily(&addr, "/a").await.expect("a stream");
        let error = stream.read_u8().await.expect_err("the protocol is unknown");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        dialler.open(&addr, &[ECHO]).await.expect("a stream");
        assert_eq!(dialler.connections().len(), 1);
    }
}

#[tokio::test]
async fn a_dropped_stream_is_a_reset_and_a_closed_one_an_end() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let (ends, mut heard) = mpsc::unbounded_channel();
        let handler = move |mut stream: Stream| {
            let ends = ends.clone();
            async move {
                let mut bytes = Vec::new();
                let end = stream.read_to_end(&mut bytes).await.map(|_| bytes);
                let _ = ends.send(end.map_err(|error| error.kind()));
            }
        };
        listener.handle(ECHO, handler).expect("a new protocol");
        let mut closed = dialler.open(&addr, &[ECHO]).await.expect("a stream");
        closed.write_all(b"all").await.expect("an open stream");
        closed.shutdown().await.expect("an open stream");
        assert_eq!(heard.recv().await, Some(Ok(b"all".to_vec())));
        let mut dropped = dialler.open(&addr, &[ECHO]).await.expect("a stream");
        dropped.write_all(b"a part").await.expect("an open stream");
        dropped.flush().await.expect("an open stream");
        drop(dropped);
        let end = heard.recv().await.expect("a handler ran");
        assert!(end.is_err(), "{way:?}: {end:?}");
    }
}

#[tokio::test]
async fn pings_are_answered_again_and_again_on_one_stream() {
    for way in WAYS {
        let (_listener, dialler, addr) = pair(way).await;
        let mut pinger = dialler.pinger(&addr).await.expect("a stream");
        for _ in 0..10 {
            let rtt = pinger.ping().await.expect("an answer");
            assert!(rtt < Duration::from_secs(10));
        }
    }
}

#[tokio::test]
async fn perf_moves_as_many_bytes_as_are_wanted_and_is_off_by_default() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        assert!(matches!(
            dialler.perf(&addr, 1, 1).await,
            Err(Error::Unreachable { .. })
        ));
        listener.serve_perf().expect("it is not served yet");
        for (up, down) in [(0, 0), (1, 0), (0, 1), (500_000, 300_001)] {
            dialler.perf(&addr, up, down).await.expect("the bytes arrive");
        }
    }
}

#[tokio::test]
async fn both_peers_identify_themselves() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let mut events = listener.events();
        let identified = dialler.identify(&addr).await.expect("a message");
        for protocol in [PING, IDENTIFY, PUSH, ECHO] {
            assert!(identified.protocols.iter().any(|id| id == protocol), "{protocol}");
        }
        assert_eq!(identified.listen_addrs, [addr.place().clone()]);
        assert!(identified.agent.starts_with("p2p-libp2p/"));
        let record = identified.record.as_ref().expect("a signed record");
        assert_eq!(
            (record.peer_id, &record.addrs),
            (listener.peer_id(), &identified.listen_addrs)
        );
        let observed = identified.observed_addr.clone().map(HostAddr::from_multiaddr);
        let observed = observed
            .and_then(|addr| addr.socket_addr())
            .expect("an observed address");
        assert!(observed.ip().is_loopback());

        let (peer, theirs) = until(&mut events, |event| match event {
            HostEvent::Identified { peer, identified } => Some((peer, identified)),
            _ => None,
        })
        .await;
        assert_eq!(peer, HostAddr::of_peer(dialler.peer_id()));
        assert_eq!(theirs.listen_addrs, [dialler.local_addrs()[0].place().clone()]);
    }
}

#[tokio::test]
async fn a_new_protocol_is_pushed() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let (mut events, mut theirs) = (dialler.events(), listener.events());
        dialler.identify(&addr).await.expect("a message");
        // The listener pushes to peers that it knows to accept pushes.
        until(&mut theirs, |event| {
            matches!(event, HostEvent::Identified { .. }).then_some(())
        })
        .await;
        listener.handle(ECHO, echo).expect("a new protocol");
        until(&mut events, |event| match event {
            HostEvent::Identified { identified, .. } => {
                identified.protocols.iter().any(|id| id == ECHO).then_some(())
            }
            _ => None,
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_is_dialled_by_its_id_once_it_has_identified_itself() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let mut events = dialler.events();
        dialler.identify(&addr).await.expect("a message");
        assert_eq!(dialler.disconnect(&addr), 1);
        until(&mut events, |event| match event {
            HostEvent::Disconnected { is_last: true, .. } => Some(()),
            _ => None,
        })
        .await;
        dialler
            .open(&HostAddr::of_peer(listener.peer_id()), &[ECHO])
            .await
            .expect("a stream");
    }
}

#[tokio::test]
async fn another_peer_than_the_dialled_one_is_refused() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let other = host(3, way).await;
        let wrong = HostAddr::new(other.peer_id(), addr.place().clone());
        let refused = dialler.open(&wrong, &[ECHO]).await;
        assert!(
            matches!(refused, Err(Error::Unreachable { .. })),
            "{way:?}: {refused:?}"
        );
        assert!(dialler.connections().is_empty());
        // The place goes on serving the peer that is there.
        dialler.open(&addr, &[ECHO]).await.expect("a stream");
    }
}

#[tokio::test]
async fn a_place_without_an_id_reaches_the_peer_that_is_there() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let place = HostAddr::from_multiaddr(addr.place().clone());
        let peer = dialler.connect(&place).await.expect("a connection");
        assert_eq!(peer, HostAddr::of_peer(listener.peer_id()));
    }
}

#[tokio::test]
async fn callers_share_one_dial() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let mut events = listener.events();
        let calls = (0..20).map(|_| dialler.connect(&addr));
        for connected in futures_util::future::join_all(calls).await {
            connected.expect("a connection");
        }
        assert_eq!(dialler.connections().len(), 1);
        until(&mut events, |event| {
            matches!(event, HostEvent::Identified { .. }).then_some(())
        })
        .await;
        assert_eq!(listener.connections().len(), 1);
    }
}

#[tokio::test]
async fn a_host_that_is_gone_is_unreachable_and_not_for_long() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        dialler.connect(&addr).await.expect("a connection");
        let mut events = dialler.events();
        listener.close().await;
        until(&mut events, |event| {
            matches!(event, HostEvent::Disconnected { .. }).then_some(())
        })
        .await;
        assert!(dialler.connections().is_empty());
        if way != Way::Quic {
            // The system refuses at once; over QUIC silence has to last until the timeout.
            assert!(matches!(
                dialler.connect(&addr).await,
                Err(Error::Unreachable { .. })
            ));
        }
    }
}

#[tokio::test]
async fn closing_ends_calls_and_frees_the_addresses() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        listener.handle(ECHO, echo).expect("a new protocol");
        let mut stream = dialler.open(&addr, &[ECHO]).await.expect("a stream");
        dialler.close().await;
        dialler.close().await;
        assert!(stream.read_u8().await.is_err());
        assert!(matches!(dialler.connect(&addr).await, Err(Error::Closed)));
        assert!(matches!(dialler.open(&addr, &[ECHO]).await, Err(Error::Closed)));
        let place = dialler.local_addrs().remove(0).place().to_string();
        let again = Host::builder(&private(2)).listen(&place).expect("a valid place");
        again.start().await.expect("the port is free");
    }
}

#[tokio::test]
async fn a_host_without_a_handle_is_closed() {
    for way in WAYS {
        let (listener, dialler, addr) = pair(way).await;
        let mut events = dialler.events();
        dialler.connect(&addr).await.expect("a connection");
        drop(listener);
        until(&mut events, |event| {
            matches!(event, HostEvent::Disconnected { .. }).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_host_listens_and_dials_in_several_ways_at_once() {
    let builder = Host::builder(&private(1))
        .listen(Way::Quic.place())
        .expect("a valid place");
    let listener = builder
        .listen(Way::Noise.place())
        .expect("a valid place")
        .start()
        .await
        .expect("free ports");
    let addrs = listener.local_addrs();
    assert_eq!(addrs.len(), 2);
    for addr in addrs {
        let dialler = dialling_host(2).await;
        dialler.connect(&addr).await.expect("a connection");
        let transport = dialler.connections()[0].transport;
        assert_eq!(transport == Transport::Quic, addr.to_string().contains("quic"));
    }
    let config = HostConfig {
        quic_head_start: Duration::from_mins(1),
        ..HostConfig::default()
    };
    let builder = Host::builder(&private(2)).config(config);
    let dialler = builder.start().await.expect("no port");
    let places = listener
        .local_addrs()
        .into_iter()
        .rev()
        .map(|addr| addr.place().clone());
    dialler.add_addrs(listener.peer_id(), places);
    dialler
        .connect(&HostAddr::of_peer(listener.peer_id()))
        .await
        .expect("a connection");
    assert_eq!(
        dialler.connections()[0].transport,
        Transport::Quic,
        "QUIC is dialled first"
    );
}

#[tokio::test]
async fn a_place_that_does_not_answer_holds_up_another_one_for_its_head_start_alone() {
    let listener = host(1, Way::Noise).await;
    // Among private addresses it is an eighth.
    let config = HostConfig {
        quic_head_start: Duration::from_secs(2),
        ..HostConfig::default()
    };
    let dialler = host_with(2, Way::Noise, config).await;
    // Nothing listens there; a datagram is not answered.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("a bound port").port();
    let dead = format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        .parse()
        .expect("a multiaddr");
    dialler.add_addrs(
        listener.peer_id(),
        [listener.local_addrs()[0].place().clone(), dead],
    );
    let began = Instant::now();
    dialler
        .connect(&HostAddr::of_peer(listener.peer_id()))
        .await
        .expect("a connection");
    assert!(
        began.elapsed() >= Duration::from_millis(250),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        dialler.connections()[0].transport,
        Transport::Tcp(Way::Noise.security(), Way::Noise.muxer())
    );
}

#[tokio::test]
async fn protocol_ids_are_checked() {
    let host = dialling_host(1).await;
    for id in ["echo", "", "/a\nb", PING, IDENTIFY] {
        assert!(
            matches!(host.handle(id, echo), Err(Error::Invalid { .. })),
            "{id}"
        );
    }
    host.handle(ECHO, echo).expect("a new protocol");
    assert!(host.handle(ECHO, echo).is_err());
    assert!(host.stop_handling(ECHO) && !host.stop_handling(ECHO));
    host.handle(ECHO, echo).expect("a free protocol");
    for place in [
        "/ip4/127.0.0.1/udp/0",
        "/dns4/localhost/tcp/0",
        "/memory/1",
        "127.0.0.1:0",
    ] {
        assert!(Host::builder(&private(1)).listen(place).is_err());
    }
}
