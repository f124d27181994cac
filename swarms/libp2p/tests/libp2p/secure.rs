//! Secure channels over TCP against peers that break their rules.

use std::time::Duration;

use p2p::Error;
use p2p_libp2p::{Host, Muxer, Security, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::nodes::{Way, dialling_host, host, private};

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Sends bytes to a host over TCP, and returns all that it answers before it ends the connection.
async fn answer_to(host: &Host, bytes: &[u8]) -> Vec<u8> {
    let to = p2p::Addr::socket_addr(&host.local_addrs()[0]).expect("a socket address");
    let mut socket = TcpStream::connect(to).await.expect("the host listens");
    socket.write_all(bytes).await.expect("an open connection");
    socket.shutdown().await.expect("an open connection");
    let mut answer = Vec::new();
    // The host may reset the connection, having bytes that it did not read.
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer))
        .await
        .expect("the host ends the connection");
    answer
}

#[tokio::test]
async fn handshakes_of_garbage_never_become_a_connection() {
    for way in [Way::Noise, Way::Tls] {
        let host = host(1, way).await;
        let proposal: &[u8] = match way.security() {
            Security::Noise => b"\x07/noise\n",
            Security::Tls => b"\x0b/tls/1.0.0\n",
        };
        for garbage in [
            &[][..],
            &[0, 0],
            &[0xff; 9_000],
            &[0, 32],
            &[0; 34],
            b"\x00\x20short",
            &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5],
        ] {
            let answer = answer_to(&host, &[HEADER, proposal, garbage].concat()).await;
            assert!(answer.starts_with(&[HEADER, proposal].concat()), "{way:?}");
        }
        assert!(host.connections().is_empty());
    }
}

#[tokio::test]
async fn a_secure_channel_that_is_not_offered_is_refused() {
    let host = host(1, Way::Tls).await;
    let answer = answer_to(&host, &[HEADER, b"\x07/noise\n"].concat()).await;
    assert_eq!(answer, [HEADER, b"\x03na\n"].concat());
    let dialler = Host::builder(&private(2))
        .security(&[Security::Noise])
        .start()
        .await
        .expect("no port");
    assert!(matches!(
        dialler.connect(&host.local_addrs()[0]).await,
        Err(Error::Unreachable { .. })
    ));
    let dialler = dialling_host(2).await;
    dialler
        .connect(&host.local_addrs()[0])
        .await
        .expect("TLS is offered as well");
}

#[tokio::test]
async fn a_muxer_that_both_have_is_chosen_and_yamux_is_preferred() {
    use Muxer::{Mplex, Yamux};
    for security in [Security::Noise, Security::Tls] {
        let host = async |seed: u8, muxers: &[Muxer]| {
            let builder = Host::builder(&private(seed)).security(&[security]).muxers(muxers);
            let builder = builder.listen("/ip4/127.0.0.1/tcp/0").expect("a valid place");
            builder.start().await.expect("a free port")
        };
        for (listens, dials, chosen) in [
            (&[Yamux, Mplex][..], &[Yamux, Mplex][..], Some(Yamux)),
            (&[Yamux, Mplex], &[Mplex], Some(Mplex)),
            (&[Mplex], &[Yamux, Mplex], Some(Mplex)),
            (&[Yamux], &[Mplex], None),
            (&[Mplex], &[], None),
        ] {
            let (listener, dialler) = (host(1, listens).await, host(2, dials).await);
            let connected = dialler.connect(&listener.local_addrs()[0]).await;
            let transports: Vec<_> = dialler.connections().iter().map(|info| info.transport).collect();
            let expected = chosen.map(|muxer| Transport::Tcp(security, muxer));
            assert_eq!(
                transports,
                Vec::from_iter(expected),
                "{security:?} {listens:?} {dials:?}"
            );
            assert_eq!(connected.is_ok(), chosen.is_some());
        }
    }
}

#[tokio::test]
async fn a_listener_that_answers_with_garbage_is_an_error_of_the_dialler() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[HEADER, b"\x07/noise\n", &[0; 500]].concat(),
        &[HEADER, b"\x07/noise\n\x00\x60", &[7; 96]].concat(),
        b"",
    ];
    let serve = async {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.expect("a dial");
            socket.write_all(answer).await.expect("an open connection");
            socket.shutdown().await.expect("an open connection");
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    };
    let dial = async {
        let dialler = Host::builder(&private(2))
            .security(&[Security::Noise])
            .start()
            .await
            .expect("no port");
        let addr = format!("/ip4/127.0.0.1/tcp/{port}")
            .parse()
            .expect("a valid address");
        for _ in 0..answers.len() {
            let error = dialler.connect(&addr).await.expect_err("no handshake");
            assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        }
    };
    tokio::join!(serve, dial);
}
