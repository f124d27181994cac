//! A ledger of sent and received messages, for exchanges among several nodes.
//!
//! Payloads may be arbitrary, and repeat: the ledger counts them. A message is recorded before it is told,
//! since it may arrive at once. A message with both an unknown content and an unknown source does not belong
//! to the exchange, for example a late one from a socket of an earlier test, and is ignored.

use std::collections::{HashMap, HashSet};

use p2p::{Addr, Message, Swarm as _};

use crate::chance::arrive_at_least;
use crate::harness::{broken, ensure};
use crate::kind::Node;
use crate::profile::{Profile, SHORT};
use crate::report::Outcome;

/// The messages with one content to one node.
#[derive(Debug, Default)]
struct Entry {
    /// Senders of messages that have not arrived yet.
    awaited: Vec<usize>,
    /// Senders of messages that were declared lost, and may arrive late.
    late: Vec<usize>,
    /// Senders whose tells were cancelled.
    doubtful: Vec<usize>,
    /// Senders of messages that arrived.
    came: Vec<usize>,
}

/// Numbers of sent and received messages, for short and longer ones.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    told: usize,
    came: usize,
}

/// The ledger of an exchange.
#[derive(Debug)]
pub(crate) struct Ledger<A> {
    duplicates: bool,
    loss: [f64; 2],
    entries: HashMap<(usize, Vec<u8>), Entry>,
    /// The sender of each source address.
    sources: HashMap<A, usize>,
    locals: Vec<HashSet<A>>,
    sums: [Sum; 2],
    /// Messages and bytes in flight to each node.
    open: Vec<(usize, usize)>,
}

impl<A: Addr> Ledger<A> {
    pub(crate) fn new(profile: &Profile, nodes: &[Node<A>]) -> Self {
        let locals: Vec<HashSet<A>> = nodes
            .iter()
            .map(|node| node.local_addrs().into_iter().collect())
            .collect();
        let mut sources = HashMap::new();
        for (index, addrs) in locals.iter().enumerate() {
            sources.extend(addrs.iter().map(|addr| (addr.clone(), index)));
        }
        Self {
            duplicates: profile.duplicates,
            loss: [profile.loss, profile.loss_at_mtu],
            entries: HashMap::new(),
            sources,
            open: vec![(0, 0); locals.len()],
            locals,
            sums: [Sum::default(); 2],
        }
    }

    /// Records a message before it is told.
    pub(crate) fn tell(&mut self, from: usize, to: usize, payload: &[u8]) {
        let entry = self.entries.entry((to, payload.to_vec())).or_default();
        entry.awaited.push(from);
        self.sums[usize::from(payload.len() > SHORT)].told += 1;
        self.open[to].0 += 1;
        self.open[to].1 += payload.len();
    }

    /// Records that a tell was cancelled: the message may have been sent or not.
    pub(crate) fn doubt(&mut self, from: usize, to: usize, payload: &[u8]) {
        let Some(entry) = self.entries.get_mut(&(to, payload.to_vec())) else {
            return;
        };
        if take(&mut entry.awaited, from) {
            entry.doubtful.push(from);
            self.sums[usize::from(payload.len() > SHORT)].told -= 1;
            self.close(to, payload.len());
        }
    }

    /// Records that a tell was refused: the message was not sent.
    pub(crate) fn refused(&mut self, from: usize, to: usize, payload: &[u8]) {
        self.doubt(from, to, payload);
        if let Some(entry) = self.entries.get_mut(&(to, payload.to_vec())) {
            take(&mut entry.doubtful, from);
        }
    }

    /// Returns the number and bytes of messages in flight to a node.
    pub(crate) fn open(&self, to: usize) -> (usize, usize) {
        self.open[to]
    }

    /// Returns a message that a node still waits for.
    pub(crate) fn missing(&self, to: usize) -> Option<&[u8]> {
        let mut entries = self.entries.iter();
        let missing = entries.find(|((dst, _), entry)| *dst == to && !entry.awaited.is_empty());
        missing.map(|((_, payload), _)| &payload[..])
    }

    /// Declares the expected messages of a node lost; they may still arrive late. Returns their number.
    pub(crate) fn give_up(&mut self, to: usize) -> usize {
        for ((_, _), entry) in self.entries.iter_mut().filter(|((dst, _), _)| *dst == to) {
            entry.late.append(&mut entry.awaited);
        }
        std::mem::take(&mut self.open[to]).0
    }

    /// Records an arrival. Returns whether the message was expected.
    pub(crate) fn came(&mut self, at: usize, node: &Node<A>, message: &Message<A>) -> Outcome<bool> {
        let len = message.payload.len();
        let claimed = self.sources.get(&message.src).copied();
        let key = (at, message.payload.to_vec());
        let Some(entry) = self.entries.get_mut(&key) else {
            let Some(claimed) = claimed else {
                return Ok(false);
            };
            let elsewhere =
                (0..self.locals.len()).find(|to| self.entries.contains_key(&(*to, key.1.clone())));
            match elsewhere {
                Some(to) => {
                    broken!("a message of {len} bytes that was told to node {to} arrived at node {at}")
                }
                None => broken!(
                    "{len} bytes from node {claimed} arrived at node {at} that were never told: they were altered"
                ),
            }
        };
        let open = || entry.awaited.iter().chain(&entry.late).chain(&entry.doubtful);
        let sender = match claimed {
            Some(claimed) if open().any(|sender| *sender == claimed) => claimed,
            Some(claimed) if entry.came.contains(&claimed) => {
                ensure!(
                    self.duplicates,
                    "a message of {len} bytes from node {claimed} to node {at} arrived more often than it was told"
                );
                return Ok(false);
            }
            Some(claimed) => {
                broken!("a message of {len} bytes to node {at} names node {claimed}, which never told it")
            }
            None => match open().next() {
                Some(sender) => *sender,
                None if self.duplicates => return Ok(false),
                None => broken!("a message of {len} bytes to node {at} arrived more often than it was told"),
            },
        };
        if claimed.is_none() && open().chain(&entry.came).all(|other| *other == sender) {
            self.sources.insert(message.src.clone(), sender);
        }
        let awaited = take(&mut entry.awaited, sender);
        let counted = awaited || take(&mut entry.late, sender);
        if !counted {
            take(&mut entry.doubtful, sender);
        }
        entry.came.push(sender);
        self.sums[usize::from(len > SHORT)].came += usize::from(counted);
        if awaited {
            self.close(at, len);
        }
        if !self.locals[at].contains(&message.dst) {
            self.locals[at].extend(node.local_addrs());
            ensure!(
                self.locals[at].contains(&message.dst),
                "a message to node {at} names {} as its destination, which is not a local address of it",
                message.dst
            );
        }
        Ok(awaited)
    }

    /// Returns sources that are not local addresses of their senders, with the sender of each.
    pub(crate) fn unproven(&self) -> Vec<(A, usize)> {
        let unproven = |(addr, sender): &(&A, &usize)| !self.locals[**sender].contains(*addr);
        let found = self.sources.iter().filter(unproven);
        found.map(|(addr, sender)| (addr.clone(), *sender)).collect()
    }

    /// Expects that no more messages were lost than the medium may lose.
    pub(crate) fn settle(&self) -> Outcome {
        for (sum, loss) in self.sums.iter().zip(self.loss) {
            let least = arrive_at_least(sum.told, loss);
            ensure!(
                sum.came >= least,
                "of {} messages told in an exchange {} arrived and not {least}",
                sum.told,
                sum.came
            );
        }
        Ok(())
    }

    fn close(&mut self, to: usize, len: usize) {
        let (count, bytes) = &mut self.open[to];
        *count = count.saturating_sub(1);
        *bytes = bytes.saturating_sub(len);
    }
}

/// Removes this sender from the list, if present.
fn take(list: &mut Vec<usize>, sender: usize) -> bool {
    let found = list.iter().position(|other| *other == sender);
    found.map(|at| list.swap_remove(at)).is_some()
}
