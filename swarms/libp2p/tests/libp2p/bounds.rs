//! Bounds of what a peer can make a host hold.

use std::time::Duration;

use p2p::Error;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent, Muxer, Stream};
use p2p_swarms::UdpSwarm;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::nodes::{WAYS, Way, host, host_with, pair, private, until};

const HOLD: &str = "/hold/1.0.0";

#[tokio::test]
async fn streams_beyond_the_limit_are_reset_and_ping_and_identify_go_on() {
    for way in WAYS {
        let config = HostConfig {
            max_streams: 3,
            ..HostConfig::default()
        };
        let listener = host_with(1, way, config).await;
        let dialler = host(2, way).await;
        let addr = listener.local_addrs().remove(0);
        let (held, mut holding) = mpsc::unbounded_channel();
        let handler = move |stream: Stream| {
            let _ = held.send(stream);
            async {}
        };
        listener.handle(HOLD, handler).expect("a new protocol");
        let mut streams = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..3 {
            streams.push(dialler.open(&addr, &[HOLD]).await.expect("a stream"));
            kept.push(holding.recv().await.expect("a handler ran"));
        }
        // The reset may overtake the answer to the proposal.
        if let Ok(mut fourth) = dialler.open(&addr, &[HOLD]).await {
            assert!(fourth.read_u8().await.is_err(), "{way:?}: the stream is reset");
        }
        assert_eq!(dialler.connections().len(), 1);
        dialler
            .pinger(&addr)
            .await
            .expect("a stream")
            .ping()
            .await
            .expect("an answer");
        dialler.identify(&addr).await.expect("a message");
        kept.pop();
        let mut fifth = dialler.open(&addr, &[HOLD]).await.expect("a stream");
        let mut stream = holding.recv().await.expect("there is room again");
        stream.write_all(b"x").await.expect("an open stream");
        stream.flush().await.expect("an open stream");
        assert_eq!(fifth.read_u8().await.expect("a byte"), b'x');
    }
}

#[tokio::test]
async fn inbound_connections_are_bounded_and_the_host_goes_on_dialling() {
    for way in WAYS {
        let config = HostConfig {
            max_inbound: 2,
            ..HostConfig::default()
        };
        let listener = host_with(1, way, config).await;
        let addr = listener.local_addrs().remove(0);
        let mut diallers = Vec::new();
        for seed in 2..4 {
            let dialler = host(seed, way).await;
            dialler.identify(&addr).await.expect("room");
            diallers.push(dialler);
        }
        let third = host(4, way).await;
        // The dialler may have finished its handshake before the listener refuses the connection.
        assert!(third.identify(&addr).await.is_err(), "{way:?}");
        assert_eq!(listener.connections().len(), 2);
        let back = third.local_addrs().remove(0);
        listener
            .connect(&back)
            .await
            .expect("own dials have a limit of their own");
        let mut events = listener.events();
        diallers.pop().expect("a dialler").close().await;
        until(&mut events, |event| {
            matches!(event, HostEvent::Disconnected { .. }).then_some(())
        })
        .await;
        let fifth = host(5, way).await;
        fifth.identify(&addr).await.expect("there is room again");
    }
}

#[tokio::test]
async fn connections_in_total_and_those_with_one_peer_are_bounded() {
    let config = HostConfig {
        max_connections: 2,
        max_per_peer: 1,
        ..HostConfig::default()
    };
    let dialler = host_with(1, Way::Noise, config).await;
    let (first, second) = (host(2, Way::Noise).await, host(3, Way::Noise).await);
    let third = host(4, Way::Noise).await;
    dialler.connect(&first.local_addrs()[0]).await.expect("room");
    let place = HostAddr::from_multiaddr(first.local_addrs()[0].place().clone());
    let error = dialler
        .connect(&place)
        .await
        .expect_err("a second connection with the same peer");
    assert!(matches!(error, Error::Limit { limit: 1, .. }), "{error}");
    dialler.connect(&second.local_addrs()[0]).await.expect("room");
    let error = dialler
        .connect(&third.local_addrs()[0])
        .await
        .expect_err("no room");
    assert!(matches!(error, Error::Limit { limit: 2, .. }), "{error}");
}

#[tokio::test]
async fn half_open_handshakes_are_bounded_and_end_in_time() {
    let config = HostConfig {
        max_handshakes: 4,
        handshake_timeout: Duration::from_millis(300),
        ..HostConfig::default()
    };
    let listener = host_with(1, Way::Noise, config).await;
    let to = p2p::Addr::socket_addr(&listener.local_addrs()[0]).expect("a socket address");
    // Each says whether it was answered before it ended.
    let mut silent = JoinSet::new();
    for _ in 0..40 {
        silent.spawn(async move {
            let mut socket = TcpStream::connect(to).await.expect("the host listens");
            let mut answer = Vec::new();
            // A host that has ended the connection may reset it.
            let _ = socket.write_all(b"\x13/multistream/1.0.0\n").await;
            let _ = socket.read_to_end(&mut answer).await;
            !answer.is_empty()
        });
    }
    let answered = silent.join_all().await;
    // Those that are admitted hold their places, apart from the few that are displaced because they are slow.
    let count = answered.iter().filter(|is_answered| **is_answered).count();
    assert!((4..40).contains(&count), "{count} of 40 were admitted at once");
    let dialler = host(2, Way::Noise).await;
    dialler
        .connect(&listener.local_addrs()[0])
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn streams_without_a_negotiation_are_bounded_and_time_out() {
    for way in WAYS {
        let config = HostConfig {
            stream_timeout: Duration::from_millis(300),
            ..HostConfig::default()
        };
        let listener = host_with(1, way, config).await;
        let dialler = host(2, way).await;
        let addr = listener.local_addrs().remove(0);
        let handler = async |mut stream: Stream| {
            let _ = stream.shutdown().await;
            let _ = stream.read_u8().await;
        };
        listener.handle(HOLD, handler).expect("a new protocol");
        // The peer opens streams lazily for an unknown protocol and keeps them.
        let mut kept = Vec::new();
        for _ in 0..100 {
            kept.push(dialler.open_lazily(&addr, "/unknown").await.expect("a stream"));
        }
        for mut stream in kept {
            assert!(stream.read_u8().await.is_err());
        }
        dialler.open(&addr, &[HOLD]).await.expect("a stream");
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_stalls_no_other() {
    // mplex has no windows: how long it stalls others is tested in its module, in virtual time.
    for way in WAYS.into_iter().filter(|way| way.muxer() == Muxer::Yamux) {
        let (listener, dialler, addr) = pair(way).await;
        let (held, mut holding) = mpsc::unbounded_channel();
        let handler = move |stream: Stream| {
            let _ = held.send(stream);
            async {}
        };
        listener.handle(HOLD, handler).expect("a new protocol");
        let mut stalled = dialler.open(&addr, &[HOLD]).await.expect("a stream");
        let _unread = holding.recv().await.expect("a handler ran");
        let flood = vec![0; 1 << 20];
        let mut sent = 0;
        // Until the windows are full.
        while tokio::time::timeout(Duration::from_millis(200), stalled.write_all(&flood))
            .await
            .is_ok()
        {
            sent += flood.len();
            assert!(
                sent < 64 << 20,
                "{way:?}: a stream that is not read takes no more than its window"
            );
        }
        dialler
            .pinger(&addr)
            .await
            .expect("a stream")
            .ping()
            .await
            .expect("an answer");
    }
}

#[tokio::test]
async fn connections_of_one_network_are_bounded_and_own_dials_go_on() {
    // Loopback may have eight times as many.
    let config = HostConfig {
        max_per_prefix: 1,
        ..HostConfig::default()
    };
    let listener = host_with(1, Way::Noise, config).await;
    let addr = listener.local_addrs().remove(0);
    let mut diallers = Vec::new();
    for seed in 2..10 {
        let dialler = host(seed, Way::Noise).await;
        dialler.identify(&addr).await.expect("room");
        diallers.push(dialler);
    }
    let ninth = host(10, Way::Noise).await;
    assert!(ninth.identify(&addr).await.is_err());
    listener
        .connect(&ninth.local_addrs()[0])
        .await
        .expect("own dials are not counted");
}

#[tokio::test]
async fn a_network_is_bounded_over_a_swarm_whose_addresses_have_ips() {
    let node = async |seed: u8, config: HostConfig| {
        let swarm = UdpSwarm::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let builder = Host::builder(&private(seed)).config(config);
        let builder = builder.over(swarm).expect("an MTU that is large enough");
        builder.start().await.expect("a host")
    };
    let config = HostConfig {
        max_per_prefix: 1,
        ..HostConfig::default()
    };
    let listener = node(1, config).await;
    let addr = listener.local_addrs().remove(0);
    let mut diallers = Vec::new();
    for seed in 2..10 {
        let dialler = node(seed, HostConfig::default()).await;
        dialler.identify(&addr).await.expect("room");
        diallers.push(dialler);
    }
    let ninth = node(10, HostConfig::default()).await;
    assert!(ninth.identify(&addr).await.is_err());
    assert_eq!(listener.connections().len(), 8);
}
