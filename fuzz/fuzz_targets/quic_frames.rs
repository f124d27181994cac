//! Any bytes on the streams of a peer with a valid certificate: a tell is the contents of its stream, a
//! request and a response are what their lengths say, and everything else is dropped or an error.
#![no_main]
#![forbid(unsafe_code)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p::{AskSwarm as _, Packet, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry, certify};
use p2p_swarms::quic::QuicConfig;
use p2p_swarms::quic::peer_tls::{PeerVerifier, VerifyPeer};
use p2p_swarms::{KeyAddr, QuicSwarm};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, SendStream};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::runtime::Runtime;

const MTU: usize = 300;
/// Longer than any operation takes on a busy machine: beyond it the node hangs.
const STUCK: Duration = Duration::from_secs(20);
/// The fuzzer may do other things meanwhile.
const IDLE: Duration = Duration::from_hours(1);

/// A stream, as its sender writes it.
#[derive(Arbitrary, Debug)]
struct Stream {
    /// A length field, with its difference from the number of bytes that follow.
    framed: Option<i8>,
    body: Vec<u8>,
    /// Number of further bytes behind or in front of the body.
    filler: u16,
    /// Where it is cut into pieces.
    cut: u8,
    resets: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Tell(Stream),
    Ask(Stream),
    /// The swarm asks, and receives this.
    Answer(Stream),
}

impl Stream {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.body.clone();
        bytes.resize(bytes.len() + usize::from(self.filler) % (2 * MTU), 7);
        if let Some(off) = self.framed {
            let len = (bytes.len() as u32).wrapping_add_signed(off.into());
            bytes.splice(..0, len.to_be_bytes());
        }
        bytes
    }

    async fn write(&self, send: &mut SendStream) {
        let bytes = self.bytes();
        let (first, second) = bytes.split_at(usize::from(self.cut).min(bytes.len()));
        for piece in [first, second] {
            // The stream may be stopped if the other side has read enough.
            let _ = send.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        let _ = if self.resets {
            send.reset(9_u32.into())
        } else {
            send.finish()
        };
    }
}

/// Returns the content of a complete frame at the start of these bytes.
fn framed(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_be_bytes(*len) as usize;
    (len <= MTU).then(|| rest.get(..len)).flatten()
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// A swarm, and a peer of it that is not a swarm.
struct World {
    runtime: Runtime,
    swarm: Arc<QuicSwarm<SocketAddr>>,
    peer: Connection,
    at: KeyAddr<SocketAddr>,
    _endpoint: Endpoint,
}

/// Accepts any peer.
#[derive(Debug)]
struct Any;

impl VerifyPeer for Any {
    fn verify_certificate(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<(), rustls::Error> {
        Ok(())
    }
    fn verify_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn client(key: &PrivateKey) -> quinn::ClientConfig {
    let signer = Registry::default().signer(key).expect("a good key");
    let chain = vec![CertificateDer::from(certify(&*signer))];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()));
    let crypto = CryptoProvider {
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    };
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier(Any)))
        .with_client_auth_cert(chain, key)
        .expect("a certificate");
    tls.alpn_protocols = vec![b"p2p".to_vec()];
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(IDLE.try_into().expect("an hour")));
    let mut client = quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(tls).expect("a configuration"),
    ));
    client.transport_config(Arc::new(transport));
    client
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let guard = runtime.enter();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = QuicConfig {
            mtu: MTU,
            idle_timeout: IDLE,
            ..QuicConfig::default()
        };
        let swarm =
            QuicSwarm::bind_udp_with(loopback, &PrivateKey::ed25519(&[1; 32]), config).expect("a free port");
        let socket = UdpSocket::bind(loopback).expect("a free port");
        let mut endpoint = Endpoint::new(
            quinn::EndpointConfig::default(),
            None,
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .expect("one");
        endpoint.set_default_client_config(client(&PrivateKey::ed25519(&[2; 32])));
        let (peer, at) = runtime.block_on(async {
            let to = swarm.local_addrs().remove(0).addr;
            let peer = endpoint
                .connect(to, "p2p")
                .expect("it dials")
                .await
                .expect("a connection");
            let mut send = peer.open_uni().await.expect("a stream");
            send.write_all(b"here").await.expect("written");
            send.finish().expect("open");
            (peer, swarm.receive().await.expect("open").src)
        });
        drop(guard);
        Self {
            runtime,
            swarm: Arc::new(swarm),
            peer,
            at,
            _endpoint: endpoint,
        }
    }

    async fn step(&self, step: Step) {
        match step {
            Step::Tell(stream) => {
                let mut send = self.peer.open_uni().await.expect("a stream");
                stream.write(&mut send).await;
                let told = stream.bytes();
                if !stream.resets && told.len() <= MTU {
                    let message = self.swarm.receive().await.expect("open");
                    assert_eq!((&*message.payload, message.src), (&*told, self.at.clone()));
                }
            }
            Step::Ask(stream) => {
                let (mut send, mut recv) = self.peer.open_bi().await.expect("a stream");
                let bytes = stream.bytes();
                let expected = framed(&bytes);
                let serve = async {
                    let request = self.swarm.receive_ask().await.expect("open");
                    assert_eq!(
                        Some(&*request.message.payload),
                        expected,
                        "the request was not sent"
                    );
                    let response = reversed(&request.message.payload);
                    let _ = request.respond(Packet::from(response)).await;
                    std::future::pending::<()>().await;
                };
                let ask = async {
                    stream.write(&mut send).await;
                    recv.read_to_end(2 * MTU).await
                };
                let response = tokio::select! {
                    response = ask => response,
                    () = serve => unreachable!("serving never ends"),
                };
                match (expected, response) {
                    (Some(request), Ok(bytes)) if framed(&bytes) == Some(&reversed(request)) => {}
                    // A reset stream may have been read before the reset, or not.
                    (_, Err(_)) if stream.resets => {}
                    (None, Ok(bytes)) => assert!(bytes.is_empty(), "{bytes:?} answer what was not asked"),
                    (None, Err(_)) => {}
                    (Some(_), response) => panic!("an ask was answered with {response:?}"),
                }
            }
            Step::Answer(stream) => {
                let bytes = stream.bytes();
                let answer = async {
                    let (mut send, mut recv) = self.peer.accept_bi().await.expect("a stream");
                    let request = recv.read_to_end(MTU + 4).await.expect("a request");
                    assert_eq!(framed(&request), Some(&b"what"[..]));
                    stream.write(&mut send).await;
                    // Until the other side has read enough.
                    if !stream.resets {
                        let _ = send.stopped().await;
                    }
                };
                let asked = self.swarm.ask(&self.at, Packet::from(&b"what"[..]));
                let (answered, ()) = tokio::join!(asked, answer);
                match (framed(&bytes), answered) {
                    (Some(expected), Ok(response)) => assert_eq!(&*response, expected),
                    (Some(_), Err(error)) => assert!(stream.resets, "{error}"),
                    (None, answered) => assert!(answered.is_err(), "{answered:?}"),
                }
            }
        }
    }
}

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|steps: Vec<Step>| {
    WORLD.with(|world| {
        world.runtime.block_on(async {
            for step in steps.into_iter().take(20) {
                let text = format!("{step:?}");
                let done = tokio::time::timeout(STUCK, world.step(step)).await;
                assert!(done.is_ok(), "stuck: {text}");
            }
        });
    });
});
