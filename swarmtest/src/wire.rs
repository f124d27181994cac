//! A datagram medium that the suite owns: it records every packet, and can modify packets as an attacker on
//! the path would.
//!
//! A [`Tap`] is one node's end of a [`Wire`] and a plain swarm: a layer under test goes on taps; see
//! [`Testbed::over`](crate::Testbed::over). The laws of the group [`wire`](crate::laws::wire) attack.
//!
//! Deliberately absent: loss, delay and reordering without an attack. A packet that is not attacked arrives
//! at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use p2p::{Addr, Counters, DropReason, Error, Message, Packet, Result, Swarm};

use crate::queue::{Gate, Queue, lock};

/// Maximum number of datagrams that wait for a reader; further ones are dropped.
const QUEUE: usize = 4096;

/// Maximum number of recorded bytes; later packets are not recorded.
const RECORD: usize = 256 << 20;

/// The address of a tap. Its text is `wire:` and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

const PREFIX: &str = "wire:";

impl Addr for Port {}

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its claimed source.
    pub src: Port,
    /// Its destination.
    pub dst: Port,
    /// The bytes that an eavesdropper sees.
    pub bytes: Vec<u8>,
}

type Attack = Box<dyn FnMut(Datagram) -> Vec<Datagram> + Send>;

/// A datagram medium. Clones refer to the same medium.
#[derive(Clone)]
pub struct Wire(Arc<Medium>);

struct Medium {
    mtu: usize,
    ends: Mutex<BTreeMap<Port, Weak<End>>>,
    record: Mutex<Option<Record>>,
    attack: Mutex<Option<Attack>>,
}

#[derive(Default)]
struct Record {
    datagrams: Vec<Datagram>,
    bytes: usize,
}

/// The state of a tap that others access.
#[derive(Debug)]
struct End {
    port: Port,
    queue: Queue<Message<Port>>,
    gate: Gate,
    counters: Counters,
}

impl Wire {
    /// Creates a medium that carries datagrams of up to `mtu` bytes.
    pub fn new(mtu: usize) -> Self {
        Self(Arc::new(Medium {
            mtu,
            ends: Mutex::default(),
            record: Mutex::default(),
            attack: Mutex::default(),
        }))
    }

    /// Opens a tap at a new port.
    pub fn open(&self) -> Tap {
        let free = lock(&self.0.ends)
            .last_key_value()
            .map_or(1, |(port, _)| port.0.saturating_add(1));
        self.open_at(Port(free))
    }

    /// Opens a tap at this port. An existing tap there is disconnected.
    pub fn open_at(&self, port: Port) -> Tap {
        let end = Arc::new(End {
            port,
            queue: Queue::default(),
            gate: Gate::default(),
            counters: Counters::new("wire"),
        });
        lock(&self.0.ends).insert(port, Arc::downgrade(&end));
        Tap {
            medium: self.0.clone(),
            end,
        }
    }

    /// Starts to record packets as they are sent, before any attack; discards earlier records.
    pub fn record(&self) {
        *lock(&self.0.record) = Some(Record::default());
    }

    /// Returns the packets sent since [`record`](Self::record), in order; the first 256 MiB of them.
    pub fn recorded(&self) -> Vec<Datagram> {
        let record = lock(&self.0.record);
        record
            .as_ref()
            .map_or_else(Vec::new, |record| record.datagrams.clone())
    }

    /// Passes every further packet to `attack`; the packets that it returns arrive instead.
    ///
    /// It must not call `attack` or `calm` on the same wire.
    pub fn attack(&self, attack: impl FnMut(Datagram) -> Vec<Datagram> + Send + 'static) {
        *lock(&self.0.attack) = Some(Box::new(attack));
    }

    /// Ends the attack: packets arrive unchanged again.
    pub fn calm(&self) {
        *lock(&self.0.attack) = None;
    }

    /// Delivers a datagram that no tap sent. It is neither recorded nor attacked.
    pub fn inject(&self, datagram: Datagram) {
        if let Some(to) = self.0.find(datagram.dst) {
            to.counters.add_duplicated(1);
            to.push(datagram.src, Packet::from(datagram.bytes));
        }
    }

    /// Returns the number of datagrams that wait to be read at this port.
    pub fn waiting(&self, port: Port) -> usize {
        self.0.find(port).map_or(0, |end| end.queue.len())
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("mtu", &self.0.mtu)
            .finish_non_exhaustive()
    }
}

impl Medium {
    fn find(&self, port: Port) -> Option<Arc<End>> {
        let found = lock(&self.ends).get(&port)?.upgrade()?;
        (!found.gate.is_closed()).then_some(found)
    }

    /// Returns whether this end is the one at its port.
    fn has(&self, end: &Arc<End>) -> bool {
        let ends = lock(&self.ends);
        ends.get(&end.port)
            .is_some_and(|there| std::ptr::eq(there.as_ptr(), Arc::as_ptr(end)))
    }

    /// Returns the packets that arrive for a sent one.
    fn attacked(&self, sent: Datagram) -> Vec<Datagram> {
        if let Some(record) = lock(&self.record).as_mut() {
            record.bytes += sent.bytes.len();
            if record.bytes <= RECORD {
                record.datagrams.push(sent.clone());
            }
        }
        match lock(&self.attack).as_mut() {
            Some(attack) => attack(sent),
            None => vec![sent],
        }
    }
}

impl End {
    fn push(&self, src: Port, payload: Packet) {
        let message = Message {
            src,
            dst: self.port,
            payload,
        };
        if self.queue.push(message, 0, QUEUE).is_err() {
            self.counters.add_dropped(DropReason::QueueFull);
        }
    }
}

/// One node's end of a [`Wire`]: a swarm of plain datagrams. Dropping it frees its port.
pub struct Tap {
    medium: Arc<Medium>,
    end: Arc<End>,
}

impl Tap {
    /// Returns the address of this tap.
    pub fn port(&self) -> Port {
        self.end.port
    }

    fn close_now(&self) {
        if self.end.gate.close() {
            while self.end.queue.try_pop().is_some() {
                self.end.counters.add_dropped(DropReason::Closed);
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.close_now();
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("port", &self.end.port)
            .finish_non_exhaustive()
    }
}

impl Swarm<Port> for Tap {
    async fn tell(&self, dst: &Port, packet: Packet) -> Result<()> {
        self.end.gate.check_open()?;
        packet.check_mtu(self.mtu())?;
        let counters = &self.end.counters;
        counters.add_sent(1);
        if !self.medium.has(&self.end) {
            counters.add_dropped(DropReason::Lost);
            return Ok(());
        }
        let arriving = self.medium.attacked(Datagram {
            src: self.end.port,
            dst: *dst,
            bytes: packet.to_vec(),
        });
        match arriving.len() {
            0 => counters.add_dropped(DropReason::Lost),
            copies => counters.add_duplicated(copies - 1),
        }
        for Datagram { src, dst, bytes } in arriving {
            match self.medium.find(dst) {
                Some(to) => to.push(src, Packet::from(bytes)),
                None => counters.add_dropped(DropReason::NoPeer),
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Message<Port>> {
        let pop = async { Ok(self.end.queue.pop().await) };
        let message = self.end.gate.unless_closed(pop).await?;
        self.end.counters.add_delivered(1);
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Port>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        out.push(self.receive().await?);
        let before = out.len();
        out.extend(std::iter::from_fn(|| self.end.queue.try_pop()).take(max - 1));
        self.end.counters.add_delivered(out.len() - before);
        Ok(out.len() - before + 1)
    }

    fn mtu(&self) -> usize {
        self.medium.mtu
    }

    fn local_addrs(&self) -> Vec<Port> {
        vec![self.end.port]
    }

    fn parse_addr(&self, text: &str) -> Result<Port> {
        let Some(number) = text.strip_prefix(PREFIX) else {
            return Err(Error::addr(text, 0, "expected wire: and a number"));
        };
        match number.parse::<u32>() {
            Ok(port) if port.to_string() == number => Ok(Port(port)),
            _ => Err(Error::addr(
                text,
                PREFIX.len(),
                "expected a number behind the colon",
            )),
        }
    }

    async fn close(&self) {
        self.close_now();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.end.counters);
    }
}
