//! Noise handshakes with payloads and bytes of any kind: a peer is accepted only if it proved its identity, no byte is
//! read that the peer did not write, and everything else is a typed error.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_formats::x509::PrivateKey;
use p2p_fuzz::{Script, damaged, now};
use p2p_libp2p::Keypair;
use p2p_libp2p::noise::{NoiseKey, Role, handshake};
use p2p_protocols::noise::Primitives;
use snow::{Builder, HandshakeState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

const PARAMS: &str = "Noise_XX_25519_ChaChaPoly_SHA256";

#[derive(Arbitrary, Debug)]
enum Input {
    /// Bytes in place of the peer's messages.
    Bytes { dials: bool, piece: u8, bytes: Vec<u8> },
    /// A peer with any payload, or a good one with bytes changed and inserted.
    Payload {
        dials: bool,
        payload: Option<Vec<u8>>,
        changes: Vec<(u16, u8)>,
        inserts: Vec<(u16, u8)>,
    },
    /// A peer that keeps the rules, with changed bytes in its frames afterwards.
    Frames {
        messages: Vec<Vec<u8>>,
        changes: Vec<(u16, u8)>,
    },
}

static OURS: LazyLock<Keypair> = LazyLock::new(|| keypair(1));
static THEIRS: LazyLock<Keypair> = LazyLock::new(|| keypair(2));

thread_local! {
    static RUNTIME: Runtime = RuntimeBuilder::new_current_thread().build().expect("a runtime");
}

fn keypair(seed: u8) -> Keypair {
    Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
}

fn role(dials: bool) -> Role {
    if dials {
        Role::Dialler(None)
    } else {
        Role::Listener
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [
        &[number << 3 | 2, u8::try_from(bytes.len()).expect("short")],
        bytes,
    ]
    .concat()
}

struct Peer {
    state: HandshakeState,
    payload: Vec<u8>,
}

impl Peer {
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
        let signed = [b"noise-libp2p-static-key:", &keys.public[..]].concat();
        let muxers = field(4, &field(2, b"/yamux/1.0.0"));
        let payload = [
            field(1, THEIRS.public().encode()),
            field(2, &THEIRS.sign(&signed)),
            muxers,
        ]
        .concat();
        Self {
            state: state.expect("a handshake"),
            payload,
        }
    }

    async fn write(&mut self, io: &mut DuplexStream, payload: &[u8]) -> std::io::Result<()> {
        let mut message = vec![0; 65_535];
        let len = self
            .state
            .write_message(payload, &mut message)
            .expect("a message");
        io.write_all(&(len as u16).to_be_bytes()).await?;
        io.write_all(&message[..len]).await
    }

    async fn read(&mut self, io: &mut DuplexStream) -> std::io::Result<()> {
        let mut message = vec![0; usize::from(io.read_u16().await?)];
        io.read_exact(&mut message).await?;
        let mut payload = vec![0; message.len()];
        self.state
            .read_message(&message, &mut payload)
            .expect("a valid message");
        Ok(())
    }

    /// Performs a handshake with this payload; the host may break it off.
    async fn shake(&mut self, io: &mut DuplexStream, dials: bool, payload: &[u8]) -> std::io::Result<()> {
        if dials {
            self.write(io, b"").await?;
            self.read(io).await?;
            self.write(io, payload).await
        } else {
            self.read(io).await?;
            self.write(io, payload).await?;
            self.read(io).await
        }
    }
}

fuzz_target!(|input: Input| {
    let key = NoiseKey::generate().expect("randomness");
    match input {
        Input::Bytes { dials, piece, bytes } => {
            let script = Script::new(&bytes, usize::from(piece).max(1));
            let shaken = now(handshake(script, role(dials), &OURS, &key, &["/yamux/1.0.0"]));
            assert!(shaken.is_err(), "bytes without a key prove nothing");
        }
        Input::Payload {
            dials,
            payload,
            changes,
            inserts,
        } => {
            let mut peer = Peer::new(dials);
            let good = peer.payload.clone();
            let mut payload = payload.unwrap_or_else(|| damaged(&good, changes, inserts));
            payload.truncate(9_000);
            let shaken = RUNTIME.with(|runtime| {
                runtime.block_on(async {
                    let (ours, mut theirs) = duplex(1 << 16);
                    let shake = handshake(ours, role(!dials), &OURS, &key, &["/yamux/1.0.0"]);
                    let peer = async {
                        let _ = peer.shake(&mut theirs, dials, &payload).await;
                        drop(theirs);
                    };
                    tokio::join!(shake, peer).0
                })
            });
            match shaken {
                Ok((_, key, muxer)) => {
                    assert_eq!(key, *THEIRS.public(), "only this key has signed");
                    assert!(muxer.is_none_or(|muxer| muxer == "/yamux/1.0.0"));
                }
                Err(error) => assert!(payload != good, "a good payload is refused: {error}"),
            }
        }
        Input::Frames { messages, changes } => {
            let mut peer = Peer::new(true);
            let payload = peer.payload.clone();
            RUNTIME.with(|runtime| {
                runtime.block_on(async {
                    let (ours, mut theirs) = duplex(1 << 16);
                    let shake = handshake(ours, Role::Listener, &OURS, &key, &["/yamux/1.0.0"]);
                    let (shaken, shook) = tokio::join!(shake, peer.shake(&mut theirs, true, &payload));
                    shook.expect("an open pipe");
                    let (mut stream, _, _) = shaken.expect("a good peer");
                    let mut transport = peer.state.into_transport_mode().expect("a finished handshake");
                    let (mut frames, mut sent, mut sealed) = (Vec::new(), Vec::new(), vec![0; 65_535]);
                    for message in messages.iter().filter(|message| message.len() < 4096).take(8) {
                        let len = transport.write_message(message, &mut sealed).expect("a frame");
                        frames.extend_from_slice(&(len as u16).to_be_bytes());
                        frames.extend_from_slice(&sealed[..len]);
                        sent.extend_from_slice(message);
                    }
                    let changed = if frames.is_empty() {
                        Vec::new()
                    } else {
                        damaged(&frames, changes, Vec::new())
                    };
                    theirs.write_all(&changed).await.expect("room");
                    drop(theirs);
                    let mut received = Vec::new();
                    let end = stream.read_to_end(&mut received).await;
                    assert!(sent.starts_with(&received));
                    if changed == frames {
                        end.expect("authentic frames");
                        assert_eq!(received, sent);
                    }
                });
            });
        }
    }
});
