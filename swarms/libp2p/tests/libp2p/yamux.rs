//! yamux with peers that break its rules (libp2p specification, yamux; CVE-2026-32314, CVE-2026-31814).

use std::time::Duration;

use p2p::AskSwarm as _;
use p2p_libp2p::identify::{IDENTIFY, PUSH};
use p2p_libp2p::{Host, HostAddr, HostConfig, HostSwarmConfig, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::builtin::{field, first_agent, framed};
use crate::nodes::{Way, host, host_with};
use crate::raw::{HEADER, Shown, keypair, line};

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;
/// The window of a new stream in bytes.
const CREDIT: u32 = 256 << 10;

/// A frame without its body: `length` is a length, a window, or what a ping carries.
fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut frame = vec![0, kind];
    frame.extend(flags.to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame
}

fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(
        DATA,
        flags,
        stream,
        u32::try_from(body.len()).expect("a short body"),
    );
    bytes.extend_from_slice(body);
    bytes
}

/// The header of a frame of the host, and its body.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u16,
    stream: u32,
    length: u32,
    body: Vec<u8>,
}

struct Peer(TlsStream<TcpStream>);

impl Peer {
    async fn of(host: &Host) -> Self {
        Self(Shown::of(7).dial_tcp(host).await.expect("a connection"))
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).await?;
        let [_, kind, rest @ ..] = header;
        let (flags, rest) = rest.split_first_chunk().expect("two bytes");
        let (stream, rest) = rest.split_first_chunk().expect("four bytes");
        let length = u32::from_be_bytes(rest.try_into().expect("four bytes"));
        let mut body = Vec::new();
        if kind == DATA {
            body.resize(length as usize, 0);
            self.0.read_exact(&mut body).await?;
        }
        Ok(Frame {
            kind,
            flags: u16::from_be_bytes(*flags),
            stream: u32::from_be_bytes(*stream),
            length,
            body,
        })
    }

    /// Returns the first frame that fits, or an error once the connection has ended.
    async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> std::io::Result<Frame> {
        let wait = async {
            loop {
                let frame = self.read().await?;
                if wanted(&frame) {
                    return Ok(frame);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("an answer")
    }

    /// Checks that the host still answers on this connection.
    async fn is_served(&mut self) {
        self.write(&frame(PING, SYN, 0, 0xcafe))
            .await
            .expect("an open connection");
        self.until(|frame| (frame.kind, frame.flags, frame.length) == (PING, ACK, 0xcafe))
            .await
            .expect("a pong");
    }

    /// Waits until the host says that it ends the connection, or does.
    async fn is_told(&mut self) {
        match self.until(|frame| frame.kind == GO_AWAY).await {
            Ok(frame) => assert_ne!(frame.length, 0, "an error code"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut),
        }
    }
}

/// Checks that the host serves another peer.
async fn serves_another(host: &Host) {
    let dialler = crate::nodes::host(2, Way::Tls).await;
    let addr = &host.local_addrs()[0];
    let mut pinger = dialler.pinger(addr).await.expect("a stream");
    pinger.ping().await.expect("an answer");
}

#[tokio::test]
async fn every_ping_of_a_flood_is_answered_in_order() {
    let host = host(1, Way::Tls).await;
    let (mut peer, pings) = (Peer::of(&host).await, 5_000);
    let all: Vec<u8> = (0..pings)
        .flat_map(|number| frame(PING, SYN, 0, number))
        .collect();
    let (mut read, mut write) = tokio::io::split(&mut peer.0);
    let writing = async {
        write.write_all(&all).await.expect("an open connection");
        write.flush().await.expect("an open connection");
    };
    let reading = async {
        let mut next = 0;
        while next < pings {
            let mut header = [0; 12];
            read.read_exact(&mut header).await.expect("an open connection");
            if header[1] == PING && header[3] == ACK as u8 {
                assert_eq!(header[8..], next.to_be_bytes());
                next += 1;
            } else if header[1] == DATA {
                let mut body =
                    vec![0; u32::from_be_bytes(header[8..].try_into().expect("four bytes")) as usize];
                read.read_exact(&mut body).await.expect("an open connection");
            }
        }
    };
    tokio::join!(writing, reading);
    serves_another(&host).await;
}

#[tokio::test]
async fn frames_of_streams_that_do_not_exist_are_dropped_and_nothing_else() {
    let host = host(1, Way::Tls).await;
    let mut peer = Peer::of(&host).await;
    for stray in [
        data(0, 99, b"data"),
        data(RST, 99, b""),
        data(0, 98, &[7; 1000]),
        frame(WINDOW, 0, 99, u32::MAX),
        frame(PING, SYN, 99, 1),
        frame(PING, ACK, 0, 77),
    ] {
        peer.write(&stray).await.expect("an open connection");
    }
    peer.is_served().await;
}

#[tokio::test]
async fn frames_that_break_a_rule_are_told_of_and_affect_no_other_peer() {
    let host = host(1, Way::Tls).await;
    let (held, _holding) = mpsc::unbounded_channel();
    let handler = move |stream: Stream| {
        let _ = held.send(stream);
        async {}
    };
    host.handle("/hold/1", handler).expect("a new protocol");
    let proposal = [HEADER, &line("/hold/1")].concat();
    let long = vec![0; CREDIT as usize + 1];
    // The negotiation may read more than it needs.
    let half = vec![0; CREDIT as usize / 2 + 2000];
    for (what, bytes) in [
        ("a first body beyond the window", data(SYN, 1, &long)),
        (
            "bodies beyond the window",
            [data(SYN, 1, &proposal), data(0, 1, &half), data(0, 1, &half)].concat(),
        ),
        (
            "a body that is announced with 4 GiB",
            frame(DATA, SYN, 1, u32::MAX),
        ),
        ("a stream of the wrong side", data(SYN, 2, b"")),
        ("a stream with the number zero", data(SYN, 0, b"")),
        (
            "one stream twice",
            [data(SYN, 1, b""), data(SYN, 1, b"")].concat(),
        ),
        ("a first window that overflows", frame(WINDOW, SYN, 1, u32::MAX)),
        (
            "a window that overflows",
            [
                data(SYN, 1, b""),
                frame(WINDOW, 0, 1, u32::MAX - CREDIT),
                frame(WINDOW, 0, 1, 1),
            ]
            .concat(),
        ),
        ("another version", vec![1; 12]),
        ("an unknown kind of frame", frame(9, 0, 0, 0)),
        ("text of another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let mut peer = Peer::of(&host).await;
        // The host may end the connection before it has read all.
        let _ = peer.write(&bytes).await;
        peer.is_told().await;
        println!("{what}");
    }
    serves_another(&host).await;
}

#[tokio::test]
async fn a_flood_of_streams_is_bounded_and_affects_no_other_peer() {
    let config = HostConfig {
        max_streams: 8,
        ..HostConfig::default()
    };
    let host = host_with(1, Way::Tls, config).await;
    let (held, mut holding) = mpsc::unbounded_channel();
    let handler = move |stream: Stream| {
        let _ = held.send(stream);
        async {}
    };
    host.handle("/hold/1", handler).expect("a new protocol");
    let mut peer = Peer::of(&host).await;
    let proposal = [HEADER, &line("/hold/1")].concat();
    // Negotiated streams, then streams that never negotiate.
    let mut flood: Vec<u8> = (0..100)
        .flat_map(|number| data(SYN, 2 * number + 1, &proposal))
        .collect();
    flood.extend((100..2_000).flat_map(|number| frame(WINDOW, SYN, 2 * number + 1, 0)));
    let (mut read, mut write) = tokio::io::split(&mut peer.0);
    let writing = async {
        let _ = write.write_all(&flood).await;
        let _ = write.flush().await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        // Until the host says that it takes no more, or ends the connection.
        loop {
            let mut header = [0; 12];
            if read.read_exact(&mut header).await.is_err() || header[1] == GO_AWAY {
                return;
            }
            if header[1] == DATA {
                let mut body =
                    vec![0; u32::from_be_bytes(header[8..].try_into().expect("four bytes")) as usize];
                if read.read_exact(&mut body).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = writing => unreachable!("it never ends"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("the host takes any number of streams"),
        () = reading => {}
    }
    serves_another(&host).await;
    let mut streams = Vec::new();
    while let Ok(stream) = holding.try_recv() {
        streams.push(stream);
    }
    assert!((1..=8).contains(&streams.len()), "{} streams", streams.len());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_holds_up_no_other() {
    let host = host(1, Way::Tls).await;
    host.serve_perf().expect("it is not served yet");
    let mut peer = Peer::of(&host).await;
    // The peer wants 2^64 - 1 bytes, opens its window wide, and never reads.
    let mut request = [HEADER, &line("/perf/1.0.0")].concat();
    request.extend([0xff; 8]);
    peer.write(&data(SYN, 1, &request))
        .await
        .expect("an open connection");
    peer.write(&frame(WINDOW, 0, 1, u32::MAX / 2))
        .await
        .expect("an open connection");
    peer.write(&frame(DATA, FIN, 1, 0))
        .await
        .expect("an open connection");
    serves_another(&host).await;
    assert_eq!(host.connections().len(), 2);
}

#[tokio::test]
async fn a_reset_stream_ends_for_its_handler() {
    let host = host(1, Way::Tls).await;
    let (ends, mut ended) = mpsc::unbounded_channel();
    let handler = move |mut stream: Stream| {
        let ends = ends.clone();
        async move {
            let _ = ends.send(
                stream
                    .read_to_end(&mut Vec::new())
                    .await
                    .map_err(|error| error.kind()),
            );
        }
    };
    host.handle("/read/1", handler).expect("a new protocol");
    let mut peer = Peer::of(&host).await;
    let proposal = [HEADER, &line("/read/1"), b"a part"].concat();
    peer.write(&data(SYN, 1, &proposal))
        .await
        .expect("an open connection");
    let answer = peer
        .until(|frame| frame.stream == 1 && !frame.body.is_empty())
        .await
        .expect("an answer");
    assert!(answer.body.starts_with(HEADER));
    peer.write(&data(RST, 1, b"")).await.expect("an open connection");
    let end = ended.recv().await.expect("a handler ran");
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

/// Waits for the stream on which the host makes this proposal, and accepts it. Returns the number of the stream.
async fn accepted(peer: &mut Peer, protocol: &str) -> u32 {
    let proposal = [HEADER, &line(protocol)].concat();
    let (mut stream, mut read) = (0, Vec::new());
    while read.len() < proposal.len() {
        let frame = peer
            .until(|frame| frame.kind == DATA && !frame.body.is_empty())
            .await
            .expect("a frame");
        assert!(stream == 0 || stream == frame.stream, "the host opens one stream");
        stream = frame.stream;
        read.extend(frame.body);
    }
    assert!(read.starts_with(&proposal), "{read:?}");
    peer.write(&data(ACK, stream, &proposal))
        .await
        .expect("an open connection");
    stream
}

#[tokio::test]
async fn an_answer_to_identify_that_is_reset_is_not_taken_for_a_whole_one() {
    let host = host(1, Way::Tls).await;
    let mut events = host.events();
    let mut peer = Peer::of(&host).await;
    let stream = accepted(&mut peer, IDENTIFY).await;
    let part = framed(&field(6, b"a part"));
    peer.write(&data(0, stream, &part))
        .await
        .expect("an open connection");
    peer.write(&data(RST, stream, b""))
        .await
        .expect("an open connection");
    let proposal = [HEADER, &line(PUSH)].concat();
    let whole = framed(&field(6, b"all of it"));
    peer.write(&data(SYN, 1, &proposal))
        .await
        .expect("an open connection");
    peer.until(|frame| frame.stream == 1 && !frame.body.is_empty())
        .await
        .expect("an answer");
    peer.write(&data(FIN, 1, &whole))
        .await
        .expect("an open connection");
    assert_eq!(first_agent(&mut events).await, "all of it");
}

#[tokio::test]
async fn a_response_that_is_reset_is_not_taken_for_a_whole_one() {
    for (bytes, whole) in [
        (&b"\x05hello"[..], true),
        (b"\x05hell", false),
        (b"\x80", false),
        (b"", false),
    ] {
        let host = host(1, Way::Tls).await;
        let swarm = host
            .swarm("/ask/1", HostSwarmConfig::default())
            .expect("a new protocol");
        let mut peer = Peer::of(&host).await;
        accepted(&mut peer, IDENTIFY).await;
        let to = HostAddr::of_peer(keypair(7).peer_id());
        let answer = async {
            let stream = accepted(&mut peer, "/ask/1/ask").await;
            peer.write(&data(0, stream, bytes))
                .await
                .expect("an open connection");
            peer.write(&data(RST, stream, b""))
                .await
                .expect("an open connection");
            peer
        };
        let (asked, _peer) = tokio::join!(swarm.ask(&to, "what".into()), answer);
        // What arrived whole before the reset is a response: its length says so.
        assert_eq!(
            asked.as_ref().is_ok_and(|response| *response == b"hello"),
            whole,
            "{asked:?}"
        );
        assert_eq!(asked.is_ok(), whole);
    }
}
