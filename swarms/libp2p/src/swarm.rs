//! A swarm of a host: tells and asks to peers that have a swarm with the same protocol id.
//!
//! A tell is one message on a stream of its own, for the protocol id of the swarm: the length as a varint, the
//! bytes, and the end of the stream. An ask is the same for the id with `/ask` behind it, and its response comes
//! back in the same form. A request that is refused is answered by the bytes `80 00` and a code: a length that is
//! not in its shortest form, so that it is no response. So any libp2p program can write and read both.
//!
//! # Security
//! Those of the [crate]. The source of a message is `/p2p/ID` of the peer that proved ID.
//!
//! # Limits
//! All limits are in [`HostSwarmConfig`]. A message that does not fit into the receiver's queue is dropped there and
//! counted; the sender does not wait for readers. The counters `libp2p` and `libp2p-ask` count messages and asks. A message that a
//! peer has not read when its connection ends, or after [`message_timeout`](HostSwarmConfig::message_timeout), counts as lost here;
//! over TCP, where a lost connection looks like the end of a stream, it is not counted.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. A cancelled tell resets its stream: the peer receives the whole message or
//! nothing. The peer may have acted on the request of a cancelled ask.

mod budgets;
mod ends;
mod receive;
mod send;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use p2p::{
    AskSwarm, BatchError, BatchOutcome, Counters, DropReason, Error, Headroom, Message, Packet, Request,
    Result, SecureSwarm, Swarm,
};
use p2p_formats::varint;
use p2p_swarms::inbox::{Inbox, Limits};
use tokio::sync::watch;

pub(crate) use self::budgets::Budgets;
use self::ends::Ends;
pub(crate) use self::send::{exchange, frame};
use crate::addr::HostAddr;
use crate::attachment::Attachment;
use crate::host::{HeldHost, Host};
use crate::key::PublicKey;

/// The limits and timeouts of a swarm of a host.
#[derive(Clone, Debug)]
pub struct HostSwarmConfig {
    /// Maximum length of a message, a request and a response in bytes. Default: 1 MiB.
    pub mtu: usize,
    /// Messages that wait for a reader. Default: 1024 messages, 16 MiB.
    pub messages: Limits,
    /// Requests that wait for a reader. Those that find no room are rejected. Default: 1024 requests, 16 MiB.
    pub requests: Limits,
    /// Bytes of messages that have arrived in part, for all peers together; messages beyond are dropped. A peer that holds more
    /// than one message gets none of the second half. Default: 64 MiB.
    pub reassembly: usize,
    /// The same for one peer, over all of its connections. Default: 16 MiB.
    pub peer_reassembly: usize,
    /// Timeout of sending a message, a connection included. Default: 15 s.
    pub send_timeout: Duration,
    /// Timeout of an ask. Default: 30 s.
    pub ask_timeout: Duration,
    /// Timeout of the arrival of a message whose stream is open. Default: 15 s.
    pub message_timeout: Duration,
    /// How long closing waits until peers have taken what was sent. Default: 3 s.
    pub linger: Duration,
}

impl Default for HostSwarmConfig {
    fn default() -> Self {
        Self {
            mtu: 1 << 20,
            messages: Limits::reassembled(),
            requests: Limits::reassembled(),
            reassembly: 64 << 20,
            peer_reassembly: 16 << 20,
            send_timeout: Duration::from_secs(15),
            ask_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(3),
        }
    }
}

/// A swarm of a host; see the [module](self).
///
/// A connection on which messages of the swarm have been exchanged is not closed while the swarm is open because nothing
/// needs it; trimming may close it ([`HostConfig::high_water`](crate::HostConfig::high_water)).
///
/// Closing it leaves the host open while another handle of the host exists; the last one closes the host.
///
/// ```
/// use p2p::{AskSwarm, Swarm};
/// use p2p_formats::x509::PrivateKey;
/// use p2p_libp2p::{Host, HostSwarmConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let node = async |seed: u8| {
///     let builder = Host::builder(&PrivateKey::ed25519(&[seed; 32])).listen("/ip4/127.0.0.1/udp/0/quic-v1")?;
///     builder.start().await?.swarm("/my-app/1.0.0", HostSwarmConfig::default())
/// };
/// let (alice, bob) = (node(1).await?, node(2).await?);
/// let (to, serve) = (bob.local_addr()?, p2p::serve_asks(&bob, 16, async |request| Ok(request.payload)));
/// tokio::select! {
///     ended = serve => ended?,
///     answer = alice.ask(&to, alice.packet(b"hello")) => assert_eq!(answer?, b"hello"),
/// }
/// # Ok(())
/// # }
/// ```
pub struct HostSwarm {
    core: Arc<Core>,
    host: HeldHost,
}

pub(crate) struct Core {
    attachment: Attachment,
    tell_id: Arc<str>,
    ask_id: Arc<str>,
    config: HostSwarmConfig,
    requests: Inbox<Request<HostAddr>>,
    asks: Counters,
    reassembly: Budgets,
    ends: Ends,
    /// Messages and responses that peers have not taken yet.
    sending: watch::Sender<usize>,
}

impl Host {
    /// Makes a swarm of this host, whose peers are hosts with a swarm of the same protocol id.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the id is not valid or in use, and for an MTU above 16 MiB or beyond the limits of
    /// the queues.
    pub fn swarm(&self, protocol: &str, config: HostSwarmConfig) -> Result<HostSwarm> {
        let longest = config.mtu.saturating_add(1 << 10);
        let least = config
            .reassembly
            .min(config.peer_reassembly)
            .min(config.messages.bytes);
        if config.mtu > MAX_MTU || longest > least {
            let reason = "the MTU exceeds 16 MiB, or the bytes of the queues or of messages that arrive";
            return Err(Error::invalid("swarm configuration", reason));
        }
        let core = Arc::new(Core {
            attachment: Attachment::new(self, "libp2p", config.messages),
            tell_id: protocol.into(),
            ask_id: format!("{protocol}/ask").into(),
            requests: Inbox::new(config.requests),
            asks: Counters::new("libp2p-ask"),
            reassembly: Budgets::new(config.reassembly, config.peer_reassembly, longest),
            ends: Ends::new(self.core(), config.message_timeout),
            sending: watch::Sender::new(0),
            config,
        });
        receive::serve(&core)?;
        core.attachment.host.keep_alive_by(&[&core.tell_id, &core.ask_id]);
        Ok(HostSwarm {
            core,
            host: HeldHost::new(self.clone()),
        })
    }
}

/// Messages of one batch that are being sent at the same time.
const BATCH: usize = 64;
/// Maximum MTU in bytes.
const MAX_MTU: usize = 16 << 20;

/// Completes the tells of a batch, up to [`BATCH`] at the same time.
pub(crate) async fn tell_concurrently<F: Future<Output = Result<()>>>(
    tells: impl Iterator<Item = F>,
) -> Result<(), BatchError> {
    let mut outcome = BatchOutcome::default();
    let mut results = std::pin::pin!(stream::iter(tells).buffer_unordered(BATCH));
    while let Some(result) = results.next().await {
        outcome.record(result);
    }
    outcome.finish()
}

impl Core {
    /// Ends receives, and refuses further messages of peers.
    fn close(&self) {
        if !self.attachment.close() {
            return;
        }
        let host = &self.attachment.host;
        host.remove_handler(&self.tell_id);
        host.remove_handler(&self.ask_id);
        host.release_by(&[&self.tell_id, &self.ask_id]);
        let dropped = self.requests.close();
        self.asks.add_dropped_many(DropReason::Closed, dropped);
    }
}

impl HostSwarm {
    /// Returns a handle of the host.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Swarm::close).
    pub fn host(&self) -> Result<Host> {
        self.host.get()
    }
}

impl Swarm<HostAddr> for HostSwarm {
    async fn tell(&self, dst: &HostAddr, packet: Packet) -> Result<()> {
        self.core.tell(dst, packet).await
    }

    /// Messages do not wait for those to other peers. Of one batch, at most 64 are being sent at the same time.
    async fn tell_batch(&self, batch: &mut Vec<(HostAddr, Packet)>) -> Result<(), BatchError> {
        let tells = batch
            .drain(..)
            .map(async |(dst, packet)| self.core.tell(&dst, packet).await);
        tell_concurrently(tells).await
    }

    async fn receive(&self) -> Result<Message<HostAddr>> {
        self.core.attachment.receive().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<HostAddr>>, max: usize) -> Result<usize> {
        self.core.attachment.receive_batch(out, max).await
    }

    fn mtu(&self) -> usize {
        self.core.config.mtu
    }

    fn local_addrs(&self) -> Vec<HostAddr> {
        self.core.attachment.host.host_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<HostAddr> {
        text.parse()
    }

    /// Closes the swarm; see [`Swarm::close`]. Waits until peers have taken what was sent, for up to
    /// [`HostSwarmConfig::linger`]. If no other handle of the host exists, closes the host.
    async fn close(&self) {
        self.core.close();
        let mut sending = self.core.sending.subscribe();
        let sent = async move {
            // An error says that the swarm is gone.
            let _ = sending.wait_for(|sending| *sending == 0).await;
        };
        self.host.close(self.core.config.linger, sent).await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(varint::len(self.core.config.mtu as u64), 0)
    }

    /// Visits the counters of this swarm, and those of the swarms below the host, which all swarms of the host share.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.core.attachment.counters);
        visit(&self.core.asks);
        self.core.attachment.host.visit_counters(visit);
    }
}

impl AskSwarm<HostAddr> for HostSwarm {
    async fn ask(&self, dst: &HostAddr, request: Packet) -> Result<Packet> {
        self.core.ask(dst, request).await
    }

    async fn receive_ask(&self) -> Result<Request<HostAddr>> {
        let request = self.core.requests.pop().await?;
        self.core.asks.add_delivered(1);
        Ok(request)
    }
}

impl SecureSwarm<HostAddr> for HostSwarm {
    type PublicKey = PublicKey;

    fn public_key(&self) -> PublicKey {
        self.core.attachment.public_key()
    }

    async fn lookup_public_key(&self, addr: &HostAddr) -> Result<PublicKey> {
        self.core.attachment.lookup_public_key(addr).await
    }
}

impl Drop for HostSwarm {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl fmt::Debug for HostSwarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSwarm")
            .field("protocol", &self.core.tell_id)
            .finish_non_exhaustive()
    }
}
