//! The client side: asks of this node without an answer.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::time::Duration;

use p2p::{Error, Headroom, Packet, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::config::Config;
use super::event::{AskId, Now};
use super::output::Output;
use super::recent::Recent;
use super::split::{self, send_whole};
use super::wire::{ALL, Header, INQUIRY_COUNTER, Key, MAX_TIMEOUT, PhaseTime};
use crate::hash::HashMap;

/// Numbers messages, and keeps requests until they are answered.
#[derive(Debug)]
pub(super) struct Asking<A> {
    config: Config,
    /// Seeds the jitter.
    rng: StdRng,
    pending: HashMap<u32, Pending<A>>,
    /// The time of the next action for each pending ask.
    timers: BTreeSet<(Duration, u32)>,
    counter: u32,
    /// The latest origin time. It never decreases, because peers could otherwise run a new ask that they take
    /// for a forgotten one.
    latest_ms: u64,
    /// Peers that have answered an inquiry: they run no ask twice.
    attentive: Recent<A, ()>,
}

#[derive(Debug)]
struct Pending<A> {
    dst: A,
    header: Header,
    request: Packet,
    limit: Duration,
    deadline: Duration,
    next: Duration,
    interval: Duration,
    /// Whether an inquiry is in flight that was not answered.
    inquired: bool,
}

/// The action for an ask with an expired timer.
#[derive(Debug)]
pub(super) enum Due {
    TimedOut(AskId),
    /// Some or all parts of the reply are missing: inquire.
    Inquire(Key),
}

impl<A: Clone + Eq + Hash> Asking<A> {
    pub(super) fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            pending: HashMap::default(),
            timers: BTreeSet::new(),
            counter: INQUIRY_COUNTER,
            latest_ms: 0,
            attentive: Recent::new(config.limits.peers),
        }
    }

    pub(super) fn count_from(&mut self, first: u32) {
        self.counter = first.wrapping_sub(1);
    }

    /// Returns the key of the next message.
    pub(super) fn next_key(&mut self, now: Now) -> Key {
        self.latest_ms = self.latest_ms.max(now.unix_ms);
        loop {
            self.counter = self.counter.wrapping_add(1);
            if self.counter != INQUIRY_COUNTER && !self.pending.contains_key(&self.counter) {
                break;
            }
        }
        Key {
            counter: self.counter,
            origin: PhaseTime::new(self.latest_ms),
        }
    }

    pub(super) fn ask(
        &mut self,
        now: Now,
        dst: &A,
        request: Packet,
        timeout: Duration,
        out: &mut Output<A>,
    ) -> Result<AskId> {
        let limit = self.config.limits.asks;
        if self.pending.len() >= limit {
            let what = "pending asks";
            return Err(Error::Limit { what, limit });
        }
        let timeout = timeout.min(MAX_TIMEOUT);
        let key = self.next_key(now);
        let header = Header {
            is_ask: true,
            is_reply: false,
            error_code: 0,
            key,
            total_size: 0,
            part_index: 0,
            part_count: 0,
            timeout_ms: timeout.as_millis() as u32,
        };
        let header = split::sized(header, request.len(), out.chunk);
        let request = if header.part_count < 2 {
            let kept = Packet::new(Headroom::default(), &request);
            send_whole(&mut out.transmits, dst.clone(), &header, request);
            kept
        } else {
            out.send_parts(dst, &header, &request, &[ALL]);
            request
        };
        let deadline = now.elapsed.saturating_add(timeout);
        let mut pending = Pending {
            dst: dst.clone(),
            header,
            request,
            limit: timeout,
            deadline,
            next: deadline,
            interval: self.config.retry,
            inquired: false,
        };
        pending.wait(now, &mut self.rng);
        self.timers.insert((pending.next, key.counter));
        self.pending.insert(key.counter, pending);
        Ok(AskId(key))
    }

    /// Returns whether this ask still waits for an answer from `src`.
    pub(super) fn expects(&self, key: Key, src: &A) -> bool {
        self.pending
            .get(&key.counter)
            .is_some_and(|pending| pending.header.key == key && pending.dst == *src)
    }

    /// Ends an ask. Returns the asked peer and the timeout.
    pub(super) fn end(&mut self, id: AskId) -> Option<(A, Duration)> {
        if self.pending.get(&id.0.counter)?.header.key != id.0 {
            return None;
        }
        let pending = self.pending.remove(&id.0.counter)?;
        self.timers.remove(&(pending.next, id.0.counter));
        Some((pending.dst, pending.limit))
    }

    /// Returns the next ask with an expired timer. The timer of an ask that continues is set again.
    pub(super) fn handle_timeout(&mut self, now: Now) -> Option<(A, Due)> {
        let &(at, counter) = self.timers.first()?;
        if at > now.elapsed {
            return None;
        }
        self.timers.pop_first();
        let pending = self.pending.get_mut(&counter)?;
        let key = pending.header.key;
        if pending.deadline <= now.elapsed {
            // The timer is removed; the caller ends the ask.
            return Some((pending.dst.clone(), Due::TimedOut(AskId(key))));
        }
        pending.interval = (pending.interval * 2).min(self.config.retry_max);
        pending.wait(now, &mut self.rng);
        self.timers.insert((pending.next, counter));
        Some((pending.dst.clone(), Due::Inquire(key)))
    }

    /// Sends a request again, if that is safe and costs no more than an inquiry. Returns whether it was sent.
    pub(super) fn ask_again(&self, key: Key, out: &mut Output<A>) -> bool {
        let Some(pending) = self.pending.get(&key.counter) else {
            return false;
        };
        let safe = pending.header.part_count < 2 && self.attentive.get(&pending.dst).is_some();
        if safe {
            let request = Packet::new(out.room_for_header(), &pending.request);
            send_whole(&mut out.transmits, pending.dst.clone(), &pending.header, request);
        }
        safe
    }

    /// Records that an inquiry about an ask was sent.
    pub(super) fn inquired(&mut self, key: Key) {
        if let Some(pending) = self.pending.get_mut(&key.counter) {
            pending.inquired = true;
        }
    }

    /// Processes the answer to an inquiry: sends the parts that the server lacks, once for each inquiry.
    pub(super) fn handle_report(
        &mut self,
        now: Now,
        key: Key,
        lacking: &[RangeInclusive<u16>],
        out: &mut Output<A>,
    ) {
        let Some(pending) = self.pending.get_mut(&key.counter) else {
            return;
        };
        self.attentive.insert(pending.dst.clone(), ());
        if lacking.is_empty() || !out.may_resend() || !std::mem::take(&mut pending.inquired) {
            return;
        }
        out.send_parts(&pending.dst, &pending.header, &pending.request, lacking);
        // The peer is reachable, so further losses are worth an early retransmission.
        self.timers.remove(&(pending.next, key.counter));
        pending.interval = self.config.retry;
        pending.wait(now, &mut self.rng);
        self.timers.insert((pending.next, key.counter));
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl<A> Pending<A> {
    /// Sets the timer to the interval with a jitter of a quarter, so that simultaneous asks spread out.
    fn wait(&mut self, now: Now, rng: &mut StdRng) {
        let jittered = self.interval.mul_f64(rng.random_range(0.75..1.25));
        self.next = now.elapsed.saturating_add(jittered).min(self.deadline);
    }
}
