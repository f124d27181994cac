//! Puts messages together again from fragments that strangers sent.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use p2p::{Headroom, Packet, Reason};

use super::message::{Accepted, Ended, Partial};
use super::spare::Spares;
use super::wire::Header;
use crate::hash::HashMap;

/// What a [`Reassembler`] keeps at most.
///
/// Bytes are memory: buffers with their spare capacity, and the bookkeeping about them. At a limit of a source its oldest
/// message goes, whole; at the limit of all sources the oldest that did not grow since it was last passed over, so that
/// messages that go on to arrive stay before a flood of those that never do. The byte limits are raised to what one message
/// of the MTU can take, if they are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all messages together. More lets more senders send long messages at a time.
    pub bytes: usize,
    /// Bytes of the messages of one source. More lets one sender have more long messages under way, and lets
    /// one attacker displace more of everybody's.
    pub source_bytes: usize,
    /// Messages of one source that are begun and not whole. Their own oldest goes.
    pub source_messages: usize,
    /// How long after its first fragment a message may take to be whole.
    pub timeout: Duration,
    /// How long late fragments of a message that is whole, or was dropped, are known as such. Longer catches
    /// later duplicates; shorter lets a sender that restarted, and counts from 0 again, be heard earlier where its
    /// fragments look like the ones before.
    pub linger: Duration,
}

impl Default for Limits {
    /// 32 MiB, of these 4 MiB for a source; 256 messages of a source; 10 s, as go-p2p; 1 s.
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

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Handled {
    /// It was a message or completed one.
    Whole {
        /// The message, without headers.
        message: Packet,
        /// How many fragments it took.
        parts: usize,
    },
    /// It waits for the rest of its message.
    Kept {
        /// Whether it is the first one that came of it.
        first: bool,
    },
    /// It was dropped alone, for this reason.
    Dropped(Reason),
}

/// A message that was given up before it was whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp<A> {
    /// Who sent it.
    pub src: A,
    /// Why it was given up.
    pub reason: Reason,
    /// How many fragments of it were here.
    pub parts: usize,
}

/// Reassembles the messages of all sources within [`Limits`].
///
/// `now` is the time since any fixed moment. The first fragment of a message fixes its number of parts; one
/// that disagrees is dropped. A fragment that comes again is dropped too; one that comes again with other
/// bytes shows that its sender started over, so the message begins anew with it.
///
/// A sender is known by its address only: an attacker that can forge it can spoil its messages, and one that fills
/// [`Limits::bytes`] from forged addresses between two fragments of a message displaces it. Put a layer below that proves the
/// source where that matters.
#[derive(Debug)]
pub struct Reassembler<A> {
    limits: Limits,
    mtu: usize,
    room: Headroom,
    /// The key of each message in one of the two tables below.
    index: HashMap<(A, u32), u64>,
    sources: HashMap<A, Source>,
    /// In the order in which they were begun, which is the one in which they expire.
    partial: BTreeMap<u64, Partial<A>>,
    /// Keys in the order in which messages give way to new ones, with some of messages that are gone.
    turns: VecDeque<u64>,
    /// In the order in which they ended. They go first where memory is short.
    ended: BTreeMap<u64, (A, Ended)>,
    next_key: u64,
    /// When what is overdue was last looked for: the fragments of a batch come at one time.
    looked: Option<Duration>,
    /// Of messages, and of what is remembered of them.
    bytes: usize,
    spares: Spares,
    /// The message that the last fragment belonged to, and mostly the next one does, too.
    last: u64,
    given_up: VecDeque<GivenUp<A>>,
}

/// What one source holds.
#[derive(Debug, Default)]
struct Source {
    bytes: usize,
    /// Keys of its messages, the oldest first.
    partial: VecDeque<u64>,
}

/// Keys of messages that are gone and still have a turn, at most, beside as many as twice those that are not.
const MOST_GONE: usize = 64;

/// Memory of a source apart from its messages; the table may be moving to twice its size.
const fn source_cost<A>() -> usize {
    4 * size_of::<(A, Source)>() + 64
}

impl<A: Clone + Eq + Hash> Reassembler<A> {
    /// Reassembles messages of up to `mtu` bytes, and leaves `room` in front of each.
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
            spares: Spares::default(),
            last: 0,
            given_up: VecDeque::new(),
        }
    }

    /// Takes a fragment from `src`.
    ///
    /// A message of one part passes without a copy and without leaving a trace.
    pub fn handle(&mut self, now: Duration, src: &A, mut packet: Packet) -> Handled {
        let Ok((header, len)) = Header::read(&packet) else {
            return Handled::Dropped(Reason::Malformed);
        };
        packet.advance(len);
        if header.total() > 1 {
            return self.handle_part(now, src, header, &packet);
        }
        if packet.len() > self.mtu {
            return Handled::Dropped(Reason::Oversize);
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
            return Handled::Dropped(Reason::Oversize);
        }
        if let Some(key) = self.find(src, header.id()) {
            if let Some(handled) = self.extend(now, key, header, payload) {
                return handled;
            }
            // The sender began another message under this id, unless this is left of one that has ended.
            match self.ended.get(&key) {
                Some((_, ended)) if ended.owns(header, payload) => return Handled::Dropped(ended.reason),
                Some(_) => self.forget(key),
                None => self.give_up(key, Reason::Expired, None),
            }
        }
        self.begin(now, src, header, payload)
    }

    /// Gives up what is overdue at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.looked = Some(now);
        while let Some((&key, partial)) = self.partial.first_key_value()
            && now.saturating_sub(partial.begun) >= self.limits.timeout
        {
            self.give_up(key, Reason::Expired, Some(now));
        }
        while let Some((&key, (_, ended))) = self.ended.first_key_value()
            && now.saturating_sub(ended.at) >= self.limits.linger
        {
            self.forget(key);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let partial = self.partial.first_key_value();
        let ended = self.ended.first_key_value();
        let overdue = partial.map(|(_, partial)| partial.begun.saturating_add(self.limits.timeout));
        let forgotten = ended.map(|(_, (_, ended))| ended.at.saturating_add(self.limits.linger));
        [overdue, forgotten].into_iter().flatten().min()
    }

    /// The next message that was given up, to be counted. Drain this after every other call.
    pub fn poll_given_up(&mut self) -> Option<GivenUp<A>> {
        self.given_up.pop_front()
    }

    /// Messages that are begun and not whole.
    pub fn in_flight(&self) -> usize {
        self.partial.len()
    }

    /// Bytes that everything kept is charged: never more than [`Limits::bytes`] after a call.
    pub fn held(&self) -> usize {
        self.bytes + self.spares.held()
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Gives up everything, because of `reason`.
    pub fn clear(&mut self, reason: Reason) {
        while let Some((&key, _)) = self.partial.first_key_value() {
            self.give_up(key, reason, None);
        }
        while let Some((&key, _)) = self.ended.first_key_value() {
            self.forget(key);
        }
        while self.spares.forget() {}
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

    /// Begins a message with the first fragment that came of it.
    fn begin(&mut self, now: Duration, src: &A, header: Header, payload: &[u8]) -> Handled {
        let key = self.new_key();
        let mut partial = Partial::new(src.clone(), header, now);
        // It is neither whole nor too long: it has several parts, and this one was checked.
        partial.accept(header, payload, self.mtu, self.room, &mut self.spares);
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

    /// Adds to a message that is begun; `None` if it has ended, or the fragment shows that its sender started over.
    fn extend(&mut self, now: Duration, key: u64, header: Header, payload: &[u8]) -> Option<Handled> {
        let partial = self.partial.get_mut(&key)?;
        self.last = key;
        let before = partial.held();
        let accepted = partial.accept(header, payload, self.mtu, self.room, &mut self.spares);
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
                self.give_up(key, Reason::Oversize, Some(now));
                Handled::Dropped(Reason::Oversize)
            }
            Accepted::Restarted => return None,
        })
    }

    fn complete(&mut self, now: Duration, key: u64) -> Option<Handled> {
        let mut partial = self.remove(key)?;
        let ended = partial.end(now, Reason::Duplicate, self.room.front);
        let parts = partial.parts();
        let message = partial.assemble(self.room, &mut self.spares);
        self.remember(partial.src, ended);
        Some(Handled::Whole { message, parts })
    }

    /// Drops a message whole; remembers it if `at` says when that is.
    fn give_up(&mut self, key: u64, reason: Reason, at: Option<Duration>) {
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

    /// Takes a message out of everything but the index.
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

    /// Gives up the oldest messages, of `src` and then of all, until everything is within its limits.
    fn enforce(&mut self, now: Duration, src: &A) {
        while let Some(source) = self.sources.get(src)
            && (source.bytes > self.limits.source_bytes || source.partial.len() > self.limits.source_messages)
            && let Some(&oldest) = source.partial.front()
        {
            self.give_up(oldest, Reason::Budget, Some(now));
        }
        self.shrink(Some(now));
    }

    /// Brings the total within its limit: spare buffers go first, then what has ended, then, if `now` is known, what
    /// has not.
    fn shrink(&mut self, now: Option<Duration>) {
        while self.held() > self.limits.bytes {
            if self.spares.forget() {
                continue;
            }
            if let Some((&oldest, _)) = self.ended.first_key_value() {
                self.forget(oldest);
            } else if now.is_some()
                && let Some(key) = self.least_useful()
            {
                self.give_up(key, Reason::Budget, now);
            } else {
                break;
            }
        }
    }

    /// The oldest message that did not grow since it was last passed over: a second-chance (clock) order, which costs a
    /// fragment one flag.
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
