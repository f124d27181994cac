//! A small, correct secure swarm over the suite's wire, and the ways in which it can be made faulty.
//!
//! A handshake of two packets, data with counters, and asks as frames in the data. Each node has a task that takes
//! packets off the wire. [`session`] has the cryptography, [`frame`] the bytes, [`core`] the state, [`handle`] what
//! is done with packets, [`fault`] what is done wrong, and this file the traits.

mod core;
mod fault;
mod frame;
mod handle;
mod session;

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use p2p::{
    AskSwarm, Counters, Error, Message, Packet, PeerId, Rejection, Request, Respond, Result, SecureSwarm,
    Swarm,
};
use p2p_swarmtest::wire::Tap;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::core::Core;
pub(crate) use self::fault::Fault;
use self::frame::{Frame, OVERHEAD};
pub(crate) use self::session::Name;
use self::session::{Pair, id_of};

/// Messages and requests that wait for a reader at most.
pub(crate) const QUEUE: usize = 64;

/// Asks that one node may have under way.
pub(crate) const ASKS: usize = 64;

/// How long an ask takes at most.
const DEADLINE: Duration = Duration::from_secs(5);

/// A node. Dropping it frees its port.
pub(crate) struct Sealed {
    core: Arc<Core>,
    task: AbortHandle,
}

/// The keys of nodes, so that one can be made again.
#[derive(Clone, Default)]
pub(crate) struct Keys(Arc<Mutex<HashMap<PeerId, [u8; 32]>>>);

impl Keys {
    /// A node with a key that was never used.
    pub(crate) fn node(&self, tap: Tap, fault: Fault) -> Sealed {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).expect("randomness");
        let pair = Pair::from_seed(&seed);
        let mut seeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seeds.insert(id_of(&pair.public), seed);
        Sealed::new(tap, pair, false, fault)
    }

    /// A node with the key of the one that was called so.
    pub(crate) fn again(&self, tap: Tap, name: &Name, fault: Fault) -> Result<Sealed> {
        let seeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seed = seeds
            .get(&name.id)
            .ok_or_else(|| Error::invalid("key", "no node had it"))?;
        Ok(Sealed::new(tap, Pair::from_seed(seed), true, fault))
    }
}

impl Sealed {
    fn new(tap: Tap, pair: Pair, again: bool, fault: Fault) -> Self {
        let core = Arc::new(Core::new(tap, pair, again, fault));
        let reader = core.clone();
        let task = tokio::spawn(async move {
            while let Ok(message) = reader.tap.receive().await {
                reader.handle(&message);
            }
        });
        Self {
            core,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.task.abort();
        self.core.close();
    }
}

impl Swarm<Name> for Sealed {
    async fn tell(&self, dst: &Name, packet: Packet) -> Result<()> {
        packet.check_mtu(self.mtu())?;
        self.core.send(dst, &Frame::Tell(&packet)).await?;
        self.core.counters.add_sent(1);
        Ok(())
    }

    async fn receive(&self) -> Result<Message<Name>> {
        let message = self.core.unless_closed(self.core.messages.take()).await?;
        self.core.counters.add_delivered(1);
        Ok(message)
    }

    fn mtu(&self) -> usize {
        self.core.tap.mtu() - OVERHEAD
    }

    fn local_addrs(&self) -> Vec<Name> {
        vec![self.core.name()]
    }

    fn parse_addr(&self, text: &str) -> Result<Name> {
        let at = text
            .find('@')
            .ok_or_else(|| Error::addr(text, text.len(), "an address is id@port"))?;
        let shift = |by| {
            move |error| match error {
                Error::InvalidAddr { at, reason, .. } => Error::addr(text, at + by, reason),
                other => other,
            }
        };
        let id = text[..at].parse().map_err(shift(0))?;
        let port = self.core.tap.parse_addr(&text[at + 1..]).map_err(shift(at + 1))?;
        Ok(Name { id, at: port })
    }

    async fn close(&self) {
        self.core.close();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.core.counters);
        self.core.tap.visit_counters(visit);
    }
}

impl AskSwarm<Name> for Sealed {
    async fn ask(&self, dst: &Name, request: Packet) -> Result<Packet> {
        request.check_mtu(self.mtu())?;
        self.core.check_open()?;
        let (asker, outcome) = oneshot::channel();
        let slot = Slot {
            core: &self.core,
            number: self.core.begin_ask(dst, asker)?,
        };
        let answered = async {
            self.core
                .send(dst, &Frame::Request(slot.number, &request))
                .await?;
            match timeout(DEADLINE, outcome).await {
                Ok(Ok(outcome)) => outcome.map_err(Error::Rejected),
                // The sender of the outcome is gone with the node.
                Ok(Err(_)) => pending().await,
                Err(_) => Err(Error::TimedOut {
                    doing: "an ask",
                    limit: DEADLINE,
                }),
            }
        };
        self.core.unless_closed(answered).await
    }

    async fn receive_ask(&self) -> Result<Request<Name>> {
        self.core.unless_closed(self.core.requests.take()).await
    }
}

/// One of the asks that a node may have under way.
struct Slot<'a> {
    core: &'a Core,
    number: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.core.end_ask(self.number);
    }
}

/// The way back of a request.
struct Back {
    core: Weak<Core>,
    asker: Name,
    number: u64,
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        let Some(core) = self.core.upgrade() else {
            return Err(Error::Closed);
        };
        if let Err(error) = response.check_mtu(core.tap.mtu() - OVERHEAD) {
            self.reject(Rejection::OVERSIZE);
            return Err(error);
        }
        core.answer(&self.asker, &Frame::Response(self.number, &response));
        Ok(())
    }

    fn reject(self: Box<Self>, why: Rejection) {
        if let Some(core) = self.core.upgrade() {
            core.answer(&self.asker, &Frame::Rejection(self.number, why));
        }
    }
}

impl SecureSwarm<Name> for Sealed {
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        self.core.pair.public.to_vec()
    }

    async fn lookup_public_key(&self, addr: &Name) -> Result<Vec<u8>> {
        self.core.lookup(addr).await
    }
}

impl Core {
    /// Whether `close` was called; every other call fails then.
    fn check_open(&self) -> Result<()> {
        if self.closed.load(SeqCst) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    async fn unless_closed<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let mut closing = std::pin::pin!(self.closing.notified());
        closing.as_mut().enable();
        self.check_open()?;
        tokio::select! {
            biased;
            () = closing => Err(Error::Closed),
            result = future => result,
        }
    }
}
