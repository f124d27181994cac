//! Noise handshakes and frames of peers that break the rules, in both roles (libp2p specification, noise).

use std::time::Duration;

use p2p::Error;
use p2p_libp2p::{Host, HostAddr, Keypair, PublicKey, Security};
use p2p_protocols::noise::Primitives;
use snow::{Builder, HandshakeState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::builtin::field;
use crate::nodes::{Way, host, private};
use crate::raw::{HEADER, accept, at, keypair, line, propose};

const PARAMS: &str = "Noise_XX_25519_ChaChaPoly_SHA256";

/// The handshake of a peer, and its static key.
struct Handshake {
    state: HandshakeState,
    static_key: Vec<u8>,
}

impl Handshake {
    fn new(dials: bool) -> Self {
        let builder =
            || Builder::with_resolver(PARAMS.parse().expect("a name"), Box::new(Primitives::random()));
        let keys = builder().generate_keypair().expect("randomness");
        let builder = builder().local_private_key(&keys.private).expect("a key");
        let state = if dials {
            builder.build_initiator()
        } else {
            builder.build_responder()
        };
        Self {
            state: state.expect("a handshake"),
            static_key: keys.public,
        }
    }

    async fn write(&mut self, socket: &mut TcpStream, payload: &[u8]) -> std::io::Result<()> {
        let mut message = vec![0; 65_535];
        let len = self
            .state
            .write_message(payload, &mut message)
            .expect("a message");
        let len_bytes = u16::try_from(len).expect("a short message").to_be_bytes();
        socket.write_all(&[&len_bytes, &message[..len]].concat()).await
    }

    async fn read(&mut self, socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut message = vec![0; usize::from(socket.read_u16().await?)];
        socket.read_exact(&mut message).await?;
        let mut payload = vec![0; message.len()];
        let len = self
            .state
            .read_message(&message, &mut payload)
            .expect("a valid message");
        payload.truncate(len);
        Ok(payload)
    }
}

fn payload(key: &PublicKey, signer: &Keypair, static_key: &[u8]) -> Vec<u8> {
    let bound = [b"noise-libp2p-static-key:", static_key].concat();
    let muxers = field(4, &field(2, b"/yamux/1.0.0"));
    [field(1, key.encode()), field(2, &signer.sign(&bound)), muxers].concat()
}

/// Payloads that break one rule each, for this static key.
fn bad(static_key: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (ours, other) = (keypair(7), keypair(8));
    let good = payload(ours.public(), &ours, static_key);
    let mut changed = good.clone();
    changed[60] ^= 1;
    let huge_rsa = [
        field(1, &[&[8, 0], &field(2, &[7; 4000])[..]].concat()),
        field(2, &[7; 2000]),
    ]
    .concat();
    vec![
        ("nothing", Vec::new()),
        ("no protobuf", vec![0xff; 100]),
        ("a part of the payload", good[..good.len() - 20].to_vec()),
        (
            "the key of another peer",
            payload(other.public(), &ours, static_key),
        ),
        (
            "the signature of another static key",
            payload(ours.public(), &ours, &[7; 32]),
        ),
        ("a changed signature", changed),
        ("no signature", field(1, ours.public().encode())),
        (
            "a key of an unknown type",
            [field(1, &[8, 9, 0x12, 1, 1]), field(2, &[1; 64])].concat(),
        ),
        ("a key that is too long", huge_rsa),
        ("a payload beyond 8 KiB", [good, field(15, &[0; 9000])].concat()),
    ]
}

/// Waits until the host has ended the connection.
async fn ends(socket: &mut TcpStream) {
    let ended = async { while matches!(socket.read(&mut [0; 1024]).await, Ok(1..)) {} };
    tokio::time::timeout(Duration::from_secs(20), ended)
        .await
        .expect("the host ends the connection");
}

#[tokio::test]
async fn diallers_with_a_bad_payload_never_become_a_connection() {
    let host = host(1, Way::Noise).await;
    for index in 0.. {
        let mut handshake = Handshake::new(true);
        let Some((what, payload)) = bad(&handshake.static_key).into_iter().nth(index) else {
            break;
        };
        let mut socket = TcpStream::connect(at(&host)).await.expect("the host listens");
        propose(&mut socket, "/noise").await.expect("an answer");
        handshake
            .write(&mut socket, b"")
            .await
            .expect("an open connection");
        handshake.read(&mut socket).await.expect("an answer");
        let _ = handshake.write(&mut socket, &payload).await;
        ends(&mut socket).await;
        assert!(host.connections().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn listeners_with_a_bad_payload_are_an_error_of_the_dialler() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let place: HostAddr = format!("/ip4/127.0.0.1/tcp/{port}")
        .parse()
        .expect("a valid address");
    let dialler = Host::builder(&private(1)).security(&[Security::Noise]);
    let dialler = dialler.start().await.expect("no port");
    let answer = async |payload: fn(&[u8], usize) -> Option<Vec<u8>>, index| {
        let mut handshake = Handshake::new(false);
        let (mut socket, _) = listener.accept().await.expect("a dial");
        accept(&mut socket, "/noise").await.expect("a proposal");
        handshake.read(&mut socket).await.expect("a message");
        let payload = payload(&handshake.static_key, index).expect("a payload");
        let _ = handshake.write(&mut socket, &payload).await;
        ends(&mut socket).await;
    };
    let nth = |static_key: &[u8], index| bad(static_key).into_iter().nth(index).map(|(_, payload)| payload);
    for index in 0..bad(&[]).len() {
        let (outcome, ()) = tokio::join!(dialler.connect(&place), answer(nth, index));
        assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    }
    // The identity is proven, but another one was dialled.
    let good = |static_key: &[u8], _| Some(payload(keypair(7).public(), &keypair(7), static_key));
    let wrong = HostAddr::new(keypair(8).peer_id(), place.place().clone());
    let (outcome, ()) = tokio::join!(dialler.connect(&wrong), answer(good, 0));
    let error = outcome.expect_err("another peer");
    assert!(
        error.to_string().contains(&keypair(7).peer_id().to_string()),
        "{error}"
    );
    assert!(dialler.connections().is_empty());
}

#[tokio::test]
async fn frames_that_break_a_rule_end_the_connection() {
    let host = host(1, Way::Noise).await;
    for what in [
        "a frame shorter than its tag",
        "a frame that is not authentic",
        "an end within a frame",
        "fine",
    ] {
        let (mut handshake, ours) = (Handshake::new(true), keypair(7));
        let mut socket = TcpStream::connect(at(&host)).await.expect("the host listens");
        propose(&mut socket, "/noise").await.expect("an answer");
        handshake
            .write(&mut socket, b"")
            .await
            .expect("an open connection");
        handshake.read(&mut socket).await.expect("an answer");
        let good = payload(ours.public(), &ours, &handshake.static_key);
        handshake
            .write(&mut socket, &good)
            .await
            .expect("an open connection");
        let mut transport = handshake
            .state
            .into_transport_mode()
            .expect("a finished handshake");
        let mut sealed = vec![0; 1024];
        // Empty frames are valid, and nothing.
        for _ in 0..100 {
            let len = transport.write_message(b"", &mut sealed).expect("a frame");
            socket
                .write_all(&(len as u16).to_be_bytes())
                .await
                .expect("an open connection");
            socket
                .write_all(&sealed[..len])
                .await
                .expect("an open connection");
        }
        // A ping of yamux.
        let ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
        let len = transport.write_message(&ping, &mut sealed).expect("a frame");
        let mut frame = [&(len as u16).to_be_bytes(), &sealed[..len]].concat();
        match what {
            "a frame shorter than its tag" => frame = vec![0, 15, 1, 2, 3],
            "a frame that is not authentic" => frame[5] ^= 1,
            "an end within a frame" => frame.truncate(9),
            _ => {}
        }
        socket.write_all(&frame).await.expect("an open connection");
        if what == "fine" {
            let answered = async {
                loop {
                    let mut frame = vec![0; usize::from(socket.read_u16().await.expect("a frame"))];
                    socket.read_exact(&mut frame).await.expect("a frame");
                    let len = transport
                        .read_message(&frame, &mut sealed)
                        .expect("an authentic frame");
                    if sealed[..len]
                        .windows(12)
                        .any(|window| window == [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9])
                    {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(20), answered)
                .await
                .expect("a pong");
        } else {
            if what == "an end within a frame" {
                socket.shutdown().await.expect("an open connection");
            }
            ends(&mut socket).await;
        }
    }
}

#[tokio::test]
async fn handshake_messages_at_their_limits_end_the_connection() {
    let host = host(1, Way::Noise).await;
    for first in [
        &[0x20, 0x01][..],
        &[0xff, 0xff],
        &[0, 0],
        &[0, 31],
        &[&[0, 31][..], &[7; 31]].concat(),
        &[&[0x20, 0x00][..], &[7; 0x2000]].concat(),
    ] {
        let mut socket = TcpStream::connect(at(&host)).await.expect("the host listens");
        let hello = [HEADER, &line("/noise"), first].concat();
        socket.write_all(&hello).await.expect("an open connection");
        socket.shutdown().await.expect("an open connection");
        ends(&mut socket).await;
    }
    assert!(host.connections().is_empty());
}
