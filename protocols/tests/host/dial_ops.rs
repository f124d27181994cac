//! Any sequence of steps of a dialer, with its invariants after each step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use p2p_protocols::dial::{Action, AttemptId, Config, DialAddr, DialId, Dialer, Event, Failure, Transport};

/// A step: its kind, a peer, an address, and a number with a meaning that depends on the kind.
pub(crate) type Op = (u8, u8, u8, u16);

const CONFIG: Config = Config {
    addrs: 5,
    parallel: 2,
    attempts: 6,
    peers: 5,
    callers: 12,
    maintained: 3,
    failed_addrs: 8,
    public_delay: Duration::from_millis(250),
    private_delay: Duration::from_millis(30),
    relay_delay: Duration::from_millis(500),
    private_timeout: Duration::from_secs(5),
    public_timeout: Duration::from_secs(15),
    dial_timeout: Duration::from_secs(20),
    backoff_first: Duration::from_secs(5),
    backoff_max: Duration::from_mins(5),
    backoff_jitter: 0.2,
    stable_after: Duration::from_mins(1),
};

pub(crate) struct World {
    dialer: Dialer<u8, u16>,
    now: Duration,
    /// Dials without an event, with their deadlines.
    open: BTreeMap<DialId, (u8, Duration)>,
    attempts: BTreeMap<AttemptId, (u8, u16)>,
    /// All attempts that ever were.
    used: BTreeSet<AttemptId>,
    maintained: BTreeSet<u8>,
    connected: BTreeSet<u8>,
    /// Peers that opened a connection while this node dialled them.
    stopped: BTreeSet<u8>,
}

pub(crate) fn addr(number: u16) -> DialAddr<u16> {
    let [high, low] = number.to_be_bytes();
    let ip = match high % 4 {
        0 => Some([10, 0, 0, low].into()),
        1 => Some([192, 0, 2, low].into()),
        2 => Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, low.into()].into()),
        _ => None,
    };
    let transport = [Transport::Quic, Transport::Tcp, Transport::Other][usize::from(high / 4 % 3)];
    DialAddr {
        addr: number,
        transport,
        ip,
        port: low.into(),
        is_relayed: high & 64 > 0,
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            dialer: Dialer::new(CONFIG, seed),
            now: Duration::ZERO,
            open: BTreeMap::new(),
            attempts: BTreeMap::new(),
            used: BTreeSet::new(),
            maintained: BTreeSet::new(),
            connected: BTreeSet::new(),
            stopped: BTreeSet::new(),
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        let (kind, peer, nth, number) = op;
        let (peer, now) = (peer % 8, self.now);
        match kind % 12 {
            0..=2 => self.dial(peer, nth, number),
            3 => {
                let nth_open = self.open.keys().nth(usize::from(nth) % 4).copied();
                if let Some(id) = nth_open {
                    self.open.remove(&id);
                    self.dialer.cancel(now, id);
                }
            }
            4 | 5 => {
                if let Some(attempt) = self.nth_attempt(nth) {
                    self.attempts.remove(&attempt);
                    let failure = match number % 4 {
                        0 => Failure::Io(io::ErrorKind::ConnectionRefused),
                        1 => Failure::Handshake,
                        2 => Failure::WrongPeer,
                        _ => Failure::Denied,
                    };
                    self.dialer.handle_failed(now, attempt, failure);
                }
            }
            6 => {
                if let Some(attempt) = self.nth_attempt(nth) {
                    let (peer, _) = self.attempts[&attempt];
                    self.attempts.remove(&attempt);
                    self.connected.insert(peer);
                    self.dialer.handle_connected(now, attempt);
                }
            }
            7 => {
                self.connected.insert(peer);
                self.stopped.insert(peer);
                self.dialer.handle_peer_connected(now, &peer);
            }
            8 => {
                if self.connected.remove(&peer) {
                    self.dialer.handle_peer_disconnected(now, &peer);
                }
            }
            9 if number & 1 == 0 => {
                let is_connected = self.connected.contains(&peer);
                if self.dialer.maintain(now, &peer, is_connected).is_ok() {
                    self.maintained.insert(peer);
                }
                assert!(self.maintained.len() <= CONFIG.maintained);
            }
            9 => {
                self.maintained.remove(&peer);
                self.dialer.release(&peer);
            }
            _ => self.pass(number),
        }
        self.drain(op);
    }

    fn dial(&mut self, peer: u8, nth: u8, number: u16) {
        let addrs = (0..u16::from(nth % 9)).map(|at| addr(number.wrapping_add(at * 259)));
        let is_full = self.open.len() >= CONFIG.callers
            || (!self.dialer.is_dialling(&peer) && self.dialer.peers() >= CONFIG.peers);
        let dialled = self.dialer.dial(self.now, &peer, addrs);
        assert_eq!(dialled.is_err(), is_full);
        if let Ok(id) = dialled {
            let deadline = self.now + CONFIG.dial_timeout;
            assert_eq!(self.open.insert(id, (peer, deadline)), None);
        }
    }

    fn nth_attempt(&self, nth: u8) -> Option<AttemptId> {
        self.attempts.keys().nth(usize::from(nth) % 4).copied()
    }

    fn pass(&mut self, number: u16) {
        let due = self.dialer.poll_timeout();
        self.now = match due {
            Some(due) if number & 1 == 0 => due.max(self.now),
            _ => self.now + Duration::from_millis(u64::from(number) % 3000),
        };
        self.dialer.handle_timeout(self.now);
        assert!(self.dialer.poll_timeout().is_none_or(|due| due > self.now));
    }

    /// Handles all actions and events. Peers are dialled again after the events, which say which dials have ended.
    fn drain(&mut self, op: Op) {
        let mut again = VecDeque::new();
        loop {
            while let Some(action) = self.dialer.poll_action() {
                again.extend(self.handle_action(&action));
            }
            while let Some(event) = self.dialer.poll_event() {
                let (Event::Connected { id, peer, .. } | Event::Failed { id, peer, .. }) = event;
                assert_eq!(self.open.remove(&id).map(|(peer, _)| peer), Some(peer));
            }
            let Some(peer) = again.pop_front() else { break };
            if op.3 & 8 == 0 {
                self.dial(peer, op.2, op.3);
            }
        }
        self.check();
    }

    /// Returns the peer that is to be dialled again, if the action says so.
    fn handle_action(&mut self, action: &Action<u8, u16>) -> Option<u8> {
        match *action {
            Action::Start { attempt, peer, addr } => {
                assert!(self.used.insert(attempt), "an attempt is used twice");
                let others = self.attempts.values();
                let same = others.filter(|(of, at)| *of == peer && *at == addr);
                assert_eq!(same.count(), 0, "an address is dialled twice at once");
                self.attempts.insert(attempt, (peer, addr));
                None
            }
            Action::Abort { attempt } => {
                self.attempts.remove(&attempt);
                None
            }
            Action::Reconnect { peer } => {
                assert!(!self.connected.contains(&peer));
                Some(peer)
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.dialer.attempts(), self.attempts.len());
        assert!(self.attempts.len() <= CONFIG.attempts);
        for peer in 0..8 {
            let of_peer = self.attempts.values().filter(|(of, _)| *of == peer).count();
            assert!(of_peer <= CONFIG.parallel);
            let has_caller = self.open.values().any(|(of, _)| *of == peer);
            // After a connection of the peer, attempts without a caller go on.
            assert_eq!(self.dialer.is_dialling(&peer), has_caller || of_peer > 0);
            let may_go_on = has_caller || self.stopped.contains(&peer);
            assert!(may_go_on || of_peer == 0, "attempts without a caller go on");
            if of_peer == 0 {
                self.stopped.remove(&peer);
            }
        }
        assert!(self.dialer.failed_addrs() <= CONFIG.failed_addrs);
        assert!(
            self.open
                .values()
                .all(|(_, deadline)| *deadline + Duration::from_secs(3) > self.now)
        );
    }

    /// Lets time pass until every dial has ended.
    pub(crate) fn finish(&mut self) {
        for peer in std::mem::take(&mut self.maintained) {
            self.dialer.release(&peer);
        }
        let end = self.now + CONFIG.dial_timeout;
        while self.now < end
            && let Some(due) = self.dialer.poll_timeout()
        {
            self.now = due.max(self.now);
            self.dialer.handle_timeout(self.now);
            self.drain((0, 0, 0, 8));
        }
        assert!(self.open.is_empty() && self.attempts.is_empty());
    }
}
