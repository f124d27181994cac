//! By which neighbours messages came that were relayed to this node, so that answers to nodes that have proven nothing go
//! back the same way, and what each neighbour may bring.
//!
//! What is relayed names its source, and proves nothing. If this node looked for each source in order to answer it, one
//! packet in a made-up name would cost a whole search. So an answer goes back over a neighbour that brought something of
//! that source, and the neighbour is charged for what it brings.
//!
//! # Limits
//! Each neighbour is remembered with 64 sources, of which it may name 16 new ones a second; further ones
//! are refused. Of its own sources the one that it brought something of least recently leaves for a new one. Of
//! 256 neighbours the one that brought something least recently leaves, of those of one network if that has more than a quarter.

use std::hash::Hash;
use std::time::Duration;

use p2p::PeerId;

use super::Prefix;
use crate::hash::HashMap;

/// Sources of one neighbour.
const SOURCES: usize = 64;
/// New sources that one neighbour may name in a second.
const NEWCOMERS: usize = 16;
/// Neighbours that are told apart.
const NEIGHBOURS: usize = 256;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Neighbour {
    prefix: Option<Prefix>,
    /// Sources, the one heard of least recently first.
    sources: Vec<PeerId>,
    heard: Duration,
    /// The second that is counted, and the new sources in it.
    since: Duration,
    newcomers: usize,
}

/// By which neighbours the messages of each source came. `A` is a neighbour's address.
#[derive(Debug)]
pub struct Returns<A> {
    neighbours: HashMap<A, Neighbour>,
}

impl<A> Default for Returns<A> {
    fn default() -> Self {
        Self {
            neighbours: HashMap::default(),
        }
    }
}

impl<A: Hash + Eq + Clone> Returns<A> {
    /// Notes that `neighbour` brought a message that says to be of `source`. Says whether it is to be taken in.
    #[must_use]
    pub fn note(&mut self, now: Duration, source: PeerId, neighbour: &A) -> bool {
        self.note_in(now, source, neighbour, None)
    }

    /// The same for a neighbour of this network.
    #[must_use]
    pub fn note_in(&mut self, now: Duration, source: PeerId, neighbour: &A, prefix: Option<Prefix>) -> bool {
        if !self.neighbours.contains_key(neighbour) {
            self.make_room(prefix);
            let new = Neighbour {
                prefix,
                sources: Vec::new(),
                heard: now,
                since: now,
                newcomers: 0,
            };
            self.neighbours.insert(neighbour.clone(), new);
        }
        let Some(known) = self.neighbours.get_mut(neighbour) else {
            return false;
        };
        known.heard = now;
        if now.saturating_sub(known.since) >= SECOND {
            (known.since, known.newcomers) = (now, 0);
        }
        // Most messages are of the source that the last one was of.
        match known.sources.iter().rposition(|other| *other == source) {
            Some(at) => {
                if let Some(tail) = known.sources.get_mut(at..) {
                    tail.rotate_left(1);
                }
            }
            None if known.newcomers >= NEWCOMERS => return false,
            None => {
                known.newcomers += 1;
                if known.sources.len() >= SOURCES {
                    known.sources.remove(0);
                }
                known.sources.push(source);
            }
        }
        true
    }

    /// Neighbours that brought something of a source, the latest first.
    pub fn find(&self, source: &PeerId) -> Vec<A> {
        let brought = |known: &Neighbour| known.sources.contains(source);
        let found = self.neighbours.iter().filter(|(_, known)| brought(known));
        let mut found: Vec<(Duration, A)> = found.map(|(addr, known)| (known.heard, addr.clone())).collect();
        found.sort_by_key(|(heard, _)| std::cmp::Reverse(*heard));
        found.into_iter().map(|(_, addr)| addr).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.neighbours.clear();
    }

    fn make_room(&mut self, prefix: Option<Prefix>) {
        let of_it = |known: &Neighbour| prefix.is_some() && known.prefix == prefix;
        let crowd = self.neighbours.values().filter(|known| of_it(known)).count();
        let is_crowded = prefix.is_some_and(|prefix| crowd >= prefix.limit(NEIGHBOURS / 4));
        if self.neighbours.len() < NEIGHBOURS && !is_crowded {
            return;
        }
        let others = self.neighbours.iter();
        let oldest = if is_crowded {
            others
                .filter(|(_, known)| of_it(known))
                .min_by_key(|(_, known)| known.heard)
        } else {
            others.min_by_key(|(_, known)| known.heard)
        };
        if let Some(addr) = oldest.map(|(addr, _)| addr.clone()) {
            self.neighbours.remove(&addr);
        }
    }
}
