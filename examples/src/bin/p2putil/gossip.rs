//! `pub` and `sub`: publish one message to a topic, and print all messages of one.

use std::time::Duration;

use clap::Args;
use p2p::{PeerId, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::GossipAddr;
use p2p_swarms::stack::{Gossip, Layer, Overlay, StackNode, StackText};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::cli::Key;
use crate::discover::{Announce, Announcing};
use crate::interrupt::interrupt;
use crate::output::Out;
use crate::send::input;
use crate::{Failure, closing, parse};

/// Interval of checks for subscribers.
const LOOK: Duration = Duration::from_millis(20);

/// Options of publishing.
#[derive(Debug, Args)]
#[command(after_help = "\
The message is sent once a peer subscribes to the topic; peers are given by 'peers=', or found at the places of --announce.

Examples, with 'p2putil sub' in another terminal:
  p2putil pub udp/p2pke/gossip=news,peers=ID@127.0.0.1:4000 hello
  p2putil pub udp=0.0.0.0:0/p2pke/frag/gossip=news --announce mdns - < letter.txt")]
pub(crate) struct Pub {
    /// The stack; its last layer is gossip
    stack: String,
    /// The message; '-' reads it from standard input
    #[arg(allow_hyphen_values = true)]
    text: String,
    /// How long to search for a subscriber, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 10.0, value_parser = crate::cli::seconds)]
    wait: f64,
    #[command(flatten)]
    announce: Announce,
    #[command(flatten)]
    key: Key,
}

/// Options of subscribing.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr TEXT' for each address, 'bootstrap TEXT' for others to use with 'peers=', then 'message SRC PAYLOAD' for each
message; SRC is the topic and the ID of the signer.

Examples, each in a separate terminal:
  p2putil sub udp=127.0.0.1:4000/p2pke/gossip=news --key node.pem
  p2putil sub udp/p2pke/gossip=news,peers=ID@127.0.0.1:4000
  p2putil sub udp=0.0.0.0:0/p2pke/frag/gossip=news --announce mdns")]
pub(crate) struct Sub {
    /// The stack; its last layer is gossip
    stack: String,
    #[command(flatten)]
    announce: Announce,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn publish(args: Pub, out: Out) -> Result<(), Failure> {
    let (text, topic) = gossip_text(&args.stack)?;
    let key = args.key.read(&text)?;
    let (node, gossip) = open(&text.visiting(), &key).await?;
    closing(&node.stack, publish_from(&node, &gossip, &topic, &key, args, out)).await
}

async fn publish_from(
    node: &StackNode,
    gossip: &Gossip,
    topic: &str,
    key: &PrivateKey,
    args: Pub,
    out: Out,
) -> Result<(), Failure> {
    let payload = node.stack.packet(&input(&args.text, node.stack.mtu())?);
    payload.check_mtu(node.stack.mtu())?;
    let (to, size) = (GossipAddr::topic(topic), payload.len());
    let meeting = meeting(args.announce, gossip, key)?;
    let is_wanted = async {
        while gossip.subscribers(topic).is_empty() {
            sleep(LOOK).await;
        }
    };
    let wanted = tokio::select! {
        wanted = timeout(Duration::from_secs_f64(args.wait), is_wanted) => wanted,
        ended = meeting.keep_with_peers(gossip) => return ended,
    };
    meeting.withdraw().await;
    if wanted.is_err() {
        let why = format!("no subscriber of {topic} was found within {} s", args.wait);
        return Err(Failure::Failed(why));
    }
    let peers = gossip.subscribers(topic).len();
    gossip.tell(&to, payload).await?;
    // Once this returns the message was sent, and only then the line is printed.
    node.stack.close().await;
    out.line(
        &format!("published {topic} {size} bytes to {peers} peers"),
        &json!({ "event": "published", "topic": topic, "size": size, "peers": peers }),
    )
}

pub(crate) async fn subscribe(args: Sub, out: Out) -> Result<(), Failure> {
    let (text, _) = gossip_text(&args.stack)?;
    let key = args.key.read(&text)?;
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let (node, gossip) = tokio::select! {
        () = &mut interrupt => return Ok(()),
        node = open(&text, &key) => node?,
    };
    let meeting = meeting(args.announce, &gossip, &key)?;
    show(&node, &gossip, out)?;
    let printing = async {
        loop {
            out.message("message", &node.stack.receive().await?)?;
        }
    };
    let ended: Result<(), Failure> = tokio::select! {
        () = &mut interrupt => Ok(()),
        ended = printing => ended,
        ended = meeting.keep_with_peers(&gossip) => ended,
    };
    meeting.withdraw().await;
    node.stack.close().await;
    ended
}

/// Prints the addresses of a node.
pub(crate) fn show(node: &StackNode, gossip: &Gossip, out: Out) -> Result<(), Failure> {
    for addr in node.stack.local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("addr {addr}"), &json!({ "addr": addr }))?;
    }
    for addr in gossip.inner().local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("bootstrap {addr}"), &json!({ "bootstrap": addr }))?;
    }
    Ok(())
}

/// Returns the text of a stack whose last layer is gossip, and its topic.
pub(crate) fn gossip_text(stack: &str) -> Result<(StackText, String), Failure> {
    let text = parse(stack)?;
    match text.layers().last() {
        Some(Layer::Gossip { topic, .. }) => {
            let topic = topic.to_string();
            Ok((text, topic))
        }
        _ => Err(Failure::Usage(format!(
            "{text} does not end in gossip=TOPIC, which publishes and subscribes"
        ))),
    }
}

/// Opens a node; returns its gossip handle as well.
pub(crate) async fn open(text: &StackText, key: &PrivateKey) -> Result<(StackNode, Gossip), Failure> {
    let node = text.build_node(key).await?;
    match node.overlays.last() {
        Some(Overlay::Gossip(gossip)) => {
            let gossip = gossip.clone();
            Ok((node, gossip))
        }
        _ => Err(Failure::Usage(format!("{text} does not end in gossip=TOPIC"))),
    }
}

/// Opens discovery for a gossip node.
pub(crate) fn meeting(announce: Announce, gossip: &Gossip, key: &PrivateKey) -> Result<Announcing, Failure> {
    announce.open(&gossip.inner().local_addrs(), key)
}

/// Returns the first characters of an id, enough to distinguish the nodes in a room.
pub(crate) fn short(id: Option<PeerId>) -> String {
    id.map_or_else(|| "?".to_owned(), |id| id.to_string().chars().take(8).collect())
}
