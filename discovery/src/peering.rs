//! Keeps the peers of a gossip node in step with a discovery: found nodes are added, lost ones removed.
//!
//! A node that was found but is not a peer (it did not answer, or there was no room) is tried again at its
//! next address. Peers that the discovery does not report are not touched.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use p2p::{Addr, PeerId, Swarm};
use p2p_swarms::GossipSwarm;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::{Change, Discovery, Error, Node, Topic};

/// Delay until a found node that is not a peer is tried again.
pub const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Nodes that are made peers and kept so, at most. At the limit as many of those that are found later wait, and the oldest of
/// them is forgotten. Nodes that do not answer give their places to nodes that wait, and wait themselves then.
pub const MAX_KEPT: usize = 1024;

/// How often in a row a node is tried without an answer before it gives its place to one that waits.
const SILENT: u32 = 2;

/// Adds the nodes that `discovery` finds under a topic as peers of a gossip node, for as long as the future is awaited. An
/// error of the discovery is passed to `failed`, and does not end it.
///
/// # Errors
/// Returns [`p2p::Error::Closed`] when the node is closed; it does not end otherwise.
///
/// # Cancel safety
/// After cancelling, peers stay peers.
pub async fn keep_peers<A: Addr, S: Swarm<A>>(
    discovery: &(impl Discovery + ?Sized),
    topic: &Topic,
    node: &GossipSwarm<A, S>,
    mut failed: impl FnMut(Error),
) -> p2p::Result<std::convert::Infallible> {
    let mut changes = discovery.watch(topic).fuse();
    let mut again = interval(TRY_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut found: BTreeMap<PeerId, Found<A>> = BTreeMap::new();
    let mut waiting: VecDeque<(PeerId, Found<A>)> = VecDeque::new();
    loop {
        tokio::select! {
            Some(change) = changes.next() => match change {
                Ok(Change::Found(new)) => {
                    let id = new.id;
                    let before = found.remove(&id);
                    waiting.retain(|(known, _)| *known != id);
                    match Found::read(&new, node) {
                        Ok(new) if before.is_none() && found.len() >= MAX_KEPT => {
                            debug!(%id, "found, and waits: there is no room");
                            wait(&mut waiting, id, new);
                        }
                        Ok(new) => {
                            // It stays a peer at an unchanged address.
                            let at = before.and_then(|before| before.at);
                            if let Some(at) = at.filter(|at| !new.addrs.contains(at)) {
                                node.remove_peer(&at)?;
                            }
                            let known = Known::of(node);
                            found.entry(id).or_insert(new).keep(node, &known, &mut failed)?;
                        }
                        Err(error) => {
                            found.extend(before.map(|before| (id, before)));
                            failed(error);
                        }
                    }
                }
                Ok(Change::Lost(id)) => {
                    waiting.retain(|(known, _)| *known != id);
                    if let Some(at) = found.remove(&id).and_then(|lost| lost.at) {
                        node.remove_peer(&at)?;
                    }
                }
                Err(error) => failed(error),
            },
            _ = again.tick() => {
                // A closed node has no peers, and returns its error here.
                node.kept()?;
                take_turns(&mut found, &mut waiting, node)?;
                let known = Known::of(node);
                for found in found.values_mut() {
                    found.keep(node, &known, &mut failed)?;
                }
            }
        }
    }
}

/// Lets a node wait for a place.
fn wait<A>(waiting: &mut VecDeque<(PeerId, Found<A>)>, id: PeerId, found: Found<A>) {
    if waiting.len() >= MAX_KEPT {
        waiting.pop_front();
    }
    waiting.push_back((id, found));
}

/// Gives the places of nodes that do not answer, and free ones, to those that wait.
fn take_turns<A: Addr, S: Swarm<A>>(
    found: &mut BTreeMap<PeerId, Found<A>>,
    waiting: &mut VecDeque<(PeerId, Found<A>)>,
    node: &GossipSwarm<A, S>,
) -> p2p::Result<()> {
    for found in found.values_mut() {
        let is_met = found.at.as_ref().is_some_and(|at| node.is_met(at));
        found.silent = if is_met { 0 } else { found.silent.saturating_add(1) };
    }
    let silent = found.iter().filter(|(_, found)| found.silent >= SILENT);
    let mut silent: Vec<PeerId> = silent.map(|(id, _)| *id).collect();
    for _ in 0..waiting.len() {
        let gone = if found.len() < MAX_KEPT {
            None
        } else if let Some(id) = silent.pop() {
            found.remove_entry(&id)
        } else {
            break;
        };
        if let Some((id, next)) = waiting.pop_front() {
            found.insert(id, next);
        }
        if let Some((id, mut gone)) = gone {
            if let Some(at) = gone.at.take() {
                node.remove_peer(&at)?;
            }
            gone.silent = 0;
            wait(waiting, id, gone);
        }
    }
    Ok(())
}

/// Addresses that need not be turned to.
struct Known<A> {
    peers: HashSet<A>,
    local: Vec<A>,
}

impl<A: Addr> Known<A> {
    fn of<S: Swarm<A>>(node: &GossipSwarm<A, S>) -> Self {
        let (peers, local) = (node.peers().into_iter().collect(), node.inner().local_addrs());
        Self { peers, local }
    }
}

/// A found node.
struct Found<A> {
    /// Its addresses, the best first.
    addrs: Vec<A>,
    /// The index of the address to try next.
    next: usize,
    /// The address at which it was added as a peer.
    at: Option<A>,
    /// How often in a row it was tried without an answer.
    silent: u32,
}

impl<A: Addr> Found<A> {
    /// Parses the addresses of a node that belong to the swarm below.
    fn read<S: Swarm<A>>(found: &Node, node: &GossipSwarm<A, S>) -> Result<Self, Error> {
        let mut why = None;
        let addrs = found.addrs.iter();
        let addrs: Vec<A> = addrs
            .filter_map(|addr| {
                node.inner()
                    .parse_addr(addr)
                    .map_err(|error| why = Some(error))
                    .ok()
            })
            .collect();
        match why {
            Some(error) if addrs.is_empty() => Err(error.into()),
            _ => Ok(Self {
                addrs,
                next: 0,
                at: None,
                silent: 0,
            }),
        }
    }

    /// Adds it as a peer, if it is neither a peer nor the node itself.
    fn keep<S: Swarm<A>>(
        &mut self,
        node: &GossipSwarm<A, S>,
        known: &Known<A>,
        failed: &mut impl FnMut(Error),
    ) -> p2p::Result<()> {
        if let Some(peer) = self.addrs.iter().find(|addr| known.peers.contains(addr)) {
            self.at = Some(peer.clone());
            return Ok(());
        }
        if self.addrs.iter().any(|addr| known.local.contains(addr)) {
            return Ok(());
        }
        let Some(addr) = self.addrs.get(self.next % self.addrs.len().max(1)) else {
            return Ok(());
        };
        self.next = self.next.wrapping_add(1);
        match node.add_peer(addr) {
            Ok(()) => self.at = Some(addr.clone()),
            Err(p2p::Error::Closed) => return Err(p2p::Error::Closed),
            Err(error) => failed(error.into()),
        }
        Ok(())
    }
}
