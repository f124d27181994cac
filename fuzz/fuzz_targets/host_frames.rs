//! Any bytes on the streams of a libp2p peer for the protocols of a host's swarm: a tell and a request are what their
//! lengths say, to the end of the stream, and everything else is dropped.
#![no_main]
#![forbid(unsafe_code)]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p::{AskSwarm as _, Swarm as _};
use p2p_formats::{varint, x509::PrivateKey};
use p2p_libp2p::{Host, HostAddr, HostSwarm, HostSwarmConfig, Stream};
use p2p_swarms::MemoryRealm;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

const MTU: usize = 300;
const ID: &str = "/fuzz/1.0.0";
const ASK_ID: &str = "/fuzz/1.0.0/ask";
/// Longer than any operation takes on a busy machine: beyond it the host hangs.
const STUCK: Duration = Duration::from_secs(20);

/// What is written on a stream.
#[derive(Arbitrary, Debug)]
struct Written {
    /// Whether a length is in front that fits.
    is_framed: bool,
    bytes: Vec<u8>,
    /// Whether the stream is dropped instead of ended.
    breaks_off: bool,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Tell(Written),
    Ask(Written),
}

struct World {
    runtime: Runtime,
    swarm: HostSwarm,
    peer: Host,
    at: HostAddr,
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_framed {
            bytes.extend_from_slice(varint::write(self.bytes.len() as u64, &mut [0; 10]));
        }
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// Returns the message, if the bytes are one.
    fn message(&self) -> Option<Vec<u8>> {
        let bytes = self.bytes();
        let (length, head) = varint::read(&bytes).ok()?;
        let message = &bytes[head..];
        let is_message =
            head == varint::len(length) && message.len() as u64 == length && message.len() <= MTU;
        (is_message && !self.breaks_off).then(|| message.to_vec())
    }

    async fn write(&self, stream: &mut Stream) {
        // The host may refuse the rest.
        let _ = stream.write_all(&self.bytes()).await;
        let _ = stream.flush().await;
        if !self.breaks_off {
            let _ = stream.shutdown().await;
        }
    }
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (swarm, peer, at) = runtime.block_on(async {
            let realm = MemoryRealm::default();
            let host = async |seed: u8| {
                let builder = Host::builder(&PrivateKey::ed25519(&[seed; 32]));
                builder
                    .over(realm.open())
                    .expect("a node")
                    .start()
                    .await
                    .expect("a host")
            };
            let (host, peer) = (host(1).await, host(2).await);
            let config = HostSwarmConfig {
                mtu: MTU,
                ..HostSwarmConfig::default()
            };
            let swarm = host.swarm(ID, config).expect("a new protocol");
            let at = host.local_addrs().remove(0);
            peer.connect(&at).await.expect("a connection");
            (swarm, peer, at)
        });
        Self {
            runtime,
            swarm,
            peer,
            at,
        }
    }

    async fn step(&self, step: &Step) {
        match step {
            Step::Tell(written) => {
                let mut stream = self.peer.open(&self.at, &[ID]).await.expect("a stream");
                written.write(&mut stream).await;
                if let Some(message) = written.message() {
                    assert_eq!(self.swarm.receive().await.expect("open").payload, *message);
                } else if !written.breaks_off {
                    // The host ends or resets the stream, and the message is dropped.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
            Step::Ask(written) => {
                let mut stream = self.peer.open(&self.at, &[ASK_ID]).await.expect("a stream");
                written.write(&mut stream).await;
                let mut answer = Vec::new();
                if let Some(message) = written.message() {
                    let request = self.swarm.receive_ask().await.expect("open");
                    assert_eq!(request.message.payload, *message);
                    request.respond("pong".into()).await.expect("the peer waits");
                    stream.read_to_end(&mut answer).await.expect("an answer");
                    assert_eq!(answer, b"\x04pong");
                } else if !written.breaks_off {
                    let _ = stream.read_to_end(&mut answer).await;
                    assert!(answer.is_empty(), "{answer:?} answers what was not asked");
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
            for step in steps.iter().take(20) {
                let done = tokio::time::timeout(STUCK, world.step(step)).await;
                assert!(done.is_ok(), "stuck: {step:?}");
            }
        });
    });
});
