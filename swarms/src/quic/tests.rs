//! What needs a look inside, or a peer made with QUIC's library alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    AskSwarm as _, Counters, Error, Packet, PeerId, Reason, Rejection, Result, SecureSwarm as _, Swarm as _,
};
use p2p_formats::x509::{PrivateKey, sha3_256};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use serde_json::Value;

use super::tls::{self, Check, Identity};
use super::{Base, QuicConfig, QuicSwarm, udp_base};
use crate::{KeyAddr, MemoryRealm};

const LOOPBACK: &str = "127.0.0.1:0";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn udp(seed: u8, config: QuicConfig) -> QuicSwarm<SocketAddr> {
    QuicSwarm::bind_udp_with(LOOPBACK.parse().expect("an address"), &key(seed), config).expect("a free port")
}

fn nodes() -> [QuicSwarm<SocketAddr>; 2] {
    [1, 2].map(|seed| udp(seed, QuicConfig::default()))
}

fn addr(swarm: &QuicSwarm<SocketAddr>) -> KeyAddr<SocketAddr> {
    swarm.local_addrs().remove(0)
}

fn vectors() -> Value {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/quic.json", env!("CARGO_MANIFEST_DIR")));
    serde_json::from_str(&text.expect("the vectors are there")).expect("and are JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = value.as_str().expect("a string");
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect()
}

fn dropped(swarm: &QuicSwarm<SocketAddr>, layer: &str, reason: Reason) -> u64 {
    let mut count = 0;
    swarm.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == layer {
            count += counters.snapshot().dropped(reason);
        }
    });
    count
}

/// A peer that is no swarm: an endpoint of QUIC's library, with this crate's certificates.
struct Raw(Endpoint);

impl Raw {
    fn new(seed: u8) -> Self {
        Self::with(seed, quinn::TransportConfig::default())
    }

    fn with(seed: u8, transport: quinn::TransportConfig) -> Self {
        let config = Arc::new(QuicConfig::default());
        let identity = Identity::new(&key(seed), &config).expect("a good key");
        let check = || Check {
            config: config.clone(),
            expected: None,
            counters: Arc::new(Counters::new("raw")),
            refusal: Arc::default(),
        };
        let (crypto, transport) = (Arc::new(tls::crypto()), Arc::new(transport));
        let server = tls::server(&identity, check(), crypto.clone()).expect("a configuration");
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone());
        let socket = std::net::UdpSocket::bind(LOOPBACK).expect("a free port");
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime).expect("an endpoint");
        let client = tls::client(&identity, check(), crypto).expect("a configuration");
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        endpoint.set_default_client_config(client);
        Self(endpoint)
    }

    fn addr(&self, seed: u8) -> KeyAddr<SocketAddr> {
        let signer = QuicConfig::default()
            .registry
            .signer(&key(seed))
            .expect("a good key");
        KeyAddr::new(sha3_256(signer.public_key()), self.0.local_addr().expect("bound"))
    }

    async fn dial(&self, swarm: &QuicSwarm<SocketAddr>) -> Connection {
        let connecting = self.0.connect(addr(swarm).addr, "whatever").expect("it dials");
        connecting.await.expect("a connection")
    }

    async fn accept(&self) -> Connection {
        self.0.accept().await.expect("open").await.expect("a connection")
    }
}

/// Serves asks as the observed server did: `re:` and the request.
async fn serve(swarm: &QuicSwarm<SocketAddr>) {
    while let Ok(request) = swarm.receive_ask().await {
        let response = [b"re:", &*request.payload].concat();
        request.respond(Packet::from(response)).await.expect("it left");
    }
}

#[tokio::test]
async fn asks_are_served_as_observed() {
    let vectors = vectors();
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let client = async {
        for case in vectors["ask_server"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            // The observed handler answered these two otherwise.
            if name.starts_with("handler") {
                continue;
            }
            let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
            send.write_all(&bytes(&case["request_bytes"]))
                .await
                .expect("written");
            if case["client_fin_after_request"] == true {
                send.finish().expect("finished");
            }
            let read = recv.read_to_end(1000).await;
            if case["server_fin"] == true {
                assert_eq!(read.expect(name), bytes(&case["response_bytes"]), "{name}");
            } else {
                // Where the observed server is silent for ever, ours ends the stream.
                assert!(read.map_or(true, |bytes| bytes.is_empty()), "{name}");
            }
        }
    };
    tokio::select! {
        () = serve(&swarm) => panic!("closed"),
        () = client => {}
    }
    assert_eq!(dropped(&swarm, "quic-ask", Reason::Oversize), 1);
    assert_eq!(dropped(&swarm, "quic-ask", Reason::Malformed), 3);
}

#[tokio::test]
async fn a_request_that_is_dropped_ends_with_no_bytes_as_observed() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    send.write_all(b"\0\0\0\x04ping").await.expect("written");
    drop(swarm.receive_ask().await.expect("a request"));
    assert_eq!(recv.read_to_end(10).await.expect("an end"), b"");
}

#[tokio::test]
async fn tells_are_received_as_observed_and_one_that_is_too_long_is_dropped_whole() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let send = async |payload: &[u8]| {
        let mut send = connection.open_uni().await.expect("a stream");
        // Stopped where it is too long.
        let _ = send.write_all(payload).await;
        let _ = send.finish();
    };
    for case in vectors()["tell_server"].as_array().expect("cases") {
        let len = usize::try_from(case["stream_length"].as_u64().expect("a length")).expect("it fits");
        let payload = match &case["stream_bytes"] {
            Value::String(_) => bytes(&case["stream_bytes"]),
            _ => vec![7; len],
        };
        assert_eq!(payload.len(), len);
        let (received, ()) = tokio::join!(
            async {
                if len > swarm.mtu() {
                    while dropped(&swarm, "quic", Reason::Oversize) == 0 {
                        tokio::task::yield_now().await;
                    }
                    return None;
                }
                Some(swarm.receive().await.expect("a message"))
            },
            send(&payload)
        );
        if let Some(received) = received {
            assert_eq!(received.payload, payload[..]);
            assert_eq!(received.src, raw.addr(2));
            assert_eq!(received.dst, addr(&swarm));
        }
    }
}

#[tokio::test]
async fn responses_are_read_as_observed() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let to = raw.addr(2);
    let server = async {
        let connection = raw.accept().await;
        for case in vectors()["client"].as_array().expect("cases") {
            let Some(answer) = case.get("answer_bytes") else {
                continue;
            };
            let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
            let mut request = vec![0; bytes(&case["request_bytes"]).len()];
            recv.read_exact(&mut request).await.expect("a request");
            assert_eq!(request, bytes(&case["request_bytes"]));
            // The client may have seen enough already.
            let _ = send.write_all(&bytes(answer)).await;
            let _ = send.finish();
        }
        connection
    };
    let client = async {
        for case in vectors()["client"].as_array().expect("cases") {
            if case.get("answer_bytes").is_none() {
                continue;
            }
            let asked = swarm.ask(&to, Packet::from(b"ping")).await;
            match case["ask_error"].as_str() {
                None => assert_eq!(asked.expect("an answer"), bytes(&case["response"])[..]),
                Some("EOF") => assert!(
                    matches!(asked, Err(Error::Rejected(Rejection::DROPPED))),
                    "{asked:?}"
                ),
                Some(_) => assert!(matches!(asked, Err(Error::Invalid { .. })), "{asked:?}"),
            }
        }
    };
    let (_connection, ()) = tokio::join!(server, client);
}

#[tokio::test]
async fn a_server_that_never_frees_the_streams_of_asks_is_dialled_again() {
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(3_u32.into());
    let raw = Raw::with(2, transport);
    let (swarm, to) = (udp(1, QuicConfig::default()), raw.addr(2));
    let serving = tokio::spawn(async move {
        let mut kept = Vec::new();
        let mut sessions = 0;
        loop {
            let connection = raw.accept().await;
            sessions += 1;
            for _ in 0..3 {
                let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
                recv.read_exact(&mut [0; 8]).await.expect("a request");
                send.write_all(b"\0\0\0\x04pong").await.expect("written");
                // Neither finished nor read to the end: the peer gets no room for another one.
                kept.push((send, recv));
            }
            if sessions == 3 {
                return kept;
            }
        }
    });
    for _ in 0..9 {
        assert_eq!(
            swarm.ask(&to, Packet::from(b"ping")).await.expect("an answer"),
            b"pong"
        );
    }
    drop(serving.await.expect("three sessions"));
}

#[tokio::test]
async fn a_client_that_never_ends_its_side_has_its_streams_freed() {
    let config = QuicConfig {
        max_streams: 2,
        ..QuicConfig::default()
    };
    let swarm = udp(1, config);
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let client = async {
        for _ in 0..10 {
            let (mut send, mut recv) = connection.open_bi().await.expect("room for another ask");
            send.write_all(b"\0\0\0\x04ping").await.expect("written");
            assert_eq!(
                recv.read_to_end(100).await.expect("an answer"),
                b"\0\0\0\x07re:ping"
            );
        }
    };
    tokio::select! {
        () = serve(&swarm) => panic!("closed"),
        () = client => {}
    }
}

#[tokio::test]
async fn whoever_dials_without_the_protocol_or_a_certificate_gets_no_session() {
    let swarm = udp(1, QuicConfig::default());
    let config = Arc::new(QuicConfig::default());
    let check = Check {
        config,
        expected: None,
        counters: Arc::new(Counters::new("raw")),
        refusal: Arc::default(),
    };
    let anonymous = rustls::ClientConfig::builder_with_provider(Arc::new(tls::crypto()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a configuration")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut anonymous = anonymous.with_no_client_auth();
    let raw = Raw::new(2);
    for alpn in [&b"p2p"[..], b"h3"] {
        anonymous.alpn_protocols = vec![alpn.to_vec()];
        let crypto =
            quinn::crypto::rustls::QuicClientConfig::try_from(anonymous.clone()).expect("a configuration");
        let client = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = raw
            .0
            .connect_with(client, addr(&swarm).addr, "p2p")
            .expect("it dials");
        let error = match connecting.await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        let expected = if alpn == b"p2p" { 0x174 } else { 0x178 };
        match error {
            quinn::ConnectionError::ConnectionClosed(close) => {
                assert_eq!(u64::from(close.error_code), expected, "as observed");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(swarm.sessions(), 0);
}

fn only(group: &'static dyn rustls::crypto::SupportedKxGroup) -> rustls::crypto::CryptoProvider {
    rustls::crypto::CryptoProvider {
        kx_groups: vec![group],
        ..tls::crypto()
    }
}

#[tokio::test]
async fn both_ends_agree_on_the_post_quantum_group_where_both_have_it() {
    let ours = tls::crypto();
    assert_eq!(
        ours.kx_groups.first().map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
    for group in [X25519MLKEM768, X25519] {
        let base: Base<SocketAddr> = udp_base(LOOPBACK.parse().expect("an address")).expect("a free port");
        let other = QuicSwarm::start(base, &key(2), QuicConfig::default(), only(group)).expect("a node");
        let swarm = udp(1, QuicConfig::default());
        swarm
            .tell(&addr(&other), Packet::from(b"hello"))
            .await
            .expect("sent");
        assert_eq!(other.receive().await.expect("received").payload, b"hello");
    }
}

#[tokio::test]
async fn the_wrong_identity_at_the_right_address_gets_nothing_not_even_a_certificate() {
    let [a, b] = nodes();
    let wrong = KeyAddr::new(PeerId::new([9; 32]), addr(&b).addr);
    let told = a.tell(&wrong, Packet::from(b"secret")).await;
    assert!(
        matches!(&told, Err(Error::Unreachable { reason, .. }) if reason.contains("another identity")),
        "{told:?}"
    );
    let asked = a.ask(&wrong, Packet::from(b"secret")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    assert_eq!((a.sessions(), b.sessions()), (0, 0));
    assert_eq!(dropped(&a, "quic-handshake", Reason::Unauthenticated), 2);
}

#[tokio::test]
async fn who_is_not_allowed_is_turned_away_in_the_handshake_in_both_directions() {
    let open = udp(1, QuicConfig::default());
    let open_id = open.id();
    let closed = udp(2, QuicConfig::default().allow(move |peer| *peer != open_id));
    let friend = udp(3, QuicConfig::default());

    let asked = open.ask(&addr(&closed), Packet::from(b"let me in")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    assert_eq!(
        dropped(&closed, "quic-handshake", Reason::Denied),
        1 + dropped(&closed, "quic", Reason::Denied)
    );
    assert_eq!(closed.sessions(), 0);
    let told = closed.tell(&addr(&open), Packet::from(b"never")).await;
    assert!(matches!(told, Err(Error::Denied { .. })), "{told:?}");

    friend
        .tell(&addr(&closed), Packet::from(b"hello"))
        .await
        .expect("sent");
    assert_eq!(closed.receive().await.expect("received").payload, b"hello");
}

#[tokio::test]
async fn who_becomes_forbidden_is_disconnected_at_once() {
    let [a, b] = nodes();
    let allowed = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = allowed.clone();
    let c = udp(
        3,
        QuicConfig::default().allow(move |_| switch.load(std::sync::atomic::Ordering::SeqCst)),
    );
    a.tell(&addr(&c), Packet::from(b"1")).await.expect("sent");
    b.tell(&addr(&c), Packet::from(b"2")).await.expect("sent");
    c.receive().await.expect("received");
    c.receive().await.expect("received");
    assert_eq!(c.disconnect(&a.id()), 1);
    assert_eq!(c.disconnect_forbidden(), 0);
    allowed.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(c.disconnect_forbidden(), 1);
    assert_eq!(c.sessions(), 0);
}

#[tokio::test]
async fn a_session_is_reused_in_both_directions() {
    let [a, b] = nodes();
    for _ in 0..10 {
        a.tell(&addr(&b), Packet::from(b"there")).await.expect("sent");
        let there = b.receive().await.expect("received");
        assert_eq!(there.src, addr(&a));
        b.tell(&there.src, Packet::from(b"back")).await.expect("sent");
        assert_eq!(a.receive().await.expect("received").src, addr(&b));
    }
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
    assert_eq!(
        &a.lookup_public_key(&addr(&b)).await.expect("known"),
        &b.public_key()
    );
}

#[tokio::test]
async fn who_dial_each_other_at_the_same_time_get_every_message_and_agree_on_a_session() {
    let [a, b] = nodes();
    let (to_a, to_b) = (addr(&a), addr(&b));
    let (first, second) = tokio::join!(
        a.tell(&to_b, Packet::from(b"to b")),
        b.tell(&to_a, Packet::from(b"to a"))
    );
    first.and(second).expect("sent");
    assert_eq!(a.receive().await.expect("received").payload, b"to a");
    assert_eq!(b.receive().await.expect("received").payload, b"to b");
    // Each has both sessions by now, and both take the one that the smaller id dialled.
    let live = |swarm: &QuicSwarm<SocketAddr>, peer| {
        let session = swarm.node.sessions().find(peer).expect("a session");
        session.outbound == (session.local.id < session.peer.id)
    };
    assert!(a.sessions() <= 2 && b.sessions() <= 2);
    if a.sessions() == 2 && b.sessions() == 2 {
        assert!(live(&a, &to_b) && live(&b, &to_a));
    }
}

#[tokio::test]
async fn at_the_bound_the_least_recently_used_session_goes() {
    let hub = udp(
        1,
        QuicConfig {
            max_sessions: 2,
            ..QuicConfig::default()
        },
    );
    let peers = [2, 3, 4].map(|seed| udp(seed, QuicConfig::default()));
    for peer in &peers {
        hub.tell(&addr(&peers[0]), Packet::from(b"used"))
            .await
            .expect("sent");
        hub.tell(&addr(peer), Packet::from(b"hello")).await.expect("sent");
        peer.receive().await.expect("received");
        assert!(hub.sessions() <= 2);
    }
    let mut sessions = hub.node.sessions();
    assert!(sessions.find(&addr(&peers[0])).is_some() && sessions.find(&addr(&peers[1])).is_none());
}

#[tokio::test]
async fn a_message_over_the_mtu_is_an_error_and_one_of_the_mtu_arrives() {
    let [a, b] = nodes();
    let over = Packet::from(vec![7; a.mtu() + 1]);
    assert!(matches!(
        a.tell(&addr(&b), over.clone()).await,
        Err(Error::MtuExceeded { .. })
    ));
    assert!(matches!(
        a.ask(&addr(&b), over).await,
        Err(Error::MtuExceeded { .. })
    ));
    let to = addr(&b);
    let (sent, received) = tokio::join!(a.tell(&to, Packet::from(vec![7; a.mtu()])), b.receive());
    sent.expect("sent");
    assert_eq!(received.expect("received").payload.len(), a.mtu());
}

#[tokio::test]
async fn a_response_over_the_askers_mtu_is_an_error_before_it_is_held() {
    let a = udp(
        1,
        QuicConfig {
            mtu: 100,
            ..QuicConfig::default()
        },
    );
    let b = udp(2, QuicConfig::default());
    let answer = async {
        let request = b.receive_ask().await.expect("a request");
        let _ = request.respond(Packet::from(vec![7; 101])).await;
    };
    let to = addr(&b);
    let (asked, ()) = tokio::join!(a.ask(&to, Packet::from(b"much")), answer);
    assert!(matches!(asked, Err(Error::Invalid { .. })), "{asked:?}");
}

#[tokio::test]
async fn messages_that_never_end_are_dropped_at_the_budget_and_given_back() {
    let config = QuicConfig {
        session_reassembly: 100_000,
        ..QuicConfig::default()
    };
    let swarm = udp(1, config);
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut send = connection.open_uni().await.expect("a stream");
        let _ = send.write_all(&vec![7; 50_000]).await;
        streams.push(send);
    }
    while dropped(&swarm, "quic", Reason::Budget) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(swarm.node.budget.held() <= 100_000);
    connection.close(0_u32.into(), b"");
    while swarm.node.budget.held() > 0 || swarm.sessions() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_comes_back_with_its_key_ends_what_it_does_not_know_any_more() {
    let [a, b] = nodes();
    let to = addr(&b);
    a.tell(&to, Packet::from(b"1")).await.expect("sent");
    b.receive().await.expect("received");
    // It vanishes without a word: its socket is cut off before the farewell.
    let endpoint = b.node.endpoint().expect("open");
    let elsewhere = quinn::Runtime::wrap_udp_socket(
        &TokioRuntime,
        std::net::UdpSocket::bind(LOOPBACK).expect("a free port"),
    );
    endpoint
        .rebind_abstract(elsewhere.expect("a socket"))
        .expect("rebound");
    endpoint
        .rebind(std::net::UdpSocket::bind(LOOPBACK).expect("a free port"))
        .expect("rebound");
    drop(b);
    let again = loop {
        match QuicSwarm::bind_udp(to.addr, &key(2)) {
            Ok(again) => break again,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    // What is told into the old session is lost; the answer to it ends that session.
    let began = tokio::time::Instant::now();
    let received = async {
        loop {
            a.tell(&to, Packet::from(b"2")).await.expect("sent");
            tokio::select! {
                received = again.receive() => break received.expect("received"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    assert_eq!(received.await.payload, b"2");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "long before the idle timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_without_traffic_ends_and_the_next_message_makes_another() {
    let realm = MemoryRealm::default();
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let to = b.local_addrs().remove(0);
    for _ in 0..2 {
        a.tell(&to, Packet::from(b"hello")).await.expect("sent");
        b.receive().await.expect("received");
        assert_eq!((a.sessions(), b.sessions()), (1, 1));
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!((a.sessions(), b.sessions()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_made_up_addresses_leaves_sessions_and_bounds_where_they_were() -> Result<()> {
    let realm = MemoryRealm::default();
    let config = || QuicConfig {
        max_sessions: 8,
        max_handshakes: 8,
        max_addrs: 32,
        ..QuicConfig::default()
    };
    let [a, b] =
        [1, 2].map(|seed| QuicSwarm::with_config(realm.open(), &key(seed), config()).expect("a node"));
    let to = b.local_addrs().remove(0);
    a.tell(&to, Packet::from(b"before")).await?;
    b.receive().await?;
    // What a client sends first, as it is seen on the medium.
    let tap = realm.open();
    let client = QuicSwarm::new(realm.open(), &key(3))?;
    let first = {
        let nobody = KeyAddr::new(PeerId::ZERO, tap.local_addr());
        let dial = client.tell(&nobody, Packet::from(b"x"));
        tokio::select! {
            message = tap.receive() => message?.payload,
            _ = dial => unreachable!("nobody answers"),
        }
    };
    for flood in 0..2000_u32 {
        let spoofed = realm.open();
        let mut packet = first.clone();
        // Another connection id, and so another connection, whose packet does not open: or the same one replayed.
        if flood % 2 == 0
            && let Some(id) = packet.get_mut(6..10)
        {
            id.copy_from_slice(&flood.to_be_bytes());
        }
        spoofed.tell(&to.addr, packet).await?;
        if flood % 100 == 0 {
            a.tell(&to, Packet::from(b"during")).await?;
            assert_eq!(b.receive().await?.payload, b"during");
        }
    }
    assert!(b.sessions() <= 8);
    let response = tokio::join!(a.ask(&to, Packet::from(b"after")), async {
        b.receive_ask().await?.respond(Packet::from(b"still here")).await
    });
    response.1?;
    assert_eq!(response.0?, b"still here");
    Ok(())
}

#[tokio::test]
async fn a_medium_that_carries_too_little_is_refused_by_name() {
    let small = crate::memory::MemoryConfig {
        mtu: super::MIN_INNER_MTU - 1,
        ..crate::memory::MemoryConfig::default()
    };
    let refused = QuicSwarm::new(MemoryRealm::new(small).open(), &key(1));
    assert!(
        matches!(
            &refused,
            Err(Error::Invalid {
                what: "inner swarm",
                ..
            })
        ),
        "{refused:?}"
    );
    let enough = crate::memory::MemoryConfig {
        mtu: super::MIN_INNER_MTU,
        ..small
    };
    let realm = MemoryRealm::new(enough);
    let [a, b] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    let to = b.local_addrs().remove(0);
    let (sent, received) = tokio::join!(a.tell(&to, Packet::from(vec![7; 1 << 20])), b.receive());
    sent.expect("sent");
    assert_eq!(received.expect("received").payload.len(), 1 << 20);
}

#[tokio::test]
async fn dropping_a_node_frees_its_port_and_ends_its_sessions_elsewhere() {
    let [a, b] = nodes();
    let at = addr(&b);
    a.tell(&at, Packet::from(b"hello")).await.expect("sent");
    b.receive().await.expect("received");
    drop(b);
    while a.sessions() > 0 || std::net::UdpSocket::bind(at.addr).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn closing_what_is_below_closes_the_node() {
    let realm = MemoryRealm::default();
    let below = Arc::new(realm.open());
    let swarm = QuicSwarm::new(below.clone(), &key(1)).expect("a node");
    let (received, ()) = tokio::join!(swarm.receive(), below.close());
    assert!(matches!(received, Err(Error::Closed)), "{received:?}");
    assert!(matches!(swarm.receive_ask().await, Err(Error::Closed)));
}
