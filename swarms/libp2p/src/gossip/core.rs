//! The state of a gossip node's streams, and the task that carries out what [`Links`] decides.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use multiaddr::PeerId;
use p2p::{Addr as _, Counters, DropReason, Error, Message, Result};
use p2p_protocols::gossipsub::wire::{PeerInfo, WireError};
use p2p_protocols::gossipsub::{LinkAction, Links, OpeningId, Version};
use p2p_swarms::gossipsub::{Connection, LinkControl, LinkReports};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep_until;

use super::link::Link;
use super::{HostGossipConfig, RpcStreams};
use crate::addr::HostAddr;
use crate::envelope::PeerRecord;
use crate::host::{Observe, Shared};
use crate::swarm::Budgets;

pub(super) const LAYER: &str = "libp2p-gossip";

/// The longest sleep of the task.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

pub(super) struct Core {
    pub(super) host: Arc<Shared>,
    pub(super) local: HostAddr,
    pub(super) config: HostGossipConfig,
    /// The versions that this node speaks, the newest first.
    pub(super) versions: Vec<Version>,
    state: Mutex<State>,
    /// Tells the task that there is something to do.
    changed: Notify,
    reports: OnceLock<LinkReports<HostAddr, RpcStreams>>,
    /// RPCs that wait for the router.
    pub(super) rpcs: mpsc::Sender<Message<HostAddr>>,
    received: tokio::sync::Mutex<mpsc::Receiver<Message<HostAddr>>>,
    pub(super) reassembly: Budgets,
    pub(super) counters: Counters,
    closing: watch::Sender<bool>,
    /// Set once the host has the handlers of this node.
    is_serving: OnceLock<()>,
}

/// No stream may be dropped under its lock: that takes the lock of the host's engines, under which this one is taken.
struct State {
    links: Links<HostAddr>,
    peers: HashMap<HostAddr, Arc<Link>>,
    tasks: VecDeque<Task>,
}

/// What the task of the node does, in the order of the decisions.
enum Task {
    Dial(HostAddr),
    Open(Arc<Link>, OpeningId),
    Join(Arc<Link>, Version),
    Resume(HostAddr),
    /// Drop a link, which has ended; whether its node is a peer of the router.
    Ended(Arc<Link>, bool),
}

impl State {
    /// Takes the decisions over: links begin and end at once, the rest is left to the task.
    fn take_actions(&mut self) {
        while let Some(action) = self.links.poll_action() {
            let task = match action {
                LinkAction::Dial { peer } => Task::Dial(peer),
                LinkAction::Open { peer, id } => Task::Open(self.link(&peer), id),
                LinkAction::Join { peer, version } => Task::Join(self.link(&peer), version),
                LinkAction::Resume { peer } => Task::Resume(peer),
                LinkAction::End { peer, is_peer } => {
                    // A peer has a link.
                    let Some(link) = self.peers.remove(&peer) else {
                        continue;
                    };
                    link.end();
                    Task::Ended(link, is_peer)
                }
            };
            self.tasks.push_back(task);
        }
    }

    fn link(&mut self, peer: &HostAddr) -> Arc<Link> {
        let peer = peer.canonical();
        let link = self.peers.entry(peer.clone());
        link.or_insert_with(|| Arc::new(Link::new(peer))).clone()
    }
}

impl Core {
    pub(super) fn new(host: Arc<Shared>, config: HostGossipConfig) -> Arc<Self> {
        let engine = &config.gossip.engine;
        let mut links = config.links.clone();
        links.accept &= config.gossip.accept_peers;
        let versions = if engine.floodsub {
            vec![Version::Floodsub]
        } else {
            Version::ALL.to_vec()
        };
        let (rpcs, received) = mpsc::channel(config.rpcs);
        let longest = engine.limits.rpc;
        Arc::new(Self {
            local: HostAddr::of_peer(host.upgrader.keypair.peer_id()),
            versions,
            state: Mutex::new(State {
                links: Links::new(links),
                peers: HashMap::new(),
                tasks: VecDeque::new(),
            }),
            changed: Notify::new(),
            reports: OnceLock::new(),
            rpcs,
            received: tokio::sync::Mutex::new(received),
            // One RPC of a peer arrives at a time, and another one while a replaced stream ends.
            reassembly: Budgets::new(config.reassembly, 2 * longest, longest),
            counters: Counters::new(LAYER),
            closing: watch::Sender::new(false),
            is_serving: OnceLock::new(),
            host,
            config,
        })
    }

    /// Begins to follow the connections of the host, and to take streams.
    pub(super) fn start(self: &Arc<Self>, reports: LinkReports<HostAddr, RpcStreams>) -> Result<()> {
        // Called once.
        let _ = self.reports.set(reports);
        for (index, version) in self.versions.iter().enumerate() {
            let weak = Arc::downgrade(self);
            let added = self.host.add_handler(version.protocol(), move |stream| {
                let core = weak.clone();
                async move {
                    if let Some(core) = core.upgrade() {
                        core.take_stream(stream).await;
                    }
                }
            });
            if let Err(error) = added {
                for version in self.versions.iter().take(index) {
                    self.host.remove_handler(version.protocol());
                }
                return Err(error);
            }
        }
        let _ = self.is_serving.set(());
        // Pending receives end with the host.
        let weak = Arc::downgrade(self);
        self.host.at_end(self.closing.subscribe(), move || {
            if let Some(core) = weak.upgrade() {
                core.close();
            }
        });
        let core = self.clone();
        self.host.spawn(async move { core.run().await });
        self.host.observe(self);
        Ok(())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if *self.closing.borrow() {
            return Err(Error::Closed);
        }
        self.host.check_open()
    }

    pub(super) async fn closed(&self) {
        // Fails only without a sender, and `self` has one.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Ends receives, and refuses further streams of peers. Returns the links, whose streams to peers are open, at the first
    /// call.
    pub(super) fn close(&self) -> Vec<Arc<Link>> {
        if self.closing.send_replace(true) {
            return Vec::new();
        }
        if self.is_serving.get().is_some() {
            for version in &self.versions {
                self.host.remove_handler(version.protocol());
            }
        }
        let (links, tasks) = {
            let mut state = self.state.lock();
            let links: Vec<_> = state.peers.drain().map(|(_, link)| link).collect();
            (links, std::mem::take(&mut state.tasks))
        };
        drop(tasks);
        links
    }

    /// Reports to the decisions, and leaves what they are to the task.
    pub(super) fn drive<T>(&self, change: impl FnOnce(&mut Links<HostAddr>, Duration) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.links, self.host.now());
        if !*self.closing.borrow() {
            state.take_actions();
        }
        drop(state);
        self.changed.notify_one();
        result
    }

    /// Returns the link with a node, and the number of the stream that it has opened, if that is to be read.
    pub(super) fn begin_reading(&self, peer: &HostAddr) -> Option<(Arc<Link>, u64)> {
        let mut state = self.state.lock();
        let now = self.host.now();
        if *self.closing.borrow() || !state.links.handle_inbound(now, peer) {
            return None;
        }
        let link = state.link(peer);
        let number = link.begin_reading();
        state.take_actions();
        drop(state);
        self.changed.notify_one();
        Some((link, number))
    }

    pub(super) fn link_of(&self, peer: &HostAddr) -> Option<Arc<Link>> {
        self.state.lock().peers.get(peer).cloned()
    }

    pub(super) async fn receive(&self, out: &mut Vec<Message<HostAddr>>, max: usize) -> Result<usize> {
        self.check_open()?;
        let received = async { self.received.lock().await.recv_many(out, max).await };
        tokio::select! {
            biased;
            () = self.closed() => Err(Error::Closed),
            count = received => {
                self.counters.add_delivered(count);
                Ok(count)
            }
        }
    }

    /// Lowers the score of a peer whose RPC could not be read.
    pub(super) fn unreadable(&self, peer: &HostAddr, reason: WireError) {
        if let Some(reports) = self.reports.get() {
            reports.unreadable(peer, reason);
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let due = loop {
                let (task, due) = {
                    let mut state = self.state.lock();
                    (state.tasks.pop_front(), state.links.poll_timeout())
                };
                match task {
                    Some(task) => self.carry_out(task),
                    None => break due,
                }
            };
            let latest = self.host.now().saturating_add(LONGEST_SLEEP);
            let due = due.unwrap_or(latest).min(latest);
            tokio::select! {
                biased;
                () = self.closed() => return,
                () = self.changed.notified() => {}
                () = sleep_until(self.host.started_at() + due) => self.drive(Links::handle_timeout),
            }
        }
    }

    fn carry_out(self: &Arc<Self>, task: Task) {
        let Some(reports) = self.reports.get() else { return };
        let core = self.clone();
        match task {
            Task::Dial(peer) => self.host.spawn(async move { core.dial(&peer).await }),
            Task::Open(link, id) => self.host.spawn(async move { core.open(&link, id).await }),
            Task::Join(link, version) => {
                if link.is_ended() {
                    return;
                }
                match reports.joined(&link.peer, self.connection(&link.peer, version)) {
                    Ok(()) => {
                        link.joined.send_replace(true);
                    }
                    Err(error) => {
                        tracing::debug!(layer = LAYER, peer = %link.peer, %error, "the peer was not added");
                        self.counters.add_dropped_from(DropReason::Budget, &link.peer);
                        self.drive(|links, _| links.handle_removed(&link.peer));
                    }
                }
            }
            Task::Resume(peer) => reports.resumed(&peer),
            Task::Ended(link, is_peer) => {
                if is_peer {
                    reports.left(&link.peer);
                } else {
                    reports.connect_failed();
                }
            }
        }
    }

    fn connection(&self, peer: &HostAddr, version: Version) -> Connection {
        let id = peer.libp2p_id();
        let connection = id.and_then(|id| self.host.open_connection(&id));
        Connection {
            version,
            outbound: connection.is_some_and(|connection| connection.info.is_dialled),
            info: id.map(|id| PeerInfo {
                peer_id: Some(Bytes::from(id.to_bytes())),
                signed_peer_record: self.host.record_of(&id),
            }),
        }
    }

    async fn dial(self: Arc<Self>, peer: &HostAddr) {
        let dialled = tokio::select! {
            biased;
            () = self.closed() => return,
            dialled = self.host.connect(peer) => dialled,
        };
        if let Err(error) = dialled {
            tracing::debug!(layer = LAYER, %peer, %error, "a peer could not be dialled");
            self.drive(|links, _| links.handle_dial_failed(peer));
            if let Some(reports) = self.reports.get() {
                reports.connect_failed();
            }
        }
    }
}

impl Observe for Core {
    fn connected(&self, peer: &HostAddr) {
        self.drive(|links, _| links.handle_connected(peer));
    }

    fn disconnected(&self, peer: &HostAddr, is_last: bool) {
        self.drive(|links, _| links.handle_disconnected(peer, is_last));
    }

    fn supports(&self, peer: &HostAddr, protocols: &[String]) {
        let mut versions = self.versions.iter();
        let supports = versions.any(|version| protocols.iter().any(|id| id == version.protocol()));
        self.drive(|links, _| links.handle_supported(peer, supports));
    }
}

impl LinkControl<HostAddr> for Core {
    fn connect(&self, peer: &HostAddr) -> Result<()> {
        if peer.peer_id().is_none() {
            return Err(Error::invalid("peer", format!("{peer} names no peer")));
        }
        self.check_open()?;
        self.drive(|links, _| links.connect(peer))
    }

    fn is_connecting(&self, peer: &HostAddr) -> bool {
        self.state.lock().links.is_connecting(peer)
    }

    fn send_failed(&self, peer: &HostAddr) {
        self.drive(|links, now| links.handle_lost(now, peer));
    }

    fn removed(&self, peer: &HostAddr) {
        self.drive(|links, _| links.handle_removed(peer));
    }

    fn locate(&self, by: &HostAddr, info: &PeerInfo) -> Option<HostAddr> {
        let id = PeerId::from_bytes(info.peer_id.as_deref()?).ok()?;
        if let Some(record) = info
            .signed_peer_record
            .as_deref()
            .filter(|record| !record.is_empty())
        {
            let record = PeerRecord::open(record)
                .ok()
                .filter(|record| record.peer_id == id)?;
            self.host.learn(&by.libp2p_id()?, &record);
        }
        Some(HostAddr::of_peer(id))
    }
}
