//! A server with state: a key-value store that answers asks, and exports what it counts.
//!
//! `cargo run --example server`

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p::{AskSwarm, Error, Message, Packet, PeerId, Rejection, Result, SecureSwarm, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{AskSwarmExt as _, KeyAddr, SwarmExt as _, UdpSwarm};

/// The address of a node: its identity, and its socket address.
type Addr = KeyAddr<SocketAddr>;

/// Maximum number of values that the server keeps for one client.
const VALUES: usize = 100;
/// The code of a rejection: there is no such key. Codes below 16 are the framework's.
const UNKNOWN: Rejection = Rejection::new(NonZeroU8::new(16).unwrap());
/// Requests that are handled concurrently.
const AT_ONCE: usize = 64;

/// The values of each client. A client is the identity that the secure layer proves.
#[derive(Default)]
struct Store(Mutex<BTreeMap<PeerId, Values>>);

/// Values by key.
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

impl Store {
    /// Answers `key=value` by storing it, and `key` with its value.
    fn answer(&self, request: &Message<Addr>) -> Result<Packet, Rejection> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = stored.entry(request.src.id).or_default();
        match request.payload.iter().position(|byte| *byte == b'=') {
            Some(_) if values.len() >= VALUES => Err(Rejection::BUSY),
            Some(at) => {
                let (key, value) = (&request.payload[..at], &request.payload[at + 1..]);
                values.insert(key.to_vec(), value.to_vec());
                Ok(b"stored".into())
            }
            None => values
                .get(&*request.payload)
                .map(|value| value.clone().into())
                .ok_or(UNKNOWN),
        }
    }
}

/// Returns a node with asks over a secure channel over UDP.
fn node() -> Result<impl AskSwarm<Addr> + SecureSwarm<Addr> + 'static> {
    let udp = UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(udp.p2pke(&PrivateKey::ed25519(&rand::random()))?.mbapp(64 << 10))
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Arc::new(node()?);
    let to = server.local_addr()?;
    println!("serving at {}, as {}", to.addr, to.id);
    let serving = tokio::spawn({
        let server = server.clone();
        async move {
            let store = Store::default();
            p2p::serve_asks(&*server, AT_ONCE, async |request| store.answer(&request)).await
        }
    });

    let (alice, bob) = (node()?, node()?);
    let limit = Duration::from_secs(5);
    for question in ["colour=green", "colour"] {
        let answer = alice
            .ask_timeout(&to, alice.packet(question.as_bytes()), limit)
            .await?;
        println!("alice asks {question:?}: {}", String::from_utf8_lossy(&answer));
    }
    // Values belong to the identity that stored them.
    match bob.ask_timeout(&to, bob.packet(b"colour"), limit).await {
        Err(Error::Rejected(UNKNOWN)) => println!("bob asks \"colour\": rejected, there is no such key"),
        other => return other.map(drop),
    }

    server.visit_counters(&mut |layer| {
        let now = layer.snapshot();
        println!(
            "{:>14}: {} received, {} sent, {} dropped",
            layer.layer(),
            now.received,
            now.sent,
            now.dropped_total()
        );
    });
    // The same counters go to the recorder that a program has installed for the crate `metrics`.
    p2p_swarms::metrics::export(&*server, "server");

    // `serve_asks` ends when its swarm is closed.
    server.close().await;
    serving.await.unwrap_or(Err(Error::Closed))
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
