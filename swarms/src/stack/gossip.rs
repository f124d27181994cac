//! The `gossip` layer of a stack: its topic and its first peers.

use std::sync::Arc;
use std::time::Duration;

use p2p::{BoxAddr, BoxSwarm, Result, Swarm, pass_through};
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, sha3_256, shake256};
use p2p_protocols::gossipsub::Signing;
use tokio::time::timeout;

use super::build::text_error;
use super::grammar::Placed;
use super::overlay::Member;
use super::read::Piece;
use super::{Overlay, Stack, StackError, StackText};
use crate::map::EraseSwarm;
use crate::{GossipAddr, GossipConfig, GossipSwarm};

/// Number of nodes of the same text that become first peers, if the text contains none.
const PEERS: usize = 8;

/// How long building a node waits in total for the hellos of the peers in the text.
const NAMED_WITHIN: Duration = Duration::from_secs(2);
/// The same for nodes of this process, which are known to be open: longer, since only a bad medium delays
/// them.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// A handle on the node of a `gossip` layer, for its peers, its events and further topics.
///
/// While a handle exists, the node is not dropped with its stack; closing the stack closes it.
pub type Gossip = Arc<GossipSwarm<BoxAddr, BoxSwarm<BoxAddr>>>;

/// The swarm of the layer: the node, with its own address before the topic's.
///
/// A topic addresses all of its subscribers. `local_addrs` must return the best address first, and `topic@ID`
/// is the one at which others reach this node and at which it can be restarted.
struct NodeFirst {
    node: Gossip,
}

type A = GossipAddr<BoxAddr>;

impl Swarm<A> for NodeFirst {
    pass_through!(node: tell, tell_batch, receive, receive_batch, mtu, parse_addr, close, headroom, visit_counters);

    fn local_addrs(&self) -> Vec<A> {
        let mut addrs = self.node.local_addrs();
        addrs.sort_by_key(|addr| addr.at.is_none());
        addrs
    }
}

/// Adds a gossip node to a stack, which signs its messages and, unless it visits, subscribes to the topic.
/// Waits, within a time limit, for the hellos of its first peers.
pub(super) async fn put(
    text: &StackText,
    placed: &Placed,
    (topic, peers): (&str, &str),
    below: &Stack,
    key: &PrivateKey,
) -> Result<(Stack, Overlay), StackError> {
    let fail = |at, error| StackError::layer(&text.text, at, placed.layer.word(), error);
    let failed = |error| fail(placed.at, error);
    let named = peers_of(text, placed, (topic, peers), below)?;
    let node = Arc::new(node(text, below, key).map_err(failed)?);
    if !text.visits {
        node.subscribe(topic).map_err(failed)?;
    }
    let members = placed.members.clone().unwrap_or_default();
    for (at, peer) in &named {
        node.add_peer(peer).map_err(|error| fail(*at, error))?;
    }
    let mut first: Vec<BoxAddr> = named.into_iter().map(|(_, peer)| peer).collect();
    let mut within = NAMED_WITHIN;
    if first.is_empty() {
        (first, within) = (members.some_open(PEERS), OPEN_WITHIN);
        for peer in &first {
            node.add_peer(peer).map_err(failed)?;
        }
    }
    if !text.visits
        && let (Some(id), Some(addr)) = (node.id(), node.inner().local_addrs().into_iter().next())
    {
        let handle = Arc::downgrade(&node);
        let is_open = Box::new(move || handle.upgrade().is_some_and(|node| node.kept().is_ok()));
        members.add(Member { id, addr, is_open });
    }
    let hellos = async {
        for peer in &first {
            // An unreachable peer is removed; others may still answer.
            drop(node.until_met(peer).await);
        }
    };
    // The node continues without late peers, and repeats its hello to them.
    drop(timeout(within, hellos).await);
    let shown = NodeFirst { node: node.clone() };
    let stack = Stack::Plain(BoxSwarm::new(EraseSwarm::erase(shown)));
    Ok((stack, Overlay::Gossip(node)))
}

/// Parses the addresses of `peers=`, each with its position in the text.
fn peers_of(
    text: &StackText,
    placed: &Placed,
    (topic, peers): (&str, &str),
    below: &Stack,
) -> Result<Vec<(usize, BoxAddr)>, StackError> {
    if peers.is_empty() {
        return Ok(Vec::new());
    }
    let list = Piece {
        whole: &text.text,
        // `peers` is the only option.
        at: placed.argument_at + topic.len() + ",peers=".len(),
        text: peers,
    };
    let read = |piece: Piece<'_>| {
        let addr = below.parse_addr(piece.text);
        let addr = addr.map_err(|error| text_error(piece, error, "not an address of the layer below"))?;
        Ok((piece.at, addr))
    };
    list.split(';').map(read).collect()
}

fn node(
    text: &StackText,
    below: &Stack,
    key: &PrivateKey,
) -> Result<GossipSwarm<BoxAddr, BoxSwarm<BoxAddr>>> {
    let signer = Registry::default().signer(key);
    let signer = signer.map_err(|error| p2p::Error::invalid("private key", error.to_string()))?;
    // A key has a different id for each kind of layer; the id of an author is the one that the layers below
    // prove.
    let proven = below.local_addrs().iter().find_map(p2p::Addr::peer_id);
    let kinds: [Fingerprint; 2] = [shake256, sha3_256];
    let of_proven = text
        .fingerprint()
        .into_iter()
        .chain(kinds)
        .find(|of| Some(of(signer.public_key())) == proven);
    let config = GossipConfig {
        fingerprint: of_proven.unwrap_or(shake256),
        ..GossipConfig::default()
    };
    GossipSwarm::with_config(below.swarm(), Signing::strict(Arc::from(signer))?, config)
}
