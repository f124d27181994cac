//! Ping, identify, push and perf with peers that break their rules (libp2p specifications, ping, identify, perf), and
//! negotiations with peers that do not answer.

use std::time::Duration;

use p2p::Error;
use p2p_libp2p::identify::{IDENTIFY, PUSH};
use p2p_libp2p::perf::PERF;
use p2p_libp2p::ping::PING;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::nodes::{Way, dialling_host, host, private, until};
use crate::raw::{
    HEADER, Shown, accept, accept_connection, keep_streams, keypair, line, open, place, place_of,
};

/// Encodes a field of bytes of a protobuf message.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend_from_slice(p2p_formats::varint::write(bytes.len() as u64, &mut [0; 10]));
    field.extend_from_slice(bytes);
    field
}

/// Puts the length in front of a message.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = p2p_formats::varint::write(message.len() as u64, &mut [0; 10]).to_vec();
    framed.extend_from_slice(message);
    framed
}

fn key(seed: u8) -> Vec<u8> {
    field(1, keypair(seed).public().encode())
}

fn agent(text: &str) -> Vec<u8> {
    field(6, text.as_bytes())
}

/// What peer 7 may send in an identify message, and must not be believed.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let lie = [key(8), agent("liar")].concat();
    let piece = framed(&agent("liar"));
    let mut pieces = piece.repeat(9);
    pieces.extend(framed(&key(8)));
    vec![
        ("the key of another peer", framed(&lie)),
        ("ten pieces, the last one with the key of another peer", pieces),
        ("eleven pieces", piece.repeat(11)),
        (
            "more than 8 KiB",
            framed(&[agent("liar"), field(3, &[b'x'; 8192])].concat()),
        ),
        (
            "a length of 2^63",
            [&[0xff; 8][..], &[0x7f], &agent("liar")].concat(),
        ),
        ("a length without an end", vec![0xff; 11]),
        ("less than announced", framed(&agent("liar"))[..5].to_vec()),
        ("no message", Vec::new()),
        ("no protobuf", framed(&[0xff; 40])),
        ("a text that is not UTF-8", framed(&field(6, &[0xff, 0xfe]))),
        (
            "a field that ends beyond the message",
            framed(&[0x32, 0x7f, b'x']),
        ),
    ]
}

/// Returns what a peer said of itself first.
pub(crate) async fn first_agent(events: &mut p2p_libp2p::HostEvents) -> String {
    until(events, |event| match event {
        HostEvent::Identified { identified, .. } => Some(identified.agent.clone()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn pushes_that_break_a_rule_change_nothing() {
    let host = host(1, Way::Quic).await;
    let mut events = host.events();
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    for (_, bytes) in bad() {
        let mut stream = open(&peer, PUSH).await;
        // The host may refuse the rest.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    // One that breaks off.
    let mut stream = open(&peer, PUSH).await;
    stream
        .write_all(&framed(&agent("liar")))
        .await
        .expect("an open stream");
    let (_, mut send) = stream.into_inner();
    send.reset(0_u32.into()).expect("an open stream");
    let mut stream = open(&peer, PUSH).await;
    let message = [framed(&key(7)), framed(&agent("honest"))].concat();
    stream.write_all(&message).await.expect("an open stream");
    stream.shutdown().await.expect("an open stream");
    assert_eq!(first_agent(&mut events).await, "honest");
}

#[tokio::test]
async fn answers_to_identify_that_break_a_rule_are_an_error() {
    for (what, bytes) in bad() {
        let dialler = dialling_host(1).await;
        let endpoint = Shown::of(7).endpoint();
        let at = place(&endpoint);
        let answer = async {
            let peer = accept_connection(&endpoint).await;
            // The host asks once by itself, and once for the caller.
            while let Ok((send, recv)) = peer.accept_bi().await {
                let mut stream = tokio::io::join(recv, send);
                if accept(&mut stream, IDENTIFY).await.is_ok() {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                }
            }
        };
        let asked = async {
            let error = dialler.identify(&at).await.expect_err(what);
            assert!(matches!(error, Error::Unreachable { .. }), "{what}: {error}");
            let known = dialler.connections();
            assert_eq!(known.len(), 1, "{what}: the connection goes on");
            dialler.close().await;
        };
        tokio::join!(asked, answer);
    }
}

#[tokio::test]
async fn an_answer_to_identify_that_is_broken_off_is_an_error() {
    let dialler = dialling_host(1).await;
    let endpoint = Shown::of(7).endpoint();
    let at = place(&endpoint);
    let answer = async {
        let peer = accept_connection(&endpoint).await;
        while let Ok((send, recv)) = peer.accept_bi().await {
            let mut stream = tokio::io::join(recv, send);
            if accept(&mut stream, IDENTIFY).await.is_ok() {
                stream
                    .write_all(&framed(&agent("a part")))
                    .await
                    .expect("an open stream");
                stream.writer_mut().reset(0_u32.into()).expect("an open stream");
            }
        }
    };
    let asked = async {
        assert!(dialler.identify(&at).await.is_err());
        dialler.close().await;
    };
    tokio::join!(asked, answer);
}

#[tokio::test]
async fn pings_at_their_limits_are_answered_or_end() {
    let host = host(1, Way::Quic).await;
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    // Several streams at once, pings in pieces, and a thousand of them at once.
    let mut streams = Vec::new();
    for seed in 0..4_u8 {
        let mut stream = open(&peer, PING).await;
        for piece in [[seed; 16]; 2] {
            stream.write_all(&piece).await.expect("an open stream");
        }
        let mut back = [0; 32];
        stream.read_exact(&mut back).await.expect("an answer");
        assert_eq!(back, [seed; 32]);
        streams.push(stream);
    }
    let pings: Vec<u8> = (0..1000_u32 * 32).map(|byte| byte as u8).collect();
    let (mut read, mut write) = tokio::io::split(&mut streams[0]);
    let mut back = vec![0; pings.len()];
    let (written, read) = tokio::join!(write.write_all(&pings), read.read_exact(&mut back));
    written.expect("an open stream");
    read.expect("answers");
    assert_eq!(back, pings);
    // A ping that ends early is not answered, and its stream ends.
    streams[1].write_all(&[1; 31]).await.expect("an open stream");
    streams[1].shutdown().await.expect("an open stream");
    let mut rest = Vec::new();
    streams[1].read_to_end(&mut rest).await.expect("an end");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn perf_requests_at_their_limits_end() {
    let host = host(1, Way::Quic).await;
    host.serve_perf().expect("it is not served yet");
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    let mut short = open(&peer, PERF).await;
    short.write_all(&[0; 7]).await.expect("an open stream");
    short.shutdown().await.expect("an open stream");
    assert!(
        short.read_u8().await.is_err(),
        "a request without a number is not answered"
    );
    // A client that wants everything, and leaves.
    let mut greedy = open(&peer, PERF).await;
    greedy.write_all(&[0xff; 8]).await.expect("an open stream");
    greedy.shutdown().await.expect("an open stream");
    greedy.read_exact(&mut [0; 1000]).await.expect("bytes");
    drop(greedy);
    let mut fine = open(&peer, PERF).await;
    fine.write_all(&3_u64.to_be_bytes())
        .await
        .expect("an open stream");
    fine.shutdown().await.expect("an open stream");
    let mut answer = Vec::new();
    fine.read_to_end(&mut answer).await.expect("an answer");
    assert_eq!(answer.len(), 3);
}

#[tokio::test]
async fn no_byte_before_a_negotiation_reaches_a_handler() {
    let host = host(1, Way::Quic).await;
    let (calls, mut called) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |mut stream: p2p_libp2p::Stream| {
        let calls = calls.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = calls.send(bytes);
        }
    };
    host.handle("/read/1", handler).expect("a new protocol");
    let (_endpoint, peer) = Shown::of(7).dial_quic(&host).await;
    let id = line("/read/1");
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &id,
        &[HEADER, b"\x80"].concat(),
        &[HEADER, &[0xff; 3000]].concat(),
        &[HEADER, &id[..5]].concat(),
        &[HEADER, HEADER, b"\x01\n"].concat(),
        &[HEADER, &line("/no/1").repeat(100)].concat(),
        &[b"\x13/multistream/2.0.0\n", &id[..]].concat(),
    ] {
        let (mut send, mut recv) = peer.open_bi().await.expect("a stream");
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        let _ = recv.read_to_end(100_000).await;
    }
    let (mut send, _recv) = peer.open_bi().await.expect("a stream");
    send.write_all(&[HEADER, &id, b"data"].concat())
        .await
        .expect("an open stream");
    send.finish().expect("an open stream");
    assert_eq!(called.recv().await.as_deref(), Some(&b"data"[..]));
}

#[tokio::test]
async fn a_peer_that_never_answers_is_a_timeout() {
    let config = HostConfig {
        handshake_timeout: Duration::from_millis(300),
        stream_timeout: Duration::from_millis(300),
        ..HostConfig::default()
    };
    let dialler = Host::builder(&private(1))
        .config(config)
        .start()
        .await
        .expect("no port");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("a bound port").port();
    let at: HostAddr = format!("/ip4/127.0.0.1/tcp/{port}")
        .parse()
        .expect("a valid address");
    let error = dialler.connect(&at).await.expect_err("no answer");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");

    let endpoint = Shown::of(7).endpoint();
    let at = place_of(7, &endpoint);
    let silent = keep_streams(&endpoint);
    let asked = async {
        let error = dialler.open(&at, &["/any/1"]).await.expect_err("no answer");
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        let error = dialler.identify(&at).await.expect_err("no answer");
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        dialler.close().await;
    };
    tokio::join!(silent, asked);
}

#[tokio::test]
async fn endless_refusals_end_with_the_proposals() {
    let dialler = dialling_host(1).await;
    let endpoint = Shown::of(7).endpoint();
    let at = place(&endpoint);
    let refusing = async {
        let peer = accept_connection(&endpoint).await;
        while let Ok((mut send, _recv)) = peer.accept_bi().await {
            let endless = [HEADER, &b"\x03na\n".repeat(1000)].concat();
            let _ = send.write_all(&endless).await;
        }
    };
    let asked = async {
        let error = dialler.open(&at, &["/a/1", "/b/1"]).await.expect_err("refused");
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        dialler.close().await;
    };
    tokio::join!(refusing, asked);
}
