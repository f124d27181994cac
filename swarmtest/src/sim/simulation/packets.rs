//! Packets and asks in flight.

use p2p::DropReason;
use p2p::engine::{Engine, Failure, RequestId};

use super::super::addr::SimAddr;
use super::{Due, NEVER, Simulation, nanos};

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: SimAddr,
    pub(super) to: SimAddr,
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// The kind of a packet. `None` for an ask whose asker will have timed out by then.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Tell,
    Request(Option<u32>),
    Response(Option<u32>),
    Rejection(Option<u32>),
}

impl Kind {
    /// Returns the ask that fails if this packet is lost.
    fn ask(self) -> Option<u32> {
        match self {
            Kind::Tell => None,
            Kind::Request(ask) | Kind::Response(ask) | Kind::Rejection(ask) => ask,
        }
    }

    /// Returns the same kind without its ask.
    fn too_late(self) -> Self {
        match self {
            Kind::Tell => Kind::Tell,
            Kind::Request(_) => Kind::Request(None),
            Kind::Response(_) => Kind::Response(None),
            Kind::Rejection(_) => Kind::Rejection(None),
        }
    }

    fn word(self) -> u64 {
        match self {
            Kind::Tell => 1,
            Kind::Request(_) => 2,
            Kind::Response(_) => 3,
            Kind::Rejection(_) => 4,
        }
    }
}

/// A pending ask. Exactly one entry of the queue can end it: a packet, or its failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) asker: SimAddr,
    pub(super) life: u32,
    pub(super) id: RequestId,
    pub(super) deadline: u64,
}

impl<E: Engine<Addr = SimAddr>> Simulation<E> {
    /// Delivers a packet to its node.
    pub(super) fn arrive(&mut self, packet: &Packet) {
        let Packet { from, to, .. } = *packet;
        if self.nodes[from.index()].part != self.nodes[to.index()].part {
            return self.lose(packet, DropReason::Partitioned);
        }
        let now = self.now();
        let Some(engine) = &mut self.nodes[to.index()].engine else {
            return self.lose(packet, DropReason::NoPeer);
        };
        match packet.kind {
            Kind::Tell => engine.handle_message(now, &from, &packet.payload),
            Kind::Request(ask) => {
                let response = engine.handle_request(now, &from, &packet.payload);
                self.delivered(packet);
                let (kind, response) = match response {
                    Ok(response) => (Kind::Response(ask), response),
                    Err(_) => (Kind::Rejection(ask), Vec::new()),
                };
                self.send(to, from, kind, response);
                return self.drain(to);
            }
            Kind::Response(Some(ask)) => {
                return self.answer(ask, packet, Ok(&packet.payload));
            }
            Kind::Rejection(Some(ask)) => {
                return self.answer(ask, packet, Err(Failure::Rejected));
            }
            Kind::Response(None) | Kind::Rejection(None) => {
                return self.lose(packet, DropReason::Expired);
            }
        }
        self.delivered(packet);
        self.drain(to);
    }

    /// Passes a response to its asker, if that is still in the same life.
    fn answer(&mut self, ask: u32, packet: &Packet, answer: Result<&[u8], Failure>) {
        if self.end_ask(ask, answer) {
            self.delivered(packet);
        } else {
            self.dropped(packet, DropReason::NoPeer);
        }
    }

    /// Ends an ask; returns whether its asker still existed.
    pub(super) fn end_ask(&mut self, ask: u32, answer: Result<&[u8], Failure>) -> bool {
        let Some(ask) = self.asks.remove(ask) else {
            return false;
        };
        if !self.lives(ask.asker, ask.life) {
            self.asked.abandoned += 1;
            return false;
        }
        match answer {
            Ok(_) => self.asked.answered += 1,
            Err(_) => self.asked.failed += 1,
        }
        let word = if answer.is_ok() { 6 } else { 7 };
        self.note(word, ask.asker, ask.asker, &ask.id.0.to_le_bytes());
        self.act(ask.asker, |engine, now| match answer {
            Ok(answer) => engine.handle_answer(now, ask.id, answer),
            Err(why) => engine.handle_failure(now, ask.id, why),
        });
        true
    }

    /// Sends a packet, or loses it.
    pub(super) fn send(&mut self, from: SimAddr, to: SimAddr, kind: Kind, payload: Vec<u8>) {
        self.counters.add_sent(1);
        let mut packet = Packet {
            from,
            to,
            kind,
            payload,
        };
        match self.arrival(&packet) {
            Err(reason) => self.lose(&packet, reason),
            Ok(at) => {
                if let Some(ask) = kind.ask() {
                    let deadline = self.asks.get(ask).map_or(NEVER, |ask| ask.deadline);
                    if at > deadline {
                        self.queue.push(deadline, Due::Failure(ask));
                        packet.kind = kind.too_late();
                    }
                }
                let key = self.packets.insert(packet);
                self.queue.push(at, Due::Packet(key));
            }
        }
    }

    /// Returns the arrival time of a packet, or the drop reason.
    fn arrival(&mut self, packet: &Packet) -> Result<u64, DropReason> {
        let (from, to) = (packet.from, packet.to);
        let mut leaves = self.now;
        if let Some(uplink) = &self.config.links.uplink {
            let node = &mut self.nodes[from.index()];
            let begins = node.busy.max(self.now);
            if begins - self.now > nanos(uplink.queue) {
                return Err(DropReason::QueueFull);
            }
            node.busy = begins.saturating_add(uplink.occupied(packet.payload.len()));
            leaves = node.busy;
        }
        let part = self.nodes[from.index()].part;
        if self.nodes.get(to.index()).ok_or(DropReason::NoPeer)?.part != part {
            return Err(DropReason::Partitioned);
        }
        let links = &self.config.links;
        if links.loss > 0.0 && self.random.uniform() < links.loss {
            return Err(DropReason::Lost);
        }
        let latency = links.latency(self.config.seed, from, to, &mut self.random);
        Ok(leaves.saturating_add(nanos(latency)))
    }

    /// Drops a packet; its ask fails at the asker's timeout.
    fn lose(&mut self, packet: &Packet, reason: DropReason) {
        self.dropped(packet, reason);
        if let Some(key) = packet.kind.ask()
            && let Some(ask) = self.asks.get(key)
        {
            self.queue.push(ask.deadline.max(self.now), Due::Failure(key));
        }
    }

    fn dropped(&mut self, packet: &Packet, reason: DropReason) {
        self.counters.add_dropped(reason);
        let word = packet.kind.word() | (1 + reason as u64) << 8;
        self.note(word, packet.from, packet.to, &packet.payload);
    }

    fn delivered(&mut self, packet: &Packet) {
        self.counters.add_delivered(1);
        self.note(packet.kind.word(), packet.from, packet.to, &packet.payload);
    }

    /// Absorbs an event into the trace.
    pub(super) fn note(&mut self, word: u64, from: SimAddr, to: SimAddr, bytes: &[u8]) {
        self.trace.absorb(self.now);
        self.trace.absorb(word);
        self.trace.absorb(u64::from(from.0) << 32 | u64::from(to.0));
        self.trace.absorb_bytes(bytes);
    }
}
