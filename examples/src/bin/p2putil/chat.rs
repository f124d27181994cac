//! `chat`: sends lines of standard input to all nodes in a room, and prints theirs.

use std::collections::BTreeSet;
use std::io::BufRead as _;

use clap::Args;
use p2p::{Addr as _, BoxAddr, Message, Swarm as _};
use p2p_discovery::Topic;
use p2p_swarms::GossipAddr;
use p2p_swarms::gossipsub::GossipEvent;
use serde_json::json;
use tokio::sync::mpsc::{Receiver, channel};

use crate::Failure;
use crate::cli::Key;
use crate::discover::{Announce, Where};
use crate::gossip::{gossip_text, meeting, open, short};
use crate::interrupt::interrupt;
use crate::output::{Out, complain, one_line};

/// Maximum number of typed lines that wait to be sent; at the limit no more are read.
const TYPED: usize = 16;
/// Lifetime of an announcement.
const TTL: u64 = 60;

/// Options of the chat.
#[derive(Debug, Args)]
#[command(after_help = "\
Lines of standard input are published, signed by this node's key; lines of others are printed as '[ID] NAME: TEXT', where ID
is the beginning of the signer's id. Ends with the input, or when it is interrupted. Other nodes are found by multicast DNS
on the local network, unless a peer or another place is given.

Examples, each in two terminals:
  p2putil chat --name ann
  p2putil chat --stack udp=127.0.0.1:4000/p2pke --name ann
  p2putil chat --stack udp/p2pke --peer ID@127.0.0.1:4000 --name bob")]
pub(crate) struct Chat {
    /// Your name in the room
    #[arg(long, default_value = "anonymous", value_parser = name)]
    name: String,
    /// The room
    #[arg(long, default_value = "chat")]
    topic: Topic,
    /// The stack below; all nodes in a room use the same layers
    #[arg(long, default_value = "udp=0.0.0.0:0/p2pke/frag")]
    stack: String,
    /// A node in the room
    #[arg(long = "peer", value_name = "ADDR", allow_hyphen_values = true)]
    peers: Vec<String>,
    /// Find other nodes there, and be found: a tracker's URL, or 'mdns'; see 'find --help'
    #[arg(long = "announce", value_name = "WHERE")]
    places: Vec<Where>,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(args: Chat, out: Out) -> Result<(), Failure> {
    let (text, topic) = gossip_text(&format!("{}/gossip={}", args.stack, args.topic))?;
    let key = args.key.read(&text)?;
    let mut places = args.places.clone();
    if places.is_empty() && args.peers.is_empty() {
        places.push(Where::default());
    }
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let (node, gossip) = open(&text, &key).await?;
    for peer in &args.peers {
        gossip.add_peer(&gossip.inner().parse_addr(peer)?)?;
    }
    let by_default = args.places.is_empty();
    let meeting = match meeting(Announce::new(places, args.topic.clone(), TTL), &gossip, &key) {
        // Other nodes can still connect.
        Err(Failure::Failed(why)) if by_default => {
            complain(&format!("warning: searching for other nodes failed: {why}"));
            meeting(Announce::new(Vec::new(), args.topic, TTL), &gossip, &key)?
        }
        met => met?,
    };
    for addr in gossip.inner().local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("addr {addr}"), &json!({ "addr": addr }))?;
    }
    let (to, mut typed) = (GossipAddr::topic(&topic), typed());
    let mut present = BTreeSet::new();
    let talking = async {
        loop {
            tokio::select! {
                line = typed.recv() => {
                    let Some(line) = line else { return Ok(()) };
                    let line = format!("{}: {line}", args.name);
                    // A line that is too long is rejected; the chat continues.
                    if let Err(error) = gossip.tell(&to, gossip.packet(line.as_bytes())).await {
                        complain(&format!("warning: the line was not sent: {error}"));
                    }
                }
                message = gossip.receive() => show_line(&message?, out)?,
                event = gossip.event() => show_event(&event?, &topic, &mut present, out)?,
            }
        }
    };
    let ended = tokio::select! {
        () = &mut interrupt => Ok(()),
        ended = talking => ended,
        ended = meeting.keep_with_peers(&gossip) => ended,
    };
    meeting.withdraw().await;
    node.stack.close().await;
    ended
}

/// Returns the lines of standard input, until its end.
fn typed() -> Receiver<String> {
    let (line, typed) = channel(TYPED);
    // The thread waits for the terminal until the program ends.
    std::thread::spawn(move || {
        for text in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.blocking_send(text).is_err() {
                return;
            }
        }
    });
    typed
}

fn show_line(message: &Message<GossipAddr<BoxAddr>>, out: Out) -> Result<(), Failure> {
    let (text, from) = (one_line(&message.payload), message.src.peer_id());
    let id = from.map(|id| id.to_string());
    out.line(
        &format!("[{}] {text}", short(from)),
        &json!({ "event": "line", "src": id, "text": String::from_utf8_lossy(&message.payload) }),
    )
}

/// Prints that a peer enters or leaves the room. `present` contains the peers in the room, so that a peer
/// that unsubscribes and then disconnects leaves once, and a neighbour that never entered does not leave.
fn show_event(
    event: &GossipEvent<BoxAddr>,
    room: &str,
    present: &mut BTreeSet<BoxAddr>,
    out: Out,
) -> Result<(), Failure> {
    let (peer, what, is_news) = match event {
        GossipEvent::Subscribed { peer, topic } if **topic == *room => {
            (peer, "came", present.insert(peer.clone()))
        }
        GossipEvent::Unsubscribed { peer, topic } if **topic == *room => (peer, "went", present.remove(peer)),
        GossipEvent::Left { peer, .. } => (peer, "went", present.remove(peer)),
        _ => return Ok(()),
    };
    if !is_news {
        return Ok(());
    }
    let id = peer.peer_id().map(|id| id.to_string());
    out.line(
        &format!("* {} {what}", short(peer.peer_id())),
        &json!({ "event": what, "id": id, "addr": peer.to_string() }),
    )
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        return Err("expected 1 to 64 bytes without control characters".to_owned());
    }
    Ok(text.to_owned())
}
