//! The streams between a node and its peers on a medium with connections: which are opened, when a peer joins
//! and when it leaves.
//!
//! gossipsub of libp2p uses one stream in each direction: each side opens one, and writes there only. A node
//! is a peer while this node has a stream to it. [`Links`] decides, for each connected node, when that stream
//! is opened, how often it is opened again after it was lost, and how many streams the node may open itself.
//! It does no I/O: a driver reports what happens, and carries out [`LinkAction`]s.
//!
//! # Limits
//! There is one entry for each connected node, of which the medium bounds the number, and one for each node
//! that this node dials, [`LinkConfig::max_wanted`] at most. All other limits are in [`LinkConfig`].

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

/// Decides, for each node that is connected, when a stream to it is opened, how often it is opened again after it was lost, and
/// how many streams the node may open itself. A node is a peer while there is a stream to it.
///
/// It does no I/O: a driver reports what happens, and carries out the [`LinkAction`]s of [`poll_action`](Self::poll_action). There is
/// one entry for each connected node, of which the medium bounds the number, and for each node that is dialled. All other limits are
/// in [`LinkConfig`].
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn actions(links: &mut Links<u8>) -> Vec<LinkAction<u8>> {
        std::iter::from_fn(|| links.poll_action()).collect()
    }

    /// Returns the opening that is asked for, and nothing else.
    fn opening(links: &mut Links<u8>) -> OpeningId {
        match &*actions(links) {
            [LinkAction::Open { peer: 1, id }] => *id,
            other => panic!("{other:?}"),
        }
    }

    fn joined(links: &mut Links<u8>) {
        links.handle_connected(&1);
        links.handle_supported(&1, true);
        let id = opening(links);
        assert!(links.handle_opened(&1, id, Version::V1_2));
        let version = Version::V1_2;
        assert_eq!(actions(links), [LinkAction::Join { peer: 1, version }]);
    }

    #[test]
    fn a_connected_node_that_supports_the_protocol_joins_and_leaves_with_its_last_connection() {
        let mut links = Links::new(LinkConfig::default());
        links.handle_supported(&1, true);
        links.handle_connected(&1);
        assert_eq!(actions(&mut links), []);
        joined(&mut links);
        links.handle_disconnected(&1, false);
        assert_eq!(actions(&mut links), [LinkAction::Resume { peer: 1 }]);
        links.handle_disconnected(&1, true);
        let (peer, is_peer) = (1, true);
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        assert!(links.is_empty() && !links.handle_inbound(NOW, &1));
    }

    #[test]
    fn only_nodes_that_were_asked_for_join_where_others_are_not_accepted() {
        let accept = false;
        let mut links = Links::new(LinkConfig {
            accept,
            ..LinkConfig::default()
        });
        links.handle_connected(&1);
        links.handle_supported(&1, true);
        assert!(!links.handle_inbound(NOW, &1) && !links.is_connecting(&1));
        assert_eq!(actions(&mut links), []);
        links.connect(&1).expect("room");
        assert!(links.handle_inbound(NOW, &1) && links.is_connecting(&1));
        opening(&mut links);
        links.connect(&2).expect("room");
        assert_eq!(actions(&mut links), [LinkAction::Dial { peer: 2 }]);
        links.handle_dial_failed(&2);
        assert!(!links.is_connecting(&2) && links.len() == 1);
    }

    #[test]
    fn a_lost_stream_is_opened_again_after_doubling_pauses_and_then_given_up() {
        let config = LinkConfig::default();
        let mut links = Links::new(config.clone());
        joined(&mut links);
        let mut now = NOW;
        for retry in 0..config.max_retries {
            links.handle_lost(now, &1);
            // A second report of the same loss changes nothing.
            links.handle_lost(now, &1);
            let due = now + config.retry_pause * (1 << retry);
            assert_eq!(links.poll_timeout(), Some(due));
            links.handle_timeout(due.saturating_sub(Duration::from_nanos(1)));
            assert_eq!(actions(&mut links), []);
            links.handle_timeout(due);
            let id = opening(&mut links);
            assert!(
                links.handle_opened(&1, id, Version::V1_2) && !links.handle_opened(&1, id, Version::V1_2)
            );
            assert_eq!(actions(&mut links), [LinkAction::Resume { peer: 1 }]);
            now = due;
        }
        links.handle_lost(now, &1);
        let (peer, is_peer) = (1, true);
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        assert_eq!(links.poll_timeout(), None);
        assert!(!links.handle_inbound(now, &1), "until it connects anew");
        links.handle_disconnected(&1, true);
        let is_peer = false;
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        joined(&mut links);
    }

    #[test]
    fn a_node_that_refuses_the_protocol_is_asked_again_when_it_supports_it() {
        let mut links = Links::new(LinkConfig::default());
        links.handle_connected(&1);
        links.handle_supported(&1, true);
        let id = opening(&mut links);
        links.handle_open_failed(NOW, &1, id, true);
        let (peer, is_peer) = (1, false);
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        links.handle_connected(&1);
        links.handle_supported(&1, false);
        assert_eq!((actions(&mut links), links.poll_timeout()), (vec![], None));
        assert!(links.handle_inbound(NOW, &1), "a stream of its own says so");
        let id = opening(&mut links);
        assert!(links.handle_opened(&1, id, Version::V1_2));
        actions(&mut links);
        let is_peer = true;
        links.handle_supported(&1, false);
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        joined(&mut links);
    }

    #[test]
    fn an_opening_of_an_earlier_connection_is_not_used() {
        let mut links = Links::new(LinkConfig::default());
        links.handle_connected(&1);
        links.handle_supported(&1, true);
        let early = opening(&mut links);
        links.handle_disconnected(&1, true);
        links.handle_connected(&1);
        links.handle_supported(&1, true);
        let [.., LinkAction::Open { id, .. }] = actions(&mut links)[..] else {
            panic!("it is opened again");
        };
        assert!(!links.handle_opened(&1, early, Version::V1_2));
        links.handle_open_failed(NOW, &1, early, true);
        assert!(links.handle_opened(&1, id, Version::V1_2));
    }

    #[test]
    fn streams_that_a_node_opens_in_a_loop_are_refused_beyond_a_rate() {
        let config = LinkConfig::default();
        let mut links = Links::new(config.clone());
        joined(&mut links);
        let read = (0..1000).filter(|_| links.handle_inbound(NOW, &1)).count();
        assert_eq!(read, config.max_inbound as usize);
        for _ in 0..read {
            links.handle_inbound_ended(&1);
        }
        assert_eq!(actions(&mut links).len(), read, "one for each that was read");
        assert!(links.handle_inbound(NOW + config.inbound_window, &1));
    }

    #[test]
    fn a_peer_that_the_router_removed_joins_again_only_when_it_connects_anew_or_is_asked_for() {
        let mut links = Links::new(LinkConfig::default());
        joined(&mut links);
        links.handle_removed(&1);
        let (peer, is_peer) = (1, false);
        assert_eq!(actions(&mut links), [LinkAction::End { peer, is_peer }]);
        links.handle_supported(&1, true);
        assert!(!links.handle_inbound(NOW, &1));
        assert_eq!(actions(&mut links), []);
        links.connect(&1).expect("room");
        opening(&mut links);
    }

    #[test]
    fn nodes_that_are_dialled_are_limited() {
        let max_wanted = 2;
        let mut links = Links::new(LinkConfig {
            max_wanted,
            ..LinkConfig::default()
        });
        assert!(links.connect(&1).is_ok() && links.connect(&2).is_ok() && links.connect(&1).is_ok());
        assert!(matches!(links.connect(&3), Err(Error::Limit { limit: 2, .. })));
        assert_eq!(actions(&mut links).len(), 2);
        links.handle_removed(&1);
        assert!(links.connect(&3).is_ok());
    }
}
