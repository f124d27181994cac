//! Attackers of the paper's evaluation: routers that implement just enough to enter meshes and stay in them.
//!
//! They graft every subscriber, accept every GRAFT, graft again after the backoff of a PRUNE, never gossip
//! and never answer an IWANT (libp2p/gossipsub-hardening, `test/badboy.go`). The attack decides which
//! messages they forward.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIHave, ControlIWant, ControlMessage, Limits, Rpc, SubOpts, frame,
};
use p2p_swarmtest::sim::{SimAddr, Transmit};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::TOPIC;
use super::node::messages;

/// Maximum random time that they wait after the backoff of a PRUNE.
const REGRAFT: Duration = Duration::from_mins(1);
const REGRAFT_JITTER: f64 = 15.0;

/// RPCs with IHAVE that a flooding Sybil sends to each peer per second, and the ids in each.
const SPAM_IHAVES: usize = 12;
const SPAM_IDS: usize = 50;

/// The behaviour of Sybils from a time on; before that they forward everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// They forward nothing. From the start, this is the paper's cold boot attack; later, its covert flash
    /// attack.
    Drop,
    /// They forward nothing and flood: IHAVE of non-existent messages, IWANT, GRAFT during backoffs, invalid
    /// messages.
    Spam,
    /// They drop the messages of one publisher, and forward all others.
    Censor(SimAddr),
}

pub(crate) struct Sybil {
    attack: Attack,
    from: Duration,
    peers: BTreeSet<SimAddr>,
    mesh: BTreeSet<SimAddr>,
    seen: HashSet<u32>,
    regrafts: BTreeSet<(Duration, SimAddr)>,
    next_spam: Duration,
    /// RPCs that are more expensive to make than to send, so each is sent repeatedly.
    spam: Vec<Vec<u8>>,
    out: VecDeque<Transmit<SimAddr>>,
    random: StdRng,
}

impl Sybil {
    pub(super) fn new(attack: Attack, from: Duration, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let phase = Duration::from_secs_f64(random.random_range(0.0..1.0));
        Self {
            attack,
            from,
            peers: BTreeSet::new(),
            mesh: BTreeSet::new(),
            seen: HashSet::new(),
            regrafts: BTreeSet::new(),
            next_spam: from + phase,
            spam: match attack {
                Attack::Spam => (0..SPAM_IHAVES).map(|_| gossip_of_nothing(&mut random)).collect(),
                Attack::Drop | Attack::Censor(_) => Vec::new(),
            },
            out: VecDeque::new(),
            random,
        }
    }

    pub(super) fn connect(&mut self, peer: SimAddr) {
        self.peers.insert(peer);
    }

    pub(super) fn handle_rpc(&mut self, now: Duration, from: SimAddr, rpc: &[u8]) {
        let mut any = false;
        for (number, publisher, message) in messages(rpc) {
            any = true;
            if self.seen.insert(number) && self.passes_on(now, SimAddr(publisher)) {
                let to: Vec<SimAddr> = self.mesh.iter().copied().collect();
                for dst in to.into_iter().filter(|to| *to != from) {
                    self.send(dst, message.to_vec());
                }
            }
        }
        if any {
            return;
        }
        let Ok(rpc) = Rpc::parse(&Bytes::copy_from_slice(rpc), &Limits::default()) else {
            return;
        };
        if rpc.subscriptions.iter().any(SubOpts::subscribe) {
            self.graft(from, true);
        }
        let control = rpc.control.unwrap_or_default();
        if !control.prune.is_empty() && self.mesh.remove(&from) {
            let later = Duration::from_secs_f64(self.random.random_range(0.0..REGRAFT_JITTER));
            self.regrafts.insert((now + REGRAFT + later, from));
        }
        if !control.graft.is_empty() {
            self.mesh.insert(from);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        while self.regrafts.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, peer)) = self.regrafts.pop_first()
        {
            self.graft(peer, false);
        }
        if self.attack == Attack::Spam && self.next_spam <= now {
            self.next_spam = now + Duration::from_secs(1);
            for peer in self.peers.clone() {
                self.spam(peer);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let regraft = self.regrafts.first().map(|(at, _)| *at);
        let spam = (self.attack == Attack::Spam).then_some(self.next_spam);
        [regraft, spam].into_iter().flatten().min()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit<SimAddr>> {
        self.out.pop_front()
    }

    fn passes_on(&self, now: Duration, publisher: SimAddr) -> bool {
        match self.attack {
            _ if now < self.from => true,
            Attack::Drop | Attack::Spam => false,
            Attack::Censor(victim) => publisher != victim,
        }
    }

    fn graft(&mut self, peer: SimAddr, subscribe: bool) {
        self.mesh.insert(peer);
        let topic = || Some(TOPIC.to_owned());
        let subscription = SubOpts {
            subscribe: Some(true),
            topicid: topic(),
        };
        let rpc = Rpc {
            subscriptions: subscribe.then_some(subscription).into_iter().collect(),
            control: Some(ControlMessage {
                graft: vec![ControlGraft { topic_id: topic() }],
                ..ControlMessage::default()
            }),
            ..Rpc::default()
        };
        self.send(peer, rpc.emit().to_vec());
    }

    fn spam(&mut self, peer: SimAddr) {
        self.graft(peer, false);
        for rpc in self.spam.clone() {
            self.send(peer, rpc);
        }
        // A forbidden author, different data each time, and the topic.
        let mut invalid = b"\x0a\x01x\x12\x08".to_vec();
        invalid.extend(self.random.random::<[u8; 8]>());
        invalid.extend(b"\x22\x01t");
        self.send(peer, frame(&invalid).to_vec());
    }

    fn send(&mut self, to: SimAddr, payload: Vec<u8>) {
        self.out.push_back(Transmit::Tell { to, payload });
    }
}

/// Returns an IHAVE and an IWANT for non-existent messages.
fn gossip_of_nothing(random: &mut StdRng) -> Vec<u8> {
    let ids = (0..SPAM_IDS).map(|_| Bytes::copy_from_slice(&random.random::<[u8; 32]>()));
    let message_ids: Vec<Bytes> = ids.collect();
    let ihave = ControlIHave {
        topic_id: Some(TOPIC.to_owned()),
        message_ids: message_ids.clone(),
    };
    let control = ControlMessage {
        ihave: vec![ihave],
        iwant: vec![ControlIWant { message_ids }],
        ..ControlMessage::default()
    };
    let rpc = Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    rpc.emit().to_vec()
}
