//! The streams between a node and its peers on a medium with connections: which are opened, when a peer joins
//! and when it leaves.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use p2p::{Error, Result};

use super::peer::Version;

/// Limits and pauses of the streams to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Whether every connected node that supports the protocol becomes a peer, and not only those of
    /// [`Links::connect`]. Default: yes.
    pub accept: bool,
    /// Nodes of [`Links::connect`] that are dialled or connected; further ones are refused. Default: 1024.
    pub max_wanted: usize,
    /// How often a lost stream is opened again while the node stays connected. After that the node is no peer
    /// until it connects anew. Default: 5.
    pub max_retries: u32,
    /// Pause before a lost stream is opened again, which doubles with each time. Default: 200 ms.
    pub retry_pause: Duration,
    /// Streams that a node may open within [`inbound_window`](Self::inbound_window); further ones are refused.
    /// Default: 16.
    pub max_inbound: u32,
    /// The time after which a node may open streams again. Default: 1 min.
    pub inbound_window: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            accept: true,
            max_wanted: 1024,
            max_retries: 5,
            retry_pause: Duration::from_millis(200),
            max_inbound: 16,
            inbound_window: Duration::from_mins(1),
        }
    }
}

/// A number that distinguishes the openings of streams: each [`LinkAction::Open`] has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpeningId(u64);

/// What a driver of [`Links`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAction<A> {
    /// Connect to a node. [`Links::handle_connected`] or [`Links::handle_dial_failed`] reports the result.
    Dial {
        /// The node, as [`Links::connect`] named it.
        peer: A,
    },
    /// Open a stream to a node, for the newest version that both support. [`Links::handle_opened`] or
    /// [`Links::handle_open_failed`] reports the result.
    Open {
        /// The node.
        peer: A,
        /// The opening.
        id: OpeningId,
    },
    /// The node is a peer from now on: report it to the router, and then read its streams.
    Join {
        /// The peer.
        peer: A,
        /// The version of the stream to it.
        version: Version,
    },
    /// What was sent to the peer may be lost: have the router repeat what must not be.
    Resume {
        /// The peer.
        peer: A,
    },
    /// End the streams with a node. If it was a peer, report to the router that it left.
    End {
        /// The node.
        peer: A,
        /// Whether the router has it as a peer.
        is_peer: bool,
    },
}

/// The stream to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outbound {
    /// There is none, because the node is not connected, not known to support the protocol, or not accepted.
    None,
    Opening(OpeningId),
    Open,
    /// It is opened again at this time.
    Paused(Duration),
    /// It is not opened again until the node connects anew.
    GivenUp,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent")]
struct Link {
    is_connected: bool,
    /// Whether this node asked for it.
    is_wanted: bool,
    is_supported: bool,
    is_peer: bool,
    outbound: Outbound,
    losses: u32,
    /// Streams that it opened in the current window, and the window's end.
    inbound: u32,
    window_end: Duration,
}

impl Link {
    fn new(is_connected: bool) -> Self {
        Self {
            is_connected,
            is_wanted: false,
            is_supported: false,
            is_peer: false,
            outbound: Outbound::None,
            losses: 0,
            inbound: 0,
            window_end: Duration::ZERO,
        }
    }
}

/// The streams between a node and its peers on a medium with connections (libp2p specifications, pubsub).
///
/// Each side opens one stream to the other, and writes there only. A node is a peer while this node has a stream to it. The
/// engine decides, for each connected node, when that stream is opened, how often it is opened again after it was lost, and
/// how many streams the node may open itself. It does no I/O: a driver reports what happens, and then carries out the
/// [`LinkAction`]s of [`poll_action`](Self::poll_action).
///
/// ```
/// use p2p_protocols::gossipsub::{LinkAction, LinkConfig, Links, Version};
///
/// let mut links = Links::new(LinkConfig::default());
/// links.handle_connected(&"bob");
/// links.handle_supported(&"bob", true);
/// let Some(LinkAction::Open { peer, id }) = links.poll_action() else { panic!("a stream to open") };
/// assert!(links.handle_opened(&peer, id, Version::V1_2));
/// assert_eq!(links.poll_action(), Some(LinkAction::Join { peer, version: Version::V1_2 }));
/// ```
///
/// # Limits
/// There is one entry for each connected node, of which the medium bounds the number, and one for each node that this node
/// dials, [`LinkConfig::max_wanted`] at most. All other limits are in [`LinkConfig`].
#[derive(Debug)]
pub struct Links<A> {
    config: LinkConfig,
    nodes: BTreeMap<A, Link>,
    actions: VecDeque<LinkAction<A>>,
    last_opening: u64,
}

impl<A: Clone + Ord> Links<A> {
    /// Creates the state of a node without connections.
    pub fn new(config: LinkConfig) -> Self {
        Self {
            config,
            nodes: BTreeMap::new(),
            actions: VecDeque::new(),
            last_opening: 0,
        }
    }

    /// Asks for a node as a peer: it is dialled unless it is connected.
    ///
    /// # Errors
    /// [`Error::Limit`] at [`LinkConfig::max_wanted`].
    pub fn connect(&mut self, peer: &A) -> Result<()> {
        if !self.nodes.get(peer).is_some_and(|link| link.is_wanted) {
            let limit = self.config.max_wanted;
            if self.nodes.values().filter(|link| link.is_wanted).count() >= limit {
                let what = "peers that are dialled";
                return Err(Error::Limit { what, limit });
            }
        }
        let is_new = !self.nodes.contains_key(peer);
        let link = self.nodes.entry(peer.clone()).or_insert_with(|| Link::new(false));
        link.is_wanted = true;
        if is_new {
            self.actions.push_back(LinkAction::Dial { peer: peer.clone() });
        } else if link.outbound == Outbound::GivenUp && link.is_connected {
            (link.outbound, link.losses) = (Outbound::None, 0);
        }
        self.open(peer);
        Ok(())
    }

    /// Returns whether a node is a peer, or was asked for and may become one without a further call.
    pub fn is_connecting(&self, peer: &A) -> bool {
        let link = self.nodes.get(peer);
        link.is_some_and(|link| link.is_peer || (link.is_wanted && link.outbound != Outbound::GivenUp))
    }

    /// Reports that a node is connected.
    pub fn handle_connected(&mut self, peer: &A) {
        let link = self.nodes.entry(peer.clone()).or_insert_with(|| Link::new(true));
        link.is_connected = true;
        self.open(peer);
    }

    /// Reports that a node could not be dialled.
    pub fn handle_dial_failed(&mut self, peer: &A) {
        if self.nodes.get(peer).is_some_and(|link| !link.is_connected) {
            self.nodes.remove(peer);
        }
    }

    /// Reports that a connection with a node has ended, and whether it was the last one.
    pub fn handle_disconnected(&mut self, peer: &A, is_last: bool) {
        let Some(link) = self.nodes.get(peer) else { return };
        if is_last {
            let is_peer = link.is_peer;
            self.nodes.remove(peer);
            let peer = peer.clone();
            self.actions.push_back(LinkAction::End { peer, is_peer });
        } else if link.is_peer && link.outbound == Outbound::Open {
            // The stream may have been on that connection.
            self.actions.push_back(LinkAction::Resume { peer: peer.clone() });
        }
    }

    /// Reports whether a connected node supports the protocol. If not, it is no peer until it does.
    pub fn handle_supported(&mut self, peer: &A, is_supported: bool) {
        let Some(link) = self.nodes.get_mut(peer) else {
            return;
        };
        let was_supported = std::mem::replace(&mut link.is_supported, is_supported);
        if is_supported {
            self.open(peer);
        } else if was_supported && link.outbound != Outbound::GivenUp {
            self.end(peer, Outbound::None);
        }
    }

    /// Reports that a stream was opened. Returns whether it is used; if not, it is to be dropped.
    pub fn handle_opened(&mut self, peer: &A, id: OpeningId, version: Version) -> bool {
        let Some(link) = self.opening(peer, id) else {
            return false;
        };
        link.outbound = Outbound::Open;
        let (was_peer, peer) = (std::mem::replace(&mut link.is_peer, true), peer.clone());
        self.actions.push_back(if was_peer {
            LinkAction::Resume { peer }
        } else {
            LinkAction::Join { peer, version }
        });
        true
    }

    /// Reports that a stream could not be opened. `is_refused` says that the node does not support the protocol.
    pub fn handle_open_failed(&mut self, now: Duration, peer: &A, id: OpeningId, is_refused: bool) {
        if self.opening(peer, id).is_none() {
            return;
        }
        if is_refused {
            self.handle_supported(peer, false);
        } else {
            self.lose(now, peer);
        }
    }

    /// Reports that the stream to a peer was lost.
    pub fn handle_lost(&mut self, now: Duration, peer: &A) {
        let link = self.nodes.get(peer);
        if link.is_some_and(|link| link.outbound == Outbound::Open) {
            self.lose(now, peer);
        }
    }

    /// Reports that the router removed a peer, or refused it. It is a peer again after it has connected anew.
    pub fn handle_removed(&mut self, peer: &A) {
        let Some(link) = self.nodes.get_mut(peer) else {
            return;
        };
        if !link.is_connected {
            self.nodes.remove(peer);
            return;
        }
        (link.is_peer, link.is_wanted) = (false, false);
        self.end(peer, Outbound::GivenUp);
    }

    /// Reports a stream that a node opened. Returns whether it is read, in place of an earlier one; if not, it
    /// is to be dropped.
    pub fn handle_inbound(&mut self, now: Duration, peer: &A) -> bool {
        let max = self.config.max_inbound;
        let Some(link) = self.nodes.get_mut(peer) else {
            return false;
        };
        if now >= link.window_end {
            (link.inbound, link.window_end) = (0, now.saturating_add(self.config.inbound_window));
        }
        if link.outbound == Outbound::GivenUp
            || !(self.config.accept || link.is_wanted)
            || link.inbound >= max
        {
            return false;
        }
        link.inbound += 1;
        self.handle_supported(peer, true);
        true
    }

    /// Reports that a stream which a node had opened has ended. The stream to it may be of no more use, which sending shows.
    pub fn handle_inbound_ended(&mut self, peer: &A) {
        let link = self.nodes.get(peer);
        if link.is_some_and(|link| link.is_peer && link.outbound == Outbound::Open) {
            self.actions.push_back(LinkAction::Resume { peer: peer.clone() });
        }
    }

    /// Opens streams whose pause has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        let is_due = |link: &Link| matches!(link.outbound, Outbound::Paused(until) if until <= now);
        let due: Vec<A> = self
            .nodes
            .iter()
            .filter(|(_, link)| is_due(link))
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in due {
            if let Some(link) = self.nodes.get_mut(&peer) {
                link.outbound = Outbound::None;
            }
            self.open(&peer);
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let pauses = self.nodes.values().filter_map(|link| match link.outbound {
            Outbound::Paused(until) => Some(until),
            _ => None,
        });
        pauses.min()
    }

    /// Returns the next action.
    pub fn poll_action(&mut self) -> Option<LinkAction<A>> {
        self.actions.pop_front()
    }

    /// Returns the number of nodes with an entry.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn opening(&mut self, peer: &A, id: OpeningId) -> Option<&mut Link> {
        let link = self.nodes.get_mut(peer)?;
        (link.outbound == Outbound::Opening(id)).then_some(link)
    }

    fn open(&mut self, peer: &A) {
        let accept = self.config.accept;
        let Some(link) = self.nodes.get_mut(peer) else {
            return;
        };
        let is_accepted = accept || link.is_wanted;
        if !link.is_connected || !link.is_supported || !is_accepted || link.outbound != Outbound::None {
            return;
        }
        self.last_opening += 1;
        let id = OpeningId(self.last_opening);
        link.outbound = Outbound::Opening(id);
        let peer = peer.clone();
        self.actions.push_back(LinkAction::Open { peer, id });
    }

    /// Ends the streams with a node.
    fn end(&mut self, peer: &A, outbound: Outbound) {
        if let Some(link) = self.nodes.get_mut(peer) {
            link.outbound = outbound;
            let is_peer = std::mem::replace(&mut link.is_peer, false);
            let peer = peer.clone();
            self.actions.push_back(LinkAction::End { peer, is_peer });
        }
    }

    fn lose(&mut self, now: Duration, peer: &A) {
        let Some(link) = self.nodes.get_mut(peer) else {
            return;
        };
        link.losses = link.losses.saturating_add(1);
        if link.losses > self.config.max_retries {
            return self.end(peer, Outbound::GivenUp);
        }
        let doublings = (link.losses - 1).min(16);
        let pause = self.config.retry_pause.saturating_mul(1 << doublings);
        link.outbound = Outbound::Paused(now.saturating_add(pause));
    }
}
