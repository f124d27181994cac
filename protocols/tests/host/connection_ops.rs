//! Any sequence of steps of a connection manager, with a naive model and the invariants after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use p2p_protocols::connections::{
    Action, CloseReason, Config, ConnId, Connections, Direction, Event, OpenReason, Refusal,
};

/// A step: its kind, a peer, a network, and a number with a meaning that depends on the kind.
pub(crate) type Op = (u8, u8, u8, u16);

const CONFIG: Config = Config {
    pending_inbound: 6,
    pending_per_prefix: 3,
    pending_outbound: 3,
    connections: 16,
    inbound: 12,
    per_peer: 3,
    per_prefix: 4,
    high_water: 10,
    low_water: 7,
    grace: Duration::from_mins(1),
    idle_timeout: Duration::from_secs(10),
    handshake_timeout: Duration::from_secs(15),
    marked_peers: 4,
    marks: 3,
};
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PEERS: u8 = 10;

/// An open connection in the model.
#[derive(Clone, Debug)]
struct Open {
    peer: u8,
    direction: Direction,
    network: Option<u8>,
    since: Duration,
    streams: usize,
    keep_alive: BTreeSet<&'static str>,
    used: Duration,
    idle_since: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Marks {
    tags: BTreeMap<&'static str, i64>,
    protections: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    direction: Direction,
    network: Option<u8>,
    since: Duration,
}

pub(crate) struct World {
    connections: Connections<u8>,
    now: Duration,
    pending: BTreeMap<ConnId, Pending>,
    open: BTreeMap<ConnId, Open>,
    marks: BTreeMap<u8, Marks>,
    ended: Vec<ConnId>,
    had_protected: bool,
}

/// Returns an address in one of five public networks, a private host, or none.
fn ip(network: u8) -> (Option<u8>, Option<IpAddr>) {
    match network % 8 {
        5 => (Some(5), Some([10, 0, 0, 1].into())),
        6 | 7 => (None, None),
        of => (Some(of), Some([198, 51, of, network].into())),
    }
}

fn limit(network: Option<u8>, places: usize) -> usize {
    match network {
        None => usize::MAX,
        Some(5) => places * 8,
        Some(_) => places,
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            connections: Connections::new(CONFIG),
            now: Duration::ZERO,
            pending: BTreeMap::new(),
            open: BTreeMap::new(),
            marks: BTreeMap::new(),
            ended: Vec::new(),
            had_protected: false,
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        let (kind, peer, network, number) = op;
        let (peer, now) = (peer % PEERS, self.now);
        let name = NAMES[usize::from(number) % NAMES.len()];
        let nth_open = self.open.keys().nth(usize::from(number) % 16).copied();
        let mut is_trimmed = false;
        match kind % 16 {
            0..=2 => self.admit(network, kind),
            3..=5 => {
                is_trimmed = true;
                self.establish(peer, number);
            }
            6 => {
                let id = self.pending.keys().nth(usize::from(number) % 8).copied();
                if let Some(id) = id {
                    self.pending.remove(&id);
                    self.connections.handle_failed(id);
                }
            }
            7 | 8 => {
                if let Some(id) = nth_open {
                    let open = self.open.get_mut(&id).expect("it is open");
                    (open.streams, open.used) = (open.streams + 1, now);
                    self.connections.handle_stream_opened(now, id);
                }
            }
            9 => {
                if let Some(id) = nth_open {
                    let open = self.open.get_mut(&id).expect("it is open");
                    (open.streams, open.used) = (open.streams.saturating_sub(1), now);
                    self.connections.handle_stream_closed(now, id);
                }
            }
            10 => {
                if let Some(id) = nth_open {
                    let open = self.open.get_mut(&id).expect("it is open");
                    if network & 1 > 0 {
                        open.keep_alive.remove(name);
                        self.connections.release(now, id, name);
                    } else if self.connections.keep_alive(now, id, name).is_ok() {
                        open.keep_alive.insert(name);
                    }
                    assert!(self.open[&id].keep_alive.len() <= CONFIG.marks);
                }
            }
            11 => self.mark(peer, network, name, number),
            12 => {
                if let Some(id) = nth_open {
                    match network % 3 {
                        0 => assert!(self.connections.close(id)),
                        1 => self.connections.handle_closed(id, CloseReason::Remote),
                        _ => assert!(self.connections.close_peer(&self.open[&id].peer) > 0),
                    }
                }
            }
            13 => {
                // Late reports of the driver change nothing.
                if let Some(id) = self.ended.get(usize::from(number)).copied() {
                    self.connections.handle_stream_opened(now, id);
                    self.connections.handle_closed(id, CloseReason::Remote);
                    let refused = self.connections.handle_established(now, id, &peer);
                    assert_eq!(refused, Err(Refusal::NotPending));
                    assert!(self.connections.why_open(now, id).is_empty());
                }
            }
            _ => {
                is_trimmed = true;
                let due = self.connections.poll_timeout();
                self.now = match due {
                    Some(due) if number & 1 == 0 => due.max(now),
                    _ => now + Duration::from_secs(u64::from(number) % 30),
                };
                self.connections.handle_timeout(self.now);
                assert!(self.connections.poll_timeout().is_none_or(|due| due > self.now));
            }
        }
        self.update();
        self.drain();
        self.check(is_trimmed);
    }

    fn admit(&mut self, network: u8, kind: u8) {
        let (network, ip) = ip(network);
        let (direction, admitted) = if kind.is_multiple_of(16) {
            (Direction::Outbound, self.connections.admit_outbound(self.now, ip))
        } else {
            (Direction::Inbound, self.connections.admit_inbound(self.now, ip))
        };
        if let Ok(id) = admitted {
            let since = self.now;
            let pending = Pending {
                direction,
                network,
                since,
            };
            assert!(self.pending.insert(id, pending).is_none());
        }
    }

    fn establish(&mut self, peer: u8, number: u16) {
        let Some((&id, &pending)) = self.pending.iter().nth(usize::from(number) % 8) else {
            return;
        };
        self.pending.remove(&id);
        let of_peer = self.open.values().filter(|open| open.peer == peer).count();
        let established = self.connections.handle_established(self.now, id, &peer);
        if of_peer >= CONFIG.per_peer {
            let limit = CONFIG.per_peer;
            assert_eq!(established, Err(Refusal::PerPeer { limit }));
        }
        if self.is_protected(peer) && of_peer < CONFIG.per_peer && self.open.len() < CONFIG.connections {
            assert_eq!(
                established,
                Ok(()),
                "a protected peer is refused although there is room"
            );
        }
        if established.is_ok() {
            let open = Open {
                peer,
                direction: pending.direction,
                network: pending.network,
                since: self.now,
                streams: 0,
                keep_alive: BTreeSet::new(),
                used: self.now,
                idle_since: None,
            };
            self.open.insert(id, open);
        }
    }

    fn mark(&mut self, peer: u8, network: u8, name: &'static str, number: u16) {
        let (now, value) = (self.now, i64::from(number / 16 % 5) - 2);
        let marks = self.marks.entry(peer).or_default();
        match network % 4 {
            0 => {
                if self.connections.tag(now, &peer, name, value).is_ok() {
                    marks.tags.insert(name, value);
                }
            }
            1 => {
                let removed = self.connections.untag(now, &peer, name);
                assert_eq!(removed, marks.tags.remove(name).is_some());
            }
            2 => {
                if self.connections.protect(now, &peer, name).is_ok() {
                    marks.protections.insert(name);
                    self.had_protected = true;
                }
            }
            _ => {
                marks.protections.remove(name);
                let is_protected = self.connections.unprotect(now, &peer, name);
                assert_eq!(is_protected, !marks.protections.is_empty());
            }
        }
        let count = marks.tags.len() + marks.protections.len();
        assert!(count <= CONFIG.marks);
        if count == 0 {
            self.marks.remove(&peer);
        }
        assert!(self.marks.len() <= CONFIG.marked_peers);
    }

    fn is_protected(&self, peer: u8) -> bool {
        self.marks
            .get(&peer)
            .is_some_and(|marks| !marks.protections.is_empty())
    }

    fn value(&self, peer: u8) -> i64 {
        self.marks.get(&peer).map_or(0, |marks| marks.tags.values().sum())
    }

    fn is_needed(&self, open: &Open) -> bool {
        let has_work = open.streams > 0 || !open.keep_alive.is_empty();
        has_work || self.is_protected(open.peer) || self.value(open.peer) > 0
    }

    fn rank(&self, id: ConnId, open: &Open) -> (i64, usize, Duration, ConnId) {
        (self.value(open.peer), open.streams, open.used, id)
    }

    /// Updates the idle times of the model.
    fn update(&mut self) {
        let ids: Vec<ConnId> = self.open.keys().copied().collect();
        for id in ids {
            let is_needed = self.is_needed(&self.open[&id]);
            let open = self.open.get_mut(&id).expect("it is open");
            if is_needed {
                open.idle_since = None;
            } else if open.idle_since.is_none() {
                (open.idle_since, open.used) = (Some(self.now), self.now);
            }
        }
    }

    fn drain(&mut self) {
        let mut closed = BTreeSet::new();
        while let Some(Action::Close { id, reason }) = self.connections.poll_action() {
            assert!(closed.insert(id), "closed twice");
            if let Some(pending) = self.pending.remove(&id) {
                match reason {
                    CloseReason::HandshakeTimedOut => {
                        assert!(self.now >= pending.since + CONFIG.handshake_timeout);
                    }
                    CloseReason::Displaced => assert_eq!(pending.direction, Direction::Inbound),
                    other => panic!("{other:?} of a pending connection"),
                }
                self.ended.push(id);
            }
        }
        let mut trimmed = Vec::new();
        while let Some(event) = self.connections.poll_event() {
            let Event::Disconnected {
                id,
                peer,
                reason,
                is_last,
            } = event
            else {
                continue;
            };
            let open = self.open.remove(&id).expect("it was open");
            self.ended.push(id);
            assert_eq!(open.peer, peer);
            assert_eq!(closed.contains(&id), reason != CloseReason::Remote);
            let has_other = self.open.values().any(|other| other.peer == peer);
            assert!(has_other || is_last);
            match reason {
                CloseReason::Idle => {
                    let since = open.idle_since.expect("it is idle");
                    assert!(since + CONFIG.idle_timeout <= self.now);
                }
                CloseReason::Trimmed => {
                    assert!(!self.is_protected(peer), "a protected peer is trimmed");
                    assert!(
                        open.since + CONFIG.grace <= self.now,
                        "trimmed in its grace period"
                    );
                    trimmed.push(self.rank(id, &open));
                }
                CloseReason::Displaced => {
                    assert!(!self.is_needed(&open) && open.direction == Direction::Inbound);
                }
                _ => {}
            }
        }
        let worst = trimmed.into_iter().max();
        for (id, open) in &self.open {
            let may_go = !self.is_protected(open.peer) && open.since + CONFIG.grace <= self.now;
            assert!(!may_go || worst.is_none_or(|worst| worst < self.rank(*id, open)));
        }
    }

    fn check(&self, is_trimmed: bool) {
        let infos: Vec<_> = self.connections.iter().collect();
        assert!(infos.iter().map(|info| info.id).eq(self.open.keys().copied()));
        for info in infos {
            let open = &self.open[&info.id];
            assert_eq!((info.peer, info.streams), (open.peer, open.streams));
            assert_eq!((info.value, info.since), (self.value(open.peer), open.since));
            let reasons = self.connections.why_open(self.now, info.id);
            assert!(!reasons.is_empty());
            let idle = open.idle_since.map(|since| since + CONFIG.idle_timeout);
            let until = reasons.iter().find_map(|reason| match reason {
                OpenReason::Idle { until } => Some(*until),
                _ => None,
            });
            assert_eq!(until, idle);
        }
        assert_eq!(self.connections.pending(), self.pending.len());
        let of = |direction| {
            self.pending
                .values()
                .filter(move |pending| pending.direction == direction)
        };
        assert!(of(Direction::Outbound).count() <= CONFIG.pending_outbound);
        assert!(of(Direction::Inbound).count() <= CONFIG.pending_inbound);
        let inbound = || {
            self.open
                .values()
                .filter(|open| open.direction == Direction::Inbound)
        };
        // Protected peers are admitted beyond the limits of inbound connections.
        assert!(self.had_protected || inbound().count() <= CONFIG.inbound);
        for network in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)] {
            let pending = of(Direction::Inbound).filter(|pending| pending.network == network);
            assert!(pending.count() <= limit(network, CONFIG.pending_per_prefix));
            let open = inbound().filter(|open| open.network == network);
            assert!(self.had_protected || open.count() <= limit(network, CONFIG.per_prefix));
        }
        for peer in 0..PEERS {
            let of_peer = self.connections.of_peer(&peer);
            assert!(of_peer.len() <= CONFIG.per_peer);
            assert_eq!(of_peer.first().copied(), self.connections.best(&peer));
            let oldest = of_peer.iter().map(|id| self.open[id].since).min();
            assert_eq!(oldest, of_peer.first().map(|id| self.open[id].since));
        }
        assert!(self.open.len() <= CONFIG.connections);
        if is_trimmed && self.open.len() > CONFIG.high_water {
            for open in self.open.values() {
                let has_grace = open.since + CONFIG.grace > self.now;
                assert!(has_grace || self.is_protected(open.peer), "trimming left one out");
            }
        }
    }
}
