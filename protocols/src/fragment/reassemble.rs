//! Reassembles messages from fragments of untrusted sources.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use p2p::{DropReason, Headroom, Packet};

use super::buffer_cache::BufferCache;
use super::message::{Accepted, Ended, Partial};
use super::wire::Header;
use crate::hash::HashMap;

/// Limits of a [`Reassembler`].
///
/// Bytes are memory: buffers with their spare capacity, and bookkeeping. At a limit of one source, its oldest
/// message is dropped as a whole. At the total limit, the oldest message that did not grow since it was last
/// skipped is dropped, so that messages in progress survive a flood of messages that never complete. Byte
/// limits below the maximum size of one message of the MTU are raised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all messages together. A higher value lets more senders send long messages at a time.
    pub bytes: usize,
    /// Bytes of the messages of one source. A higher value lets one sender have more long messages in
    /// progress, and lets one attacker displace more of other sources' messages.
    pub source_bytes: usize,
    /// Incomplete messages of one source. Beyond this, its oldest message is dropped.
    pub source_messages: usize,
    /// Time after its first fragment in which a message must be complete.
    pub timeout: Duration,
    /// Time for which late fragments of a complete or dropped message are recognised. A longer time detects
    /// later duplicates; a shorter time accepts a restarted sender, which counts from 0 again, earlier if its
    /// fragments resemble the previous ones.
    pub linger: Duration,
}

impl Default for Limits {
    /// 32 MiB, of these 4 MiB for one source; 256 messages of one source; 10 s, as in go-p2p; 1 s.
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            source_bytes: 4 << 20,
            source_messages: 256,
            timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

/// The result of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Handled {
    /// It completed a message.
    Whole {
        /// The message, without headers.
        message: Packet,
        /// Number of fragments of the message.
        parts: usize,
    },
    /// It was stored until the rest of its message arrives.
    Kept {
        /// Whether it is the first received fragment of its message.
        first: bool,
    },
    /// Only this fragment was dropped, for this reason.
    Dropped(DropReason),
}

/// A message that was dropped before it was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp<A> {
    /// The source.
    pub src: A,
    /// The reason.
    pub reason: DropReason,
    /// Number of its received fragments.
    pub parts: usize,
}

/// Reassembles the messages of all sources within [`Limits`].
///
/// `now` is the time since any fixed moment. The first fragment of a message fixes its number of parts; a
/// fragment that disagrees is dropped. A repeated fragment is dropped, too; if its bytes differ, its sender
/// has restarted, and the message starts again with it.
///
/// # Security
/// A sender is identified by its address only. An attacker that can forge the address can corrupt its
/// messages, and an attacker that fills [`Limits::bytes`] from forged addresses between two fragments of a
/// message displaces it. Use a layer below that authenticates the source if this matters.
#[derive(Debug)]
pub struct Reassembler<A> {
    limits: Limits,
    mtu: usize,
    room: Headroom,
    /// The key of each message in one of the two tables below.
    index: HashMap<(A, u32), u64>,
    sources: HashMap<A, Source>,
    /// In the order in which they began, which is the order of their timeouts.
    partial: BTreeMap<u64, Partial<A>>,
    /// Keys in the order in which messages are considered for eviction, including some of removed messages.
    turns: VecDeque<u64>,
    /// In the order in which they ended. They are evicted first.
    ended: BTreeMap<u64, (A, Ended)>,
    next_key: u64,
    /// The time of the last check for timeouts: the fragments of a batch have the same time.
    looked: Option<Duration>,
    /// Bytes of messages and records.
    bytes: usize,
    buffers: BufferCache,
    /// The message of the last fragment; mostly the next fragment belongs to it, too.
    last: u64,
    given_up: VecDeque<GivenUp<A>>,
}

/// The state of one source.
#[derive(Debug, Default)]
struct Source {
    bytes: usize,
    /// Keys of its messages, the oldest first.
    partial: VecDeque<u64>,
}

/// Maximum number of obsolete keys in `turns`, besides twice the number of messages.
const MOST_GONE: usize = 64;

/// Returns the memory of a source without its messages; the table may be growing to twice its size.
const fn source_cost<A>() -> usize {
    4 * size_of::<(A, Source)>() + 64
}

impl<A: Clone + Eq + Hash> Reassembler<A> {
    /// Creates a reassembler for messages of up to `mtu` bytes, with `room` in front of each.
    pub fn new(limits: Limits, mtu: usize, room: Headroom) -> Self {
        let source_bytes = limits.source_bytes.max(Partial::<A>::max_cost(mtu, room));
        Self {
            limits: Limits {
                bytes: limits.bytes.max(source_bytes.saturating_add(source_cost::<A>())),
                source_bytes,
                source_messages: limits.source_messages.max(1),
                ..limits
            },
            mtu,
            room,
            index: HashMap::default(),
            sources: HashMap::default(),
            partial: BTreeMap::new(),
            turns: VecDeque::new(),
            ended: BTreeMap::new(),
            next_key: 0,
            looked: None,
            bytes: 0,
            buffers: BufferCache::default(),
            last: 0,
            given_up: VecDeque::new(),
        }
    }

    /// Processes a fragment from `src`.
    ///
    /// A message of one part passes without a copy and without any state.
    pub fn handle(&mut self, now: Duration, src: &A, mut packet: Packet) -> Handled {
        let Ok((header, len)) = Header::read(&packet) else {
            return Handled::Dropped(DropReason::Malformed);
        };
        packet.advance(len);
        if header.total() > 1 {
            return self.handle_part(now, src, header, &packet);
        }
        if packet.len() > self.mtu {
            return Handled::Dropped(DropReason::Oversize);
        }
        Handled::Whole {
            message: packet,
            parts: 1,
        }
    }

    fn handle_part(&mut self, now: Duration, src: &A, header: Header, payload: &[u8]) -> Handled {
        if self.looked != Some(now) {
            self.handle_timeout(now);
        }
        if payload.len() > self.mtu {
            return Handled::Dropped(DropReason::Oversize);
        }
        if let Some(key) = self.find(src, header.id()) {
            if let Some(handled) = self.extend(now, key, header, payload) {
                return handled;
            }
            // The sender started another message with this id, unless this is a late fragment of an ended
            // one.
            match self.ended.get(&key) {
                Some((_, ended)) if ended.owns(header, payload) => return Handled::Dropped(ended.reason),
                Some(_) => self.forget(key),
                None => self.give_up(key, DropReason::Expired, None),
            }
        }
        self.begin(now, src, header, payload)
    }

    /// Drops the messages that have timed out at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.looked = Some(now);
        while let Some((&key, partial)) = self.partial.first_key_value()
            && now.saturating_sub(partial.begun) >= self.limits.timeout
        {
            self.give_up(key, DropReason::Expired, Some(now));
        }
        while let Some((&key, (_, ended))) = self.ended.first_key_value()
            && now.saturating_sub(ended.at) >= self.limits.linger
        {
            self.forget(key);
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let partial = self.partial.first_key_value();
        let ended = self.ended.first_key_value();
        let overdue = partial.map(|(_, partial)| partial.begun.saturating_add(self.limits.timeout));
        let forgotten = ended.map(|(_, (_, ended))| ended.at.saturating_add(self.limits.linger));
        [overdue, forgotten].into_iter().flatten().min()
    }

    /// Returns the next dropped message, to be counted. Drain this after every other call.
    pub fn poll_given_up(&mut self) -> Option<GivenUp<A>> {
        self.given_up.pop_front()
    }

    /// Returns the number of incomplete messages.
    pub fn in_flight(&self) -> usize {
        self.partial.len()
    }

    /// Returns the bytes charged: after a call, never more than [`Limits::bytes`].
    pub fn held(&self) -> usize {
        self.bytes + self.buffers.held()
    }

    /// Returns the effective limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Drops everything for this reason.
    pub fn clear(&mut self, reason: DropReason) {
        while let Some((&key, _)) = self.partial.first_key_value() {
            self.give_up(key, reason, None);
        }
        while let Some((&key, _)) = self.ended.first_key_value() {
            self.forget(key);
        }
        while self.buffers.forget() {}
        self.turns.clear();
    }

    fn find(&self, src: &A, id: u32) -> Option<u64> {
        if let Some(partial) = self.partial.get(&self.last)
            && partial.id == id
            && partial.src == *src
        {
            return Some(self.last);
        }
        self.index.get(&(src.clone(), id)).copied()
    }

    fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Starts a message with its first received fragment.
    fn begin(&mut self, now: Duration, src: &A, header: Header, payload: &[u8]) -> Handled {
        let key = self.new_key();
        let mut partial = Partial::new(src.clone(), header, now);
        // It cannot be complete or too long: it has several parts, and this one was checked.
        partial.accept(header, payload, self.mtu, self.room, &mut self.buffers);
        self.index.insert((src.clone(), header.id()), key);
        let source = self.sources.entry(src.clone()).or_insert_with(|| {
            self.bytes += source_cost::<A>();
            Source::default()
        });
        source.partial.push_back(key);
        self.charge(src, partial.held());
        self.partial.insert(key, partial);
        if self.turns.len() > 2 * self.partial.len() + MOST_GONE {
            self.turns.retain(|key| self.partial.contains_key(key));
        }
        self.turns.push_back(key);
        self.last = key;
        self.enforce(now, src);
        Handled::Kept { first: true }
    }

    /// Adds a fragment to a message in progress. Returns `None` if the message has ended, or the fragment
    /// shows that its sender has restarted.
    fn extend(&mut self, now: Duration, key: u64, header: Header, payload: &[u8]) -> Option<Handled> {
        let partial = self.partial.get_mut(&key)?;
        self.last = key;
        let before = partial.held();
        let accepted = partial.accept(header, payload, self.mtu, self.room, &mut self.buffers);
        let grown = partial.held() - before;
        if grown > 0 {
            let src = partial.src.clone();
            self.charge(&src, grown);
            if accepted == Accepted::Kept {
                self.enforce(now, &src);
            }
        }
        Some(match accepted {
            Accepted::Kept => Handled::Kept { first: false },
            Accepted::Whole => self.complete(now, key)?,
            Accepted::Refused(reason) => Handled::Dropped(reason),
            Accepted::Oversize => {
                self.give_up(key, DropReason::Oversize, Some(now));
                Handled::Dropped(DropReason::Oversize)
            }
            Accepted::Restarted => return None,
        })
    }

    fn complete(&mut self, now: Duration, key: u64) -> Option<Handled> {
        let mut partial = self.remove(key)?;
        let ended = partial.end(now, DropReason::Duplicate, self.room.front);
        let parts = partial.parts();
        let message = partial.assemble(self.room, &mut self.buffers);
        self.remember(partial.src, ended);
        Some(Handled::Whole { message, parts })
    }

    /// Drops a message as a whole. If `at` is set, keeps a record of it.
    fn give_up(&mut self, key: u64, reason: DropReason, at: Option<Duration>) {
        let Some(partial) = self.remove(key) else { return };
        self.given_up.push_back(GivenUp {
            src: partial.src.clone(),
            reason,
            parts: partial.parts(),
        });
        match at {
            Some(at) => {
                let ended = partial.end(at, reason, self.room.front);
                self.remember(partial.src, ended);
            }
            None => drop(self.index.remove(&(partial.src, partial.id))),
        }
    }

    /// Removes a message from all tables except the index.
    fn remove(&mut self, key: u64) -> Option<Partial<A>> {
        let partial = self.partial.remove(&key)?;
        self.bytes -= partial.held();
        if let Some(source) = self.sources.get_mut(&partial.src) {
            source.bytes -= partial.held();
            source.partial.retain(|at| *at != key);
            if source.partial.is_empty() {
                self.sources.remove(&partial.src);
                self.bytes -= source_cost::<A>();
            }
        }
        Some(partial)
    }

    fn remember(&mut self, src: A, ended: Ended) {
        let key = self.new_key();
        self.bytes += Partial::<A>::cost(ended.held());
        self.index.insert((src.clone(), ended.id), key);
        self.ended.insert(key, (src, ended));
        self.shrink(None);
    }

    fn forget(&mut self, key: u64) {
        if let Some((src, ended)) = self.ended.remove(&key) {
            self.bytes -= Partial::<A>::cost(ended.held());
            self.index.remove(&(src, ended.id));
        }
    }

    fn charge(&mut self, src: &A, bytes: usize) {
        self.bytes += bytes;
        if let Some(source) = self.sources.get_mut(src) {
            source.bytes += bytes;
        }
    }

    /// Drops the oldest messages, of `src` and then of all sources, until the limits hold.
    fn enforce(&mut self, now: Duration, src: &A) {
        while let Some(source) = self.sources.get(src)
            && (source.bytes > self.limits.source_bytes || source.partial.len() > self.limits.source_messages)
            && let Some(&oldest) = source.partial.front()
        {
            self.give_up(oldest, DropReason::Budget, Some(now));
        }
        self.shrink(Some(now));
    }

    /// Enforces the total limit: frees cached buffers first, then records of ended messages, then, if `now`
    /// is set, incomplete messages.
    fn shrink(&mut self, now: Option<Duration>) {
        while self.held() > self.limits.bytes {
            if self.buffers.forget() {
                continue;
            }
            if let Some((&oldest, _)) = self.ended.first_key_value() {
                self.forget(oldest);
            } else if now.is_some()
                && let Some(key) = self.least_useful()
            {
                self.give_up(key, DropReason::Budget, now);
            } else {
                break;
            }
        }
    }

    /// Returns the oldest message that did not grow since it was last skipped: a second-chance (clock) order,
    /// which costs one flag for each fragment.
    fn least_useful(&mut self) -> Option<u64> {
        while let Some(key) = self.turns.pop_front() {
            match self.partial.get_mut(&key) {
                Some(partial) if partial.grew => {
                    partial.grew = false;
                    self.turns.push_back(key);
                }
                Some(_) => return Some(key),
                None => {}
            }
        }
        None
    }
}
