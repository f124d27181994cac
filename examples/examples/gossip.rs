//! A mesh that forms by itself: nodes find one another through a tracker, and publish signed messages.
//!
//! `cargo run --example gossip`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::Swarm as _;
use p2p_discovery::{Addrs, Discovery as _, MemoryCell, Secret, Topic, Tracker, TrackerConfig, keep_peers};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossipsub::{GossipAddr, Signing};
use p2p_swarms::{GossipSwarm, SwarmExt as _, UdpSwarm};
use tokio::task::JoinSet;
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Number of nodes.
const NODES: usize = 5;
/// The topic of the messages.
const NEWS: &str = "news";

/// A node that gossips over secure channels, with messages of up to 64 KiB.
macro_rules! node {
    ($key:expr) => {{
        let udp = UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let signer = Registry::default().signer($key)?;
        let signing = Signing::strict(Arc::from(signer))?;
        GossipSwarm::new(udp.p2pke($key)?.fragment(64 << 10), signing)?
    }};
}

#[tokio::main]
async fn main() -> Result<()> {
    // Where the nodes find one another. Programs on several machines share a file or a server instead.
    let (cell, secret) = (MemoryCell::default(), Secret::random());
    let mesh: Topic = "mesh".parse()?;

    let mut readers = JoinSet::new();
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let key = PrivateKey::ed25519(&rand::random());
        let node = Arc::new(node!(&key));
        node.subscribe(NEWS)?;
        let tracker = Tracker::new(cell.clone(), secret.clone(), &key, TrackerConfig::default())?;
        let addrs = Addrs::new(node.inner().local_addrs())?;
        tracker.announce(&mesh, &addrs, Duration::from_mins(10)).await?;
        nodes.push((node, tracker));
    }
    for (number, (node, tracker)) in nodes.iter().cloned().enumerate() {
        let mesh = mesh.clone();
        readers.spawn(async move {
            let failed = |error| eprintln!("node {number}: {error}");
            let first = async {
                let message = node.receive().await?;
                println!(
                    "node {number} received {:?} from {}",
                    text(&message.payload),
                    message.src
                );
                Ok::<_, p2p::Error>(())
            };
            tokio::select! {
                received = first => received.map(|()| node),
                ended = keep_peers(&tracker, &mesh, &node, failed) => match ended? {},
            }
        });
    }

    let (publisher, _) = &nodes[0];
    timeout(Duration::from_secs(20), async {
        while publisher.subscribers(NEWS).len() < NODES - 1 {
            publisher.event().await?;
        }
        Ok::<_, p2p::Error>(())
    })
    .await??;
    let to = GossipAddr::topic(NEWS);
    publisher.tell(&to, publisher.packet(b"hello, mesh")).await?;

    let mut received = 0;
    // A node does not receive its own messages.
    while received < NODES - 1 {
        let Some(reader) = readers.join_next().await else {
            break;
        };
        drop(reader??);
        received += 1;
    }
    readers.shutdown().await;
    assert_eq!(received, NODES - 1, "every other node received the message");
    Ok(())
}

fn text(payload: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(payload)
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
