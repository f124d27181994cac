//! The engine: client and server side of the protocol.

use std::hash::Hash;
use std::num::NonZeroU8;
use std::ops::RangeInclusive;
use std::time::Duration;

use p2p::{DropReason, Headroom, Message, Packet, Rejection, Result};

use super::asking::{Asking, Due};
use super::assembly::{Accepted, Assembly, LEAST_CHUNK, Layout};
use super::bounded_store::{BoundedStore, Bounds};
use super::config::Config;
use super::event::{Answer, AskId, Event, Now, ServeId, What};
use super::output::Output;
use super::serving::{Known, Serving, reply_header};
use super::split::{self, send_whole};
use super::wire::{ALL, HEADER, Header, INQUIRY_COUNTER, Inquiry, Key, Lacks, MAX_TIMEOUT, NO_DEADLINE};

/// The protocol of one node, over a medium of datagrams. See the [module](super).
#[derive(Debug)]
pub struct Engine<A> {
    config: Config,
    asking: Asking<A>,
    serving: Serving<A>,
    parts: BoundedStore<A, (Kind, Key), Assembly>,
    out: Output<A>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Tell,
    Ask,
    Reply,
}

impl<A: Clone + Eq + Hash> Engine<A> {
    /// Creates an engine over a medium with an MTU of `inner_mtu` bytes that needs `room` around a datagram.
    /// `seed` seeds the jitter.
    pub fn new(config: Config, inner_mtu: usize, room: Headroom, seed: u64) -> Self {
        let chunk = split::chunk(inner_mtu);
        let mtu = split::mtu(config.mtu, inner_mtu);
        let retry = config.retry.max(Duration::from_millis(1));
        let config = Config {
            mtu,
            retry,
            retry_max: config.retry_max.max(retry),
            ..config
        };
        let out = Output::new(chunk, room);
        let limits = &config.limits;
        let bounds = Bounds {
            bytes: limits.part_bytes,
            source_bytes: limits.source_part_bytes,
            source_items: limits.source_messages,
        };
        // Peers may split their messages into smaller parts than this node does.
        let largest = Assembly::max_held(mtu, 4 * mtu.div_ceil(chunk), out.room_for_header());
        Self {
            asking: Asking::new(config, seed),
            serving: Serving::new(&config, mtu + out.room_for_header().front),
            parts: BoundedStore::new(bounds, largest),
            out,
            config,
        }
    }

    /// Sets the number of the first message, which is 1 by default, as in go-p2p. Peers identify an ask by
    /// its number and millisecond: a node that replaces a very recent one must start with another number, or
    /// it gets answers to its predecessor's asks.
    #[must_use]
    pub fn counting_from(mut self, first: u32) -> Self {
        self.asking.count_from(first);
        self
    }

    /// Returns the maximum message length in bytes.
    pub fn mtu(&self) -> usize {
        self.config.mtu
    }

    /// Returns the number of message bytes in one datagram.
    pub fn chunk(&self) -> usize {
        self.out.chunk
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`MtuExceeded`](p2p::Error::MtuExceeded); nothing is sent.
    pub fn tell(&mut self, now: Now, dst: &A, packet: Packet) -> Result<()> {
        packet.check_mtu(self.config.mtu)?;
        let header = Header {
            is_ask: false,
            is_reply: false,
            timeout_ms: NO_DEADLINE,
            ..reply_header(self.asking.next_key(now), None)
        };
        let header = split::sized(header, packet.len(), self.out.chunk);
        if header.part_count < 2 {
            send_whole(&mut self.out.transmits, dst.clone(), &header, packet);
        } else {
            self.out.send_parts(dst, &header, &packet, &[ALL]);
        }
        Ok(())
    }

    /// Sends a request and retransmits it as needed for `timeout` (at most 10 minutes).
    ///
    /// # Errors
    /// [`MtuExceeded`](p2p::Error::MtuExceeded), and [`Limit`](p2p::Error::Limit) with too many pending asks;
    /// nothing is sent.
    pub fn ask(&mut self, now: Now, dst: &A, request: Packet, timeout: Duration) -> Result<AskId> {
        request.check_mtu(self.config.mtu)?;
        self.asking.ask(now, dst, request, timeout, &mut self.out)
    }

    /// Cancels an ask. Nothing more is sent for it, and no event follows.
    pub fn cancel(&mut self, id: AskId) {
        self.end(id);
    }

    /// Answers an ask.
    ///
    /// # Errors
    /// [`MtuExceeded`](p2p::Error::MtuExceeded) for a response over the MTU; the asking node gets
    /// [`Rejection::OVERSIZE`] instead.
    pub fn respond(&mut self, now: Now, id: &ServeId<A>, response: Result<Packet, Rejection>) -> Result<()> {
        let fits = response
            .as_ref()
            .map_or(Ok(()), |packet| packet.check_mtu(self.config.mtu));
        let response = match fits {
            Ok(()) => response,
            Err(_) => Err(Rejection::OVERSIZE),
        };
        self.serving.reply(now, &id.src, id.key, response, &mut self.out);
        fits
    }

    /// Processes a received datagram.
    pub fn handle_message(&mut self, now: Now, mut message: Message<A>) {
        let Some((header, _)) = Header::parse(&message.payload) else {
            self.out
                .dropped(message.src, What::Datagram, DropReason::Malformed);
            return;
        };
        message.payload.advance(HEADER);
        let kind = match (header.is_ask, header.is_reply) {
            (false, _) => Kind::Tell,
            (true, false) => Kind::Ask,
            (true, true) => Kind::Reply,
        };
        if kind == Kind::Reply && header.key.counter == INQUIRY_COUNTER {
            self.handle_inquiry(now, message);
            return;
        }
        if !self.admits(now, kind, &header, &message.src) {
            self.out
                .dropped(message.src, What::Datagram, DropReason::Duplicate);
            return;
        }
        let claimed = match header.part_count {
            0 | 1 => message.payload.len(),
            _ => header.total_size as usize,
        };
        if claimed > self.config.mtu {
            self.oversize(now, kind, &header, message.src);
            return;
        }
        if header.part_count < 2 {
            self.whole(now, kind, &header, message);
        } else {
            self.part(now, kind, &header, message);
        }
    }

    /// Ends what has timed out, and sends inquiries that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((dst, due)) = self.asking.handle_timeout(now) {
            match due {
                Due::TimedOut(id) => {
                    if let Some(limit) = self.end(id) {
                        let answer = Answer::TimedOut(limit);
                        self.out.events.push_back(Event::Answered { id, answer });
                    }
                }
                Due::Inquire(key) => self.inquire(now, &dst, key),
            }
        }
        while let Some(late) = self.parts.expire(now.elapsed) {
            self.given_up(late.source, late.key.0, DropReason::Expired);
        }
        self.serving.handle_timeout(now);
    }

    /// Returns the next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(A, Packet)> {
        let transmit = self.out.transmits.pop_front();
        if transmit.is_none() {
            self.out.resent = 0;
        }
        transmit
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<A>> {
        self.out.events.pop_front()
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timeouts = [
            self.asking.poll_timeout(),
            self.parts.next_expiry(),
            self.serving.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// Returns the number of pending asks of this node.
    pub fn pending(&self) -> usize {
        self.asking.len()
    }

    /// Returns the number of remembered asks of other nodes, running or not.
    pub fn remembered(&self) -> usize {
        self.serving.held().0
    }

    /// Returns the bytes charged for other nodes: incomplete messages and replies.
    pub fn held(&self) -> usize {
        self.parts.held() + self.serving.held().1
    }

    /// Returns whether a datagram is useful. For a known ask, sends the reply again or reports its state.
    fn admits(&mut self, now: Now, kind: Kind, header: &Header, src: &A) -> bool {
        match kind {
            Kind::Tell => true,
            Kind::Reply => self.asking.expects(header.key, src),
            Kind::Ask => match self.serving.known(now, src, header.key) {
                Known::New => true,
                Known::Running => false,
                Known::Done => {
                    self.reply_again(now, src, header.key, &[ALL]);
                    false
                }
                Known::Forgotten => {
                    self.reject_forgotten(now, src, header.key);
                    false
                }
            },
        }
    }

    fn reply_again(&mut self, now: Now, src: &A, key: Key, parts: &[RangeInclusive<u16>]) {
        let apart = self.config.retry / 2;
        self.serving
            .reply_again(now, src, key, parts, apart, &mut self.out);
    }

    fn reject_forgotten(&mut self, now: Now, src: &A, key: Key) {
        let why = Err(Rejection::FORGOTTEN);
        self.serving.reply(now, src, key, why, &mut self.out);
    }

    /// Drops a message that is too long, and notifies the asking side at once.
    fn oversize(&mut self, now: Now, kind: Kind, header: &Header, src: A) {
        let why = Rejection::OVERSIZE;
        match kind {
            Kind::Tell => {}
            Kind::Ask => self.serving.reply(now, &src, header.key, Err(why), &mut self.out),
            Kind::Reply => self.answer(AskId(header.key), Answer::Rejected(why)),
        }
        let what = match (kind, header.part_index) {
            (Kind::Tell, 0) => What::Tell,
            (Kind::Ask, 0) => What::Ask,
            _ => What::Datagram,
        };
        self.out.dropped(src, what, DropReason::Oversize);
    }

    /// Adds a part of a message.
    fn part(&mut self, now: Now, kind: Kind, header: &Header, mut message: Message<A>) {
        let (key, room) = ((kind, header.key), self.out.room_for_header());
        let serial = if let Some(serial) = self.parts.find(&message.src, &key) {
            serial
        } else {
            let least = self.out.chunk.min(LEAST_CHUNK);
            let Some(layout) = Layout::new(header, message.payload.len(), least) else {
                self.out
                    .dropped(message.src, What::Datagram, DropReason::Malformed);
                return;
            };
            let patience = match kind {
                Kind::Tell => self.config.limits.timeout,
                Kind::Ask => header.timeout(),
                Kind::Reply => MAX_TIMEOUT,
            };
            let until = now.elapsed.saturating_add(patience);
            self.parts
                .insert(&message.src, key, until, Assembly::new(layout), 0)
        };
        let Some(assembly) = self.parts.get_mut(serial) else {
            return;
        };
        match assembly.accept(header, &message.payload, room) {
            Accepted::Kept => {
                let held = assembly.held();
                self.parts.charge(serial, held);
                while let Some(oldest) = self.parts.evict(&message.src) {
                    self.given_up(oldest.source, oldest.key.0, DropReason::Budget);
                }
            }
            Accepted::Refused(reason) => self.out.dropped(message.src, What::Datagram, reason),
            Accepted::Whole => {
                if let Some(item) = self.parts.remove(serial) {
                    message.payload = item.value.assemble(room);
                    self.whole(now, kind, header, message);
                }
            }
        }
    }

    /// Processes a complete message.
    fn whole(&mut self, now: Now, kind: Kind, header: &Header, message: Message<A>) {
        match kind {
            Kind::Tell => self.out.events.push_back(Event::Told(message)),
            Kind::Ask => {
                self.serving.begin(now, &message.src, header);
                let id = ServeId {
                    src: message.src.clone(),
                    key: header.key,
                };
                let until = now.elapsed.saturating_add(header.timeout());
                self.out.events.push_back(Event::Asked { id, message, until });
            }
            Kind::Reply => {
                let answer = match NonZeroU8::new(header.error_code) {
                    None => Answer::Response(message.payload),
                    Some(code) => Answer::Rejected(Rejection::new(code)),
                };
                self.answer(AskId(header.key), answer);
            }
        }
    }

    fn answer(&mut self, id: AskId, answer: Answer) {
        if self.end(id).is_some() {
            self.out.events.push_back(Event::Answered { id, answer });
        }
    }

    /// Ends an ask, and drops the received parts of its reply.
    fn end(&mut self, id: AskId) -> Option<Duration> {
        let (dst, limit) = self.asking.end(id)?;
        if let Some(serial) = self.parts.find(&dst, &(Kind::Reply, id.0)) {
            self.parts.remove(serial);
        }
        Some(limit)
    }

    fn given_up(&mut self, src: A, kind: Kind, reason: DropReason) {
        let what = match kind {
            Kind::Tell => What::Tell,
            Kind::Ask => What::Ask,
            Kind::Reply => What::Datagram,
        };
        self.out.dropped(src, what, reason);
    }

    /// Sends the request again, if that is safe, or an inquiry.
    fn inquire(&mut self, now: Now, dst: &A, key: Key) {
        let begun = self.parts.find(dst, &(Kind::Reply, key));
        if begun.is_none() && self.asking.ask_again(key, &mut self.out) {
            return;
        }
        let parts = begun
            .and_then(|serial| self.parts.get_mut(serial))
            .map_or_else(|| vec![ALL], |assembly| assembly.lacking());
        let inquiry = Inquiry {
            about: key,
            lacks: Lacks::Reply,
            parts,
        };
        self.out.send_inquiry(dst, now.unix_ms, &inquiry);
        self.asking.inquired(key);
    }

    fn handle_inquiry(&mut self, now: Now, message: Message<A>) {
        let src = message.src;
        let Some(inquiry) = Inquiry::parse(&message.payload) else {
            self.out.dropped(src, What::Datagram, DropReason::Malformed);
            return;
        };
        let about = inquiry.about;
        if inquiry.lacks == Lacks::Request {
            if self.asking.expects(about, &src) {
                let out = &mut self.out;
                self.asking.handle_report(now, about, &inquiry.parts, out);
            }
            return;
        }
        let parts = match self.serving.known(now, &src, about) {
            Known::Done => return self.reply_again(now, &src, about, &inquiry.parts),
            Known::Forgotten => return self.reject_forgotten(now, &src, about),
            Known::Running => Vec::new(),
            Known::New => match self.parts.find(&src, &(Kind::Ask, about)) {
                Some(serial) => self
                    .parts
                    .get_mut(serial)
                    .map_or_else(Vec::new, |assembly| assembly.lacking()),
                None => vec![ALL],
            },
        };
        let report = Inquiry {
            about,
            lacks: Lacks::Request,
            parts,
        };
        self.out.send_inquiry(&src, now.unix_ms, &report);
    }
}
