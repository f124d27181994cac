//! A node of a gossipsub mesh, steered by lines: commands on standard input, events on standard output.
//!
//! | line | meaning |
//! | --- | --- |
//! | `at MULTIADDR` | the node listens there, and is subscribed to the topic |
//! | `subscribed PEER` | a peer is subscribed to the topic |
//! | `received TEXT` | a message has arrived |
//! | `connect MULTIADDR` | connects to a node |
//! | `publish TEXT` | publishes a message |
//!
//! The end of standard input ends the node. Nodes listen on TCP with Noise and yamux, and sign messages; the ids of messages are
//! those of the specification, which js-libp2p uses if it is told to.

use p2p::{Addr as _, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_libp2p::{Host, HostGossipConfig};
use p2p_swarms::gossipsub::{GossipAddr, GossipEvent, Signing};

use crate::Failure;
use crate::commands::commands;

/// The topic of all nodes.
pub const TOPIC: &str = "interop";

/// Runs a node until the end of standard input.
///
/// # Errors
/// A text that says what failed.
pub async fn run() -> Result<(), Failure> {
    let key = PrivateKey::ed25519(&rand::random());
    let host = Host::builder(&key)
        .listen("/ip4/127.0.0.1/tcp/0")?
        .start()
        .await?;
    let signing = Signing::strict(Registry::default().signer(&key)?.into())?;
    let node = host.gossip(signing, HostGossipConfig::default())?;
    node.subscribe(TOPIC)?;
    println!("at {}", node.inner().local_addr()?);
    let mut lines = commands();
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { break };
                match line.split_once(' ') {
                    Some(("connect", addr)) => node.add_peer(&addr.parse()?)?,
                    Some(("publish", text)) => node.tell(&GossipAddr::topic(TOPIC), node.packet(text.as_bytes())).await?,
                    _ => return Err(format!("unknown command: {line}").into()),
                }
            }
            event = node.event() => match event? {
                GossipEvent::Subscribed { peer, topic } if *topic == *TOPIC => println!("subscribed {peer}"),
                event => eprintln!("{event:?}"),
            },
            message = node.receive() => {
                let message = message?;
                println!("received {}", String::from_utf8_lossy(&message.payload));
                eprintln!("author {:?}", message.src.peer_id());
            }
        }
    }
    node.close().await;
    Ok(())
}
