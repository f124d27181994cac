//! The wire format, against recorded bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use p2p::{AskSwarm as _, DropReason, Error, Packet, Rejection, Swarm as _};
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use serde_json::Value;

use super::{Raw, addr, dropped, eventually, key, loopback, udp};
use crate::quic::node::Node;
use crate::quic::peer_tls::PeerVerifier;
use crate::quic::tls::{self, Check, Identity};
use crate::quic::transport::Transport;
use crate::quic::{QuicConfig, QuicSwarm};

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

/// Serves asks as the recorded server did: `re:` and the request.
async fn serve(swarm: &QuicSwarm<SocketAddr>) {
    while let Ok(request) = swarm.receive_ask().await {
        let response = [b"re:", &*request.message.payload].concat();
        request.respond(Packet::from(response)).await.expect("it left");
    }
}

#[tokio::test]
async fn asks_are_served_as_recorded() {
    let vectors = vectors();
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let client = async {
        for case in vectors["ask_server"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            // The recorded handler answered these two differently.
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
                // Where the recorded server stays silent, this one ends the stream.
                assert!(read.map_or(true, |bytes| bytes.is_empty()), "{name}");
            }
        }
    };
    tokio::select! {
        () = serve(&swarm) => panic!("closed"),
        () = client => {}
    }
    assert_eq!(dropped(&swarm, "quic-ask", DropReason::Oversize), 1);
    assert_eq!(dropped(&swarm, "quic-ask", DropReason::Malformed), 3);
}

#[tokio::test]
async fn a_dropped_request_ends_with_no_bytes_as_recorded() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    send.write_all(b"\0\0\0\x04ping").await.expect("written");
    drop(swarm.receive_ask().await.expect("a request"));
    assert_eq!(recv.read_to_end(10).await.expect("an end"), b"");
}

#[tokio::test]
async fn tells_are_received_as_recorded_and_one_that_is_too_long_is_dropped_whole() {
    let swarm = udp(1, QuicConfig::default());
    let raw = Raw::new(2);
    let connection = raw.dial(&swarm).await;
    let send = async |payload: &[u8]| {
        let mut send = connection.open_uni().await.expect("a stream");
        // Stopped at the maximum length.
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
                    eventually("it is dropped", || {
                        dropped(&swarm, "quic", DropReason::Oversize) == 1
                    })
                    .await;
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
async fn responses_are_read_as_recorded() {
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
            // The client may have read enough already.
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
async fn a_dial_without_the_protocol_or_a_certificate_gets_no_session() {
    let swarm = udp(1, QuicConfig::default());
    let config = Arc::new(QuicConfig::default());
    let check = Check::any(config);
    let anonymous = rustls::ClientConfig::builder_with_provider(Arc::new(tls::crypto()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a configuration")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(check)));
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
async fn both_ends_use_the_post_quantum_group_if_both_support_it() {
    let ours = tls::crypto();
    assert_eq!(
        ours.kx_groups.first().map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
    for group in [X25519MLKEM768, X25519] {
        let transport = Transport::udp(loopback()).expect("a free port");
        let config = QuicConfig::default();
        let identity = Identity::new(&key(2), &config).expect("a good key");
        let node = Node::start(&transport, identity, config, only(group)).expect("a node");
        let other = QuicSwarm { node };
        let swarm = udp(1, QuicConfig::default());
        swarm
            .tell(&addr(&other), Packet::from(b"hello"))
            .await
            .expect("sent");
        assert_eq!(other.receive().await.expect("received").payload, b"hello");
    }
}
