//! The server side: asks of other nodes that this node answers or has answered.

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

use p2p::{Headroom, Packet, Rejection};

use super::bounded_store::{BoundedStore, Bounds};
use super::config::Config;
use super::event::Now;
use super::output::Output;
use super::recent::Recent;
use super::split::{self, send_whole};
use super::wire::{ALL, Header, Key};

/// Time for which an ask is remembered after its deadline: longer than the maximum delay of a datagram.
const LINGER: Duration = Duration::from_secs(15);

/// Remembers asks with their replies, so that none runs twice.
#[derive(Debug)]
pub(super) struct Serving<A> {
    served: BoundedStore<A, Key, Served>,
    /// Sources with asks that were forgotten early.
    floors: Recent<A, Floor>,
}

#[derive(Debug)]
enum Served {
    Running,
    Done {
        header: Header,
        reply: Packet,
        sent: Duration,
    },
}

/// The origin time up to which asks of a source may have run although they are not remembered.
#[derive(Clone, Copy, Debug)]
struct Floor {
    origin_ms: u64,
    until: Duration,
}

/// The state of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Running,
    Done,
    /// It may have run.
    Forgotten,
}

impl<A: Clone + Eq + Hash> Serving<A> {
    pub(super) fn new(config: &Config, largest: usize) -> Self {
        let limits = &config.limits;
        let bounds = Bounds {
            bytes: limits.reply_bytes,
            source_bytes: limits.source_reply_bytes,
            source_items: limits.source_replies,
        };
        Self {
            served: BoundedStore::new(bounds, largest),
            floors: Recent::new(limits.peers),
        }
    }

    pub(super) fn known(&mut self, now: Now, src: &A, key: Key) -> Known {
        if let Some(serial) = self.served.find(src, &key) {
            return match self.served.get_mut(serial) {
                Some(Served::Done { .. }) => Known::Done,
                _ => Known::Running,
            };
        }
        match self.floors.get(src) {
            Some(floor)
                if floor.until > now.elapsed && key.origin.recover(now.unix_ms) <= floor.origin_ms =>
            {
                Known::Forgotten
            }
            _ => Known::New,
        }
    }

    /// Records a new ask, which is about to run.
    pub(super) fn begin(&mut self, now: Now, src: &A, header: &Header) {
        let until = now.elapsed.saturating_add(header.timeout() + LINGER);
        self.served.insert(src, header.key, until, Served::Running, 0);
        self.evict(now, src);
    }

    /// Sends a reply and keeps it.
    pub(super) fn reply(
        &mut self,
        now: Now,
        src: &A,
        key: Key,
        reply: Result<Packet, Rejection>,
        out: &mut Output<A>,
    ) {
        let header = reply_header(key, reply.as_ref().err().copied());
        let reply = reply.unwrap_or_else(|_| out.empty());
        let header = split::sized(header, reply.len(), out.chunk);
        let kept = self.served.find(src, &key);
        let reply = if header.part_count < 2 {
            let copy = kept.map(|_| Packet::new(Headroom::default(), &reply));
            send_whole(&mut out.transmits, src.clone(), &header, reply);
            copy.unwrap_or_default()
        } else {
            out.send_parts(src, &header, &reply, &[ALL]);
            reply
        };
        if let Some(serial) = kept
            && let Some(served) = self.served.get_mut(serial)
        {
            let held = reply.capacity();
            let sent = now.elapsed;
            *served = Served::Done { header, reply, sent };
            self.served.charge(serial, held);
            self.evict(now, src);
        }
    }

    /// Retransmits parts of a reply, at a limited rate, because the reply can be much longer than the
    /// inquiry.
    pub(super) fn reply_again(
        &mut self,
        now: Now,
        src: &A,
        key: Key,
        parts: &[RangeInclusive<u16>],
        apart: Duration,
        out: &mut Output<A>,
    ) {
        if let Some(serial) = self.served.find(src, &key)
            && let Some(Served::Done { header, reply, sent }) = self.served.get_mut(serial)
            && now.elapsed.saturating_sub(*sent) >= apart
            && out.may_resend()
        {
            *sent = now.elapsed;
            out.send_parts(src, header, reply, parts);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        while self.served.expire(now.elapsed).is_some() {}
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.served.next_expiry()
    }

    /// Returns the number of remembered asks, and the bytes charged for them.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.served.len(), self.served.held())
    }

    fn evict(&mut self, now: Now, src: &A) {
        while let Some(forgotten) = self.served.evict(src) {
            if forgotten.until <= now.elapsed {
                continue;
            }
            let floor = Floor {
                origin_ms: forgotten.key.origin.recover(now.unix_ms),
                until: forgotten.until,
            };
            let floor = match self.floors.get(&forgotten.source) {
                Some(before) if before.until > now.elapsed => Floor {
                    origin_ms: floor.origin_ms.max(before.origin_ms),
                    until: floor.until.max(before.until),
                },
                _ => floor,
            };
            self.floors.insert(forgotten.source, floor);
        }
    }
}

/// Returns the header of a reply, without sizes.
pub(super) fn reply_header(key: Key, rejection: Option<Rejection>) -> Header {
    Header {
        is_ask: true,
        is_reply: true,
        error_code: rejection.map_or(0, |why| why.code().get()),
        key,
        total_size: 0,
        part_index: 0,
        part_count: 0,
        timeout_ms: 0,
    }
}
