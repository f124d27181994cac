//! Asks over any datagram swarm: each ask gets one response or one error, whatever the medium loses or
//! duplicates.
//!
//! The format is that of go-p2p's mbapp. The engine, [`p2p_protocols::mbapp`], retransmits requests,
//! suppresses duplicates and reassembles long messages; this module drives it. Tells are fragmented, but not
//! retransmitted.
//!
//! # Limits
//! The queues are bounded by [`MbappConfig`], and the engine by [`mbapp::Config`]. At a bound the newest
//! message is dropped and counted, and the newest request is rejected with
//! [`Rejection::BUSY`](p2p::Rejection::BUSY).
//!
//! # Security
//! Sources are as trustworthy as those of the swarm below. Over a medium with forged sources put this layer
//! above [`p2pke`](crate::SwarmExt::p2pke).
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. Cancelling an ask frees its slot; the peer may have acted on the
//! request.

use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, Counters, Error, Headroom, Message, Packet, Request, Result,
    SecureSwarm, Swarm,
};
use p2p_protocols::mbapp::{self, AskId, HEADER};
use tokio::time::timeout;

use crate::driver::finish_close;
use crate::inbox;

mod inbound;
mod replies;
mod shared;

use shared::{Shared, Slot, Want};

/// How long `close` waits for room to send responses.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds and timeouts of an [`MbappSwarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbappConfig {
    /// The MTU (default: 64 KiB; more needs more than 65,535 datagrams of the swarm below), the
    /// retransmission times, and the bounds of what is kept.
    pub engine: mbapp::Config,
    /// Timeout of [`ask`](AskSwarm::ask), at most 10 minutes. Default: 30 s, as in go-p2p.
    pub timeout: Duration,
    /// Messages that wait for this node's reader. At the limit one of the source with the most is dropped
    /// and counted.
    pub messages: inbox::Limits,
    /// Requests that wait for this node's reader. At the limit an asker with the most gets
    /// [`Rejection::BUSY`](p2p::Rejection::BUSY) at once.
    pub asks: inbox::Limits,
    /// Maximum number of datagrams that are received from below at a time. A larger number costs memory while
    /// a batch is processed, a smaller one costs more calls. Default: 64.
    pub batch: usize,
}

impl Default for MbappConfig {
    fn default() -> Self {
        Self {
            engine: mbapp::Config::default(),
            timeout: Duration::from_secs(30),
            messages: inbox::Limits::default(),
            asks: inbox::Limits::default(),
            batch: 64,
        }
    }
}

/// A layer that adds asks, and tells of any length, to a datagram swarm, in go-p2p's `mbapp` format.
///
/// [`p2p_protocols::mbapp`] describes how loss and duplicates are handled, and what a go-p2p peer observes.
/// Tells that need several datagrams arrive if all of them do.
///
/// A task that waits in [`receive`](Swarm::receive), [`receive_ask`](AskSwarm::receive_ask) or
/// [`ask`](AskSwarm::ask) also receives from below; of several waiting tasks one receives for all. After the
/// first call, a background task receives while no caller polls. So an asker whose response was lost gets it
/// again, and a `receive` that is kept but not polled does not block asks. Messages that arrive meanwhile
/// wait in the queues of [`MbappConfig::messages`] and [`MbappConfig::asks`]. These calls need a tokio
/// runtime with time enabled; outside of one they fail with [`Error::Invalid`].
///
/// Counters: `mbapp` counts tells, `mbapp-ask` requests, and `mbapp-datagram` their datagrams: its drops are
/// datagrams that were dropped individually.
///
/// ```
/// use p2p::{AskSwarm, Swarm};
/// use p2p_swarms::{MbappSwarm, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let node = || -> p2p::Result<_> {
///     let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
///     Ok(MbappSwarm::new(udp, 64 << 10))
/// };
/// let (client, server) = (node()?, node()?);
/// let to = server.local_addrs()[0];
/// let (response, handled) = tokio::join!(client.ask(&to, client.packet(b"ping")), async {
///     let request = server.receive_ask().await?;
///     request.respond(b"pong".into()).await
/// });
/// handled?;
/// assert_eq!(response?, b"pong");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MbappSwarm<A: Addr, S: Swarm<A>> {
    shared: Arc<Shared<A, S>>,
}

impl<A: Addr, S: Swarm<A>> MbappSwarm<A, S> {
    /// Creates a layer over `inner` with asks and messages of up to `mtu` bytes.
    pub fn new(inner: S, mtu: usize) -> Self {
        let mut config = MbappConfig::default();
        config.engine.mtu = mtu;
        Self::with_config(inner, config)
    }

    /// Creates a layer with the given bounds and timeouts.
    pub fn with_config(inner: S, config: MbappConfig) -> Self {
        Self {
            shared: Arc::new(Shared::new(inner, config)),
        }
    }

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }

    /// Returns the number of bytes that are held for peers: incomplete messages and replies.
    pub fn held(&self) -> usize {
        self.shared.held()
    }

    /// Sends an ask as [`ask`](AskSwarm::ask) does, with its own timeout of at most 10 minutes.
    ///
    /// # Errors
    /// Returns the errors of `ask`, [`Error::Limit`] if too many asks of this node are in flight, and the
    /// error of the swarm below if the request cannot be sent.
    ///
    /// # Cancel safety
    /// A cancelled ask frees its slot; the peer may have acted on the request.
    pub async fn ask_within(&self, dst: &A, request: Packet, limit: Duration) -> Result<Packet> {
        let shared = &*self.shared;
        let slot = Arc::new(Slot::default());
        let (id, mut datagrams) = shared.begin(dst, request, limit, &slot)?;
        let _pending = Pending { shared, id };
        let sending = async {
            match datagrams.pop() {
                Some((dst, datagram)) if datagrams.is_empty() => shared.inner.tell(&dst, datagram).await,
                last => {
                    datagrams.extend(last);
                    shared.send(&mut datagrams).await
                }
            }
        };
        let doing = "asking";
        timeout(limit, sending)
            .await
            .unwrap_or(Err(Error::TimedOut { doing, limit }))?;
        shared.asks.add_sent(1);
        self.shared.answer_to(id, &slot).await
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for MbappSwarm<A, S> {
    fn mtu(&self) -> usize {
        self.shared.mtu
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(HEADER, 0).plus(self.shared.inner.headroom())
    }

    fn local_addrs(&self) -> Vec<A> {
        self.shared.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<A> {
        self.shared.inner.parse_addr(text)
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.shared.tells);
        visit(&self.shared.asks);
        visit(&self.shared.datagrams);
        self.shared.inner.visit_counters(visit);
    }

    /// Sends a message; see [`Swarm::tell`]. After an error the message is never delivered, although some of
    /// its datagrams may have been sent.
    async fn tell(&self, dst: &A, packet: Packet) -> Result<()> {
        let shared = &*self.shared;
        let single = packet.len() <= shared.chunk;
        let mut datagrams = Vec::new();
        if single {
            let packet = shared.mark(dst, packet)?;
            shared.inner.tell(dst, packet).await?;
        } else {
            shared.split(dst, packet, &mut datagrams)?;
            shared.send(&mut datagrams).await?;
        }
        shared.tells.add_sent(1);
        Ok(())
    }

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let shared = &*self.shared;
        let mut outcome = BatchOutcome::default();
        let long = shared.mark_batch(batch, &mut outcome);
        shared.tells.add_sent(outcome.tell(&shared.inner, batch).await);
        for (dst, packet) in long {
            outcome.record(self.tell(&dst, packet).await);
        }
        outcome.finish()
    }

    async fn receive(&self) -> Result<Message<A>> {
        self.shared.start()?;
        let Shared {
            told, driver, tells, ..
        } = &*self.shared;
        told.receive(driver, Want::Told, tells).await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<A>>, max: usize) -> Result<usize> {
        self.shared.start()?;
        let Shared {
            told, driver, tells, ..
        } = &*self.shared;
        told.receive_batch(driver, Want::Told, tells, out, max).await
    }

    async fn close(&self) {
        self.shared.close();
        let shared = self.shared.clone();
        finish_close(async move {
            // Responses that were accepted and wait for room below.
            let _ = timeout(CLOSE_TIMEOUT, shared.background_sends.idle()).await;
            shared.inner.close().await;
        })
        .await;
    }
}

impl<A: Addr, S: Swarm<A>> AskSwarm<A> for MbappSwarm<A, S> {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        self.ask_within(dst, request, self.shared.config.timeout).await
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        self.shared.receive_ask().await
    }
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for MbappSwarm<A, S> {
    type PublicKey = S::PublicKey;

    fn public_key(&self) -> S::PublicKey {
        self.shared.inner.public_key()
    }

    async fn lookup_public_key(&self, addr: &A) -> Result<S::PublicKey> {
        self.shared.inner.lookup_public_key(addr).await
    }
}

impl<A: Addr, S: Swarm<A>> Drop for MbappSwarm<A, S> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// An ask in flight, cancelled when it is dropped.
struct Pending<'a, A: Addr, S: Swarm<A>> {
    shared: &'a Shared<A, S>,
    id: AskId,
}

impl<A: Addr, S: Swarm<A>> Drop for Pending<'_, A, S> {
    fn drop(&mut self) {
        self.shared.end(self.id);
    }
}
