//! Upkeep of the ring: its schedule, joins, and fingers (section 4.4 of the paper).

use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::config::Config;
use super::distance::{after, in_open};
use super::engine::{Engine, Purpose};
use super::operation::Goal;
use super::wire::Ask;
use crate::overlay::{Contact, Failure, OpId};

/// Maximum number of nodes that one round asks on the way back to the successor, each nearer than the one
/// before. The next round continues. This matters when many nodes have joined at the same place at the same
/// time.
pub(super) const CHAIN: u8 = 32;

/// The schedule of upkeep, and its state.
#[derive(Debug)]
pub(super) struct Upkeep<A> {
    pub(super) stabilize_at: Duration,
    pub(super) fix_at: Duration,
    pub(super) replicate_at: Duration,
    pub(super) rejoin_at: Duration,
    /// Addresses of the bootstrap nodes.
    pub(super) bootstraps: Vec<A>,
    /// Nodes with a liveness check in flight.
    pub(super) probing: Vec<PeerId>,
    /// Time of the last message from the predecessor.
    pub(super) heard: Duration,
    /// While a node is being asked for its neighbours: the number of further nodes that this round may ask.
    pub(super) stabilizing: Option<u8>,
    /// A node that the successor named as lying before it, to be asked next.
    pub(super) hint: Option<Contact<A>>,
    /// Whether the records of this node's range are still to be requested.
    pub(super) fetch: bool,
    pub(super) fixing: bool,
    /// The number of the finger to look up next; `None` is the first one.
    pub(super) finger: Option<u8>,
    /// Whether the first round of fingers is running, in which each lookup follows the previous one at once.
    pub(super) first_round: bool,
    /// A join with a known successor that is being notified.
    pub(super) joined: Option<Joined>,
}

/// A join that is almost complete.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) op: OpId,
    /// Whether the predecessor is being notified as well.
    pub(super) introducing: bool,
}

impl<A> Upkeep<A> {
    pub(super) fn new(now: Duration, config: &Config, rng: &mut StdRng) -> Self {
        Self {
            stabilize_at: now.saturating_add(jittered(config.stabilize_every, rng)),
            fix_at: now.saturating_add(jittered(config.fix_fingers_every, rng)),
            replicate_at: now.saturating_add(jittered(config.replicate_every, rng)),
            rejoin_at: now.saturating_add(jittered(config.rejoin_every, rng)),
            bootstraps: Vec::new(),
            probing: Vec::new(),
            heard: now,
            stabilizing: None,
            hint: None,
            fetch: false,
            fixing: false,
            finger: None,
            first_round: true,
            joined: None,
        }
    }

    /// Restarts the rounds of fingers for a new ring.
    pub(super) fn begin_fingers(&mut self) {
        (self.first_round, self.finger) = (true, None);
    }

    /// Records a liveness check. Returns `false` if one is already in flight.
    pub(super) fn begin_probe(&mut self, node: PeerId) -> bool {
        let begins = !self.probing.contains(&node);
        if begins {
            self.probing.push(node);
        }
        begins
    }

    pub(super) fn probed(&mut self, node: PeerId) {
        self.probing.retain(|other| *other != node);
    }

    /// Schedules a rejoin soon, because the ring is lost.
    pub(super) fn rejoin_soon(&mut self, now: Duration, config: &Config) {
        self.rejoin_at = self.rejoin_at.min(now.saturating_add(config.retry_pause));
    }
}

fn jittered(every: Duration, rng: &mut StdRng) -> Duration {
    let jittered = every.as_secs_f64() * rng.random_range(0.75..1.25);
    Duration::try_from_secs_f64(jittered).unwrap_or(every)
}

impl<A: Addr> Engine<A> {
    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due. A leaving node has no
    /// upkeep.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let upkeep = self.upkeep.stabilize_at.min(self.upkeep.fix_at);
        let upkeep = upkeep.min(self.upkeep.rejoin_at);
        let upkeep = self.leaving.is_none().then_some(upkeep);
        let waiting = self.requests.next_deadline().into_iter().chain(self.next_wait());
        upkeep.into_iter().chain(waiting).min()
    }

    /// Fails requests past their deadline, and runs the upkeep that is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(id) = self.requests.expired(now) {
            self.handle_failure(now, id, Failure::Unreachable);
        }
        self.end_waits(now);
        if self.leaving.is_some() {
            return;
        }
        let config = self.rules.config;
        if now >= self.upkeep.stabilize_at {
            self.upkeep.stabilize_at = now.saturating_add(jittered(config.stabilize_every, &mut self.rng));
            self.store.expire(now);
            self.check_predecessor(now);
            if self.upkeep.stabilizing.is_none() {
                self.stabilize(now, CHAIN);
            }
            if now >= self.upkeep.replicate_at {
                let every = jittered(config.replicate_every, &mut self.rng);
                self.upkeep.replicate_at = now.saturating_add(every);
                self.copies.again();
            }
            self.copy_on(now);
            self.return_strays(now);
        }
        if now >= self.upkeep.fix_at {
            self.upkeep.fix_at = now.saturating_add(jittered(config.fix_fingers_every, &mut self.rng));
            self.fix_finger(now);
        }
        if now >= self.upkeep.rejoin_at {
            self.upkeep.rejoin_at = now.saturating_add(jittered(config.rejoin_every, &mut self.rng));
            self.rejoin(now);
        }
    }

    /// Looks up this node's place through the bootstrap nodes, starting with a random one.
    fn rejoin(&mut self, now: Duration) {
        if self.upkeep.bootstraps.is_empty() || self.is_joining() {
            return;
        }
        let mut bootstraps = self.upkeep.bootstraps.clone();
        let first = self.rng.random_range(0..bootstraps.len());
        bootstraps.rotate_left(first);
        let own = self.table.own;
        self.begin(now, Goal::Join, own, bootstraps, true);
    }

    /// Processes this node's successor according to the bootstrap nodes. If it differs from the known one,
    /// there are two rings, or the node has joined very recently.
    ///
    /// The found node is notified of this node even if it may not be the successor: so it learns its
    /// predecessor, and that node, which it tells, learns its successor. When each node of one ring has done
    /// so, all are in the other ring.
    pub(super) fn found_place(&mut self, now: Duration, owner: Contact<A>) {
        let own = self.table.own;
        match self.table.successor() {
            Some(known) if known.id == owner.id => {}
            Some(known) if !in_open(&owner.id, &own, &known.id) => {
                if self.upkeep.stabilizing.is_none() {
                    self.ask_neighbours(now, owner, 1);
                }
            }
            _ => self.joined(now, owner, None),
        }
    }

    /// Records a message from a node, which shows that the predecessor is alive.
    pub(super) fn heard(&mut self, now: Duration, from: PeerId) {
        let predecessor = self.table.predecessor.as_ref();
        if predecessor.is_some_and(|node| node.id == from) {
            self.upkeep.heard = now;
        }
    }

    fn check_predecessor(&mut self, now: Duration) {
        let quiet = now.saturating_sub(self.upkeep.heard);
        if quiet < self.rules.config.stabilize_every.saturating_mul(2) {
            return;
        }
        if let Some(Contact { id, addr }) = self.table.predecessor.clone() {
            self.ask(now, &addr, Some(id), Ask::Ping, Purpose::Check);
        }
    }

    /// Processes the discovery of this node's place. The join operation, if any, ends once the neighbours
    /// know this node.
    pub(super) fn joined(&mut self, now: Duration, successor: Contact<A>, op: Option<OpId>) {
        if let Some(op) = op {
            let introducing = false;
            self.upkeep.joined = Some(Joined { op, introducing });
        }
        self.table.add_successor(successor);
        self.upkeep.begin_fingers();
        self.upkeep.fix_at = now;
        self.upkeep.fetch = true;
        if self.upkeep.stabilizing.is_none() {
            self.stabilize(now, CHAIN);
        }
    }

    /// Forms a ring with the first other node: each is the other's successor.
    pub(super) fn found_ring(&mut self, now: Duration, other: Contact<A>) {
        self.table.add_successor(other);
        self.upkeep.begin_fingers();
        if self.upkeep.stabilizing.is_none() {
            self.stabilize(now, CHAIN);
        }
    }

    /// Looks up this node's place through the remaining known nodes after all successors have failed.
    pub(super) fn find_place(&mut self, now: Duration) {
        if self.leaving.is_some() || self.is_joining() {
            return;
        }
        let fingers = self.table.fingers().map(|(_, node)| node);
        let known = self.table.predecessor.iter().chain(fingers);
        let addrs: Vec<A> = known.map(|node| node.addr.clone()).collect();
        let own = self.table.own;
        self.begin(now, Goal::Join, own, addrs, true);
    }

    fn fix_finger(&mut self, now: Duration) {
        let Some(first) = self.table.first_finger() else {
            return;
        };
        if self.upkeep.fixing {
            return;
        }
        let bit = self.upkeep.finger.map_or(first, |bit| bit.max(first));
        self.upkeep.fixing = true;
        let key = after(&self.table.own, bit);
        self.begin(now, Goal::Finger(bit), key, Vec::new(), true);
    }

    /// Processes the end of a finger's lookup; `next` is the number of the next finger.
    pub(super) fn finger_fixed(&mut self, now: Duration, next: u16) {
        self.upkeep.fixing = false;
        self.upkeep.finger = u8::try_from(next).ok();
        if self.upkeep.finger.is_none() {
            self.upkeep.first_round = false;
        } else if self.upkeep.first_round {
            // The timer starts the next lookup at once. It cannot start here, where one finger's lookup may
            // end within another's.
            self.upkeep.fix_at = now;
        }
    }
}
