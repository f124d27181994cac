//! Return routes: the neighbours that relayed messages of a source, so that answers to unauthenticated
//! sources go back the same way, and limits on what each neighbour may relay.
//!
//! A relayed message names its source without proof. If this node looked up each source in order to answer
//! it, one packet with a forged source would cost a whole lookup. So an answer goes back over a neighbour
//! that relayed a message of that source, and the neighbour is charged for what it relays.
//!
//! # Limits
//! Each neighbour has up to 64 sources, and may name 16 new ones per second; further ones are refused. At the
//! limit of its sources, the least recently used is replaced. At the limit of 256 neighbours, the least
//! recently heard is replaced, within one network if that has more than a quarter of the places.

use std::hash::Hash;
use std::time::Duration;

use p2p::PeerId;

use super::Prefix;
use crate::hash::HashMap;

/// Maximum number of sources of one neighbour.
const SOURCES: usize = 64;
/// Maximum number of new sources of one neighbour per second.
const NEWCOMERS: usize = 16;
/// Maximum number of neighbours.
const NEIGHBOURS: usize = 256;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Neighbour {
    prefix: Option<Prefix>,
    /// Sources, the least recently used first.
    sources: Vec<PeerId>,
    heard: Duration,
    /// The start of the current second, and the new sources in it.
    since: Duration,
    newcomers: usize,
}

/// The neighbours that relayed messages of each source. `A` is the address of a neighbour.
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
    /// Records that `neighbour` relayed a message that claims to be from `source`. Returns whether to accept
    /// the message.
    #[must_use]
    pub fn note(&mut self, now: Duration, source: PeerId, neighbour: &A) -> bool {
        self.note_in(now, source, neighbour, None)
    }

    /// Does the same for a neighbour in this network.
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
        // Most messages have the same source as the last one.
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

    /// Returns the neighbours that relayed messages of a source, the most recent first.
    pub fn find(&self, source: &PeerId) -> Vec<A> {
        let brought = |known: &Neighbour| known.sources.contains(source);
        let found = self.neighbours.iter().filter(|(_, known)| brought(known));
        let mut found: Vec<(Duration, A)> = found.map(|(addr, known)| (known.heard, addr.clone())).collect();
        found.sort_by_key(|(heard, _)| std::cmp::Reverse(*heard));
        found.into_iter().map(|(_, addr)| addr).collect()
    }

    /// Removes everything.
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
