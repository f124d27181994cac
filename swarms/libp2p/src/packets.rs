//! Packets of a host: unreliable tells to peers that take them for the same protocol id, as QUIC datagrams (RFC 9221).
//!
//! A packet is lost where the network loses it, and neither repeated nor ordered; the connection authenticates and encrypts it,
//! and its congestion control applies. Connections over TCP carry no packets.
//!
//! # Protocol
//! The receiver gives each of its packet protocols a number, which the sender puts in front of its packets:
//!
//! - To send packets for the protocol `ID`, a host opens a stream for the protocol id `ID/packets`. The peer answers the
//!   negotiation, and then writes the number as a varint of at most 5 bytes. Nothing else is written in either direction. The
//!   peer takes packets with this number on this connection as long as the stream is open.
//! - A packet is one DATAGRAM frame: the number as a varint in its shortest form, and the bytes of the message.
//!
//! ```text
//!   stream for ID/packets    sender ── multistream-select, ID/packets ──▶ receiver
//!                            sender ◀── 03 ────────────────────────────── receiver
//!   DATAGRAM frame           sender ── 03 68 65 6c 6c 6f ("hello") ─────▶ receiver
//! ```
//!
//! The number is the receiver's choice, as a connection id of QUIC is, so that it finds the protocol of a packet without
//! state for each peer. A quarter stream id, as in HTTP datagrams (RFC 9297), would take such state, and ids of streams that
//! libraries do not show.
//!
//! A peer that refuses the protocol, or does not offer datagrams in its transport parameters, takes no packets, and notices
//! nothing: a tell to it is [`Error::Unreachable`], since it did not leave. A packet whose number is unknown, or that is too
//! long for its receiver, is dropped and counted.
//!
//! # MTU
//! [`PacketConfig::mtu`] bytes, at most [`MAX_MTU`], which every path of QUIC carries.
//!
//! # Security
//! Those of the [crate]. The source of a message is `/p2p/ID` of the peer that proved ID. A packet arrives at most once.
//!
//! # Limits
//! All limits are in [`PacketConfig`]; a connection buffers at most 64 KiB of packets in each direction. Packets that find no
//! room in the receiver's buffers are dropped: in the queue of the swarm they are counted, in the buffer of a connection the
//! oldest go, uncounted. The counter `libp2p-packets` counts messages, and `libp2p-datagrams` the datagrams of the host that
//! belong to no protocol.
//!
//! # Cancel safety
//! Cancelling a receive loses nothing. A cancelled tell leaves whole or not at all.

mod registry;
mod routes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use p2p::{
    Addr as _, BatchError, Counters, DropReason, Error, Headroom, Message, Packet, Result, SecureSwarm, Swarm,
};
use p2p_formats::varint;
use p2p_swarms::inbox::Limits;
use quinn::SendDatagramError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::registry::Registry;
use self::routes::{Route, Routes};
use crate::addr::{HostAddr, Place};
use crate::attachment::Attachment;
use crate::connection::Connection;
use crate::host::{HeldHost, Host};
use crate::key::PublicKey;
use crate::stream::Stream;
use crate::swarm::tell_concurrently;

/// Bytes of packets that one connection buffers in each direction.
pub(crate) const BUFFER: usize = 64 << 10;

/// Maximum length of the number in front of a packet, in bytes.
const MAX_NUMBER: usize = 5;
/// Maximum length of a packet in bytes: a QUIC packet of 1200 bytes, less its header with the longest connection id and its
/// tag (41), the header of the frame (9), and the number.
pub const MAX_MTU: usize = 1200 - 41 - 9 - MAX_NUMBER;
/// How often closing looks whether packets have left.
const FLUSH_STEP: Duration = Duration::from_millis(1);

/// The limits and timeouts of packets for one protocol.
#[derive(Clone, Debug)]
pub struct PacketConfig {
    /// Maximum length of a message in bytes; longer ones that arrive are dropped. Default: [`MAX_MTU`].
    pub mtu: usize,
    /// Messages that wait for a reader. Default: those of [`Limits`].
    pub messages: Limits,
    /// Timeout of sending a message, a connection and the answer of the peer included. Default: 15 s.
    pub send_timeout: Duration,
    /// How long closing waits until packets have left. Default: 1 s.
    pub linger: Duration,
}

impl Default for PacketConfig {
    fn default() -> Self {
        Self {
            mtu: MAX_MTU,
            messages: Limits::default(),
            send_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(1),
        }
    }
}

/// The packets of a host for one protocol; see the [module](self).
///
/// Closing it leaves the host open while another handle of the host exists; the last one closes the host.
pub struct PacketSwarm {
    core: Arc<Core>,
    host: HeldHost,
}

struct Core {
    attachment: Attachment,
    protocol: Arc<str>,
    /// The number that peers put in front of packets.
    number: u64,
    config: PacketConfig,
    routes: Routes,
}

impl Host {
    /// Sends and takes packets for `protocol`, which are unreliable tells in QUIC datagrams; see [`packets`](self).
    ///
    /// ```
    /// use p2p::Swarm;
    /// use p2p_formats::x509::PrivateKey;
    /// use p2p_libp2p::Host;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> p2p::Result<()> {
    /// let host = async |seed: u8| {
    ///     Host::builder(&PrivateKey::ed25519(&[seed; 32])).listen("/ip4/127.0.0.1/udp/0/quic-v1")?.start().await
    /// };
    /// let (alice, bob) = (host(1).await?, host(2).await?);
    /// let (ours, theirs) = (alice.packets("/pos/1.0.0", Default::default())?, bob.packets("/pos/1.0.0", Default::default())?);
    /// ours.tell(&theirs.local_addr()?, ours.packet(b"x=7")).await?;
    /// assert_eq!(theirs.receive().await?.payload, b"x=7");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if the id is not valid or in use, for an MTU of zero or above [`MAX_MTU`], and for queues that hold
    /// no message.
    pub fn packets(&self, protocol: &str, config: PacketConfig) -> Result<PacketSwarm> {
        if !(1..=MAX_MTU).contains(&config.mtu) || config.messages.bytes < 2 * MAX_MTU {
            let reason =
                format!("the MTU is from 1 to {MAX_MTU} bytes, and queues hold two messages at least");
            return Err(Error::invalid("packet configuration", reason));
        }
        let host = self.core();
        let core = Arc::new(Core {
            attachment: Attachment::new(self, "libp2p-packets", config.messages),
            protocol: format!("{protocol}/packets").into(),
            number: host.packets.new_number(),
            routes: Routes::default(),
            config,
        });
        let weak = Arc::downgrade(&core);
        host.add_handler(&core.protocol, move |stream| {
            let core = weak.clone();
            async move {
                if let Some(core) = core.upgrade() {
                    // The swarm may end before the peer.
                    let (number, closing) = (core.number, core.attachment.closing());
                    drop(core);
                    offer(number, stream, closing).await;
                }
            }
        })?;
        let weak = Arc::downgrade(&core);
        host.packets.add(core.number, move |from, packet| {
            if let Some(core) = weak.upgrade() {
                core.receive(from, packet);
            }
        });
        let weak = Arc::downgrade(&core);
        host.at_end(core.attachment.closing(), move || {
            if let Some(core) = weak.upgrade() {
                core.close();
            }
        });
        Ok(PacketSwarm {
            core,
            host: HeldHost::new(self.clone()),
        })
    }
}

/// Tells a peer the number of the protocol, and keeps the stream until either side ends.
async fn offer(number: u64, mut stream: Stream, mut closing: watch::Receiver<bool>) {
    let mut encoded = [0; varint::MAX_LEN];
    let number = varint::write(number, &mut encoded);
    let offered = async {
        stream.write_all(number).await?;
        stream.flush().await?;
        // A peer writes nothing; one that does is not served.
        stream.read(&mut [0; 1]).await
    };
    tokio::select! {
        _ = closing.wait_for(|closing| *closing) => {}
        _ = offered => {}
    }
}

impl Core {
    async fn tell(&self, dst: &HostAddr, packet: Packet) -> Result<()> {
        self.attachment.check_open()?;
        packet.check_mtu(self.config.mtu)?;
        let limit = self.config.send_timeout;
        let Ok(sent) = timeout(limit, self.attachment.unless_closed(self.send(dst, packet))).await else {
            let doing = "sending a packet";
            return Err(Error::TimedOut { doing, limit });
        };
        sent?;
        self.attachment.counters.add_sent(1);
        Ok(())
    }

    async fn send(&self, dst: &HostAddr, mut packet: Packet) -> Result<()> {
        let route = self.route(dst).await?;
        let mut number = [0; varint::MAX_LEN];
        packet.push_front(varint::write(route.number, &mut number));
        let unreachable = |reason: String| Err(Error::unreachable(dst, reason));
        match route.connection.send_datagram_wait(packet.into_bytes()).await {
            Ok(()) => Ok(()),
            Err(SendDatagramError::ConnectionLost(error)) => {
                unreachable(format!("the connection has ended: {error}"))
            }
            Err(SendDatagramError::TooLarge) => {
                let most = route.connection.max_datagram_size().unwrap_or_default();
                unreachable(format!("the peer takes datagrams of at most {most} bytes"))
            }
            Err(error) => unreachable(error.to_string()),
        }
    }

    /// Returns the route to a peer: that of an earlier packet, or a new one.
    async fn route(&self, dst: &HostAddr) -> Result<Arc<Route>> {
        if let Some(route) = dst.peer_id().and_then(|id| self.routes.find(&id)) {
            return Ok(route);
        }
        let connection = self.connection(dst).await?;
        let id = connection.info.peer.peer_id().unwrap_or_default();
        let opening = self.routes.opening(id);
        let route = opening.get_or_try_init(|| self.open(dst, &connection));
        route.await.cloned()
    }

    /// Opens a route to a peer: learns the number that it gives the protocol.
    async fn open(&self, dst: &HostAddr, connection: &Arc<Connection>) -> Result<Arc<Route>> {
        let unreachable = |reason: &str| Error::unreachable(dst, reason);
        let quic = connection.quic();
        let quic = quic.ok_or_else(|| unreachable("its connection is over TCP, which carries no packets"))?;
        if quic.max_datagram_size().is_none() {
            return Err(unreachable("it takes no QUIC datagrams"));
        }
        let limit = self.attachment.host.config.stream_timeout;
        let stream = connection.open(&[&self.protocol], limit).await;
        let mut stream = stream.map_err(|error| error.into_error(dst, limit))?;
        let number = read_number(&mut stream).await;
        let number = number.ok_or_else(|| unreachable("its number of the protocol is invalid"))?;
        Ok(Arc::new(Route::new(number, quic.clone(), stream)))
    }

    /// Returns a connection with a peer: one over QUIC, if there is one.
    async fn connection(&self, dst: &HostAddr) -> Result<Arc<Connection>> {
        match dst
            .libp2p_id()
            .and_then(|id| self.attachment.host.quic_connection(&id))
        {
            Some(connection) => Ok(connection),
            None => self.attachment.host.connect(dst).await,
        }
    }

    fn receive(&self, from: &HostAddr, packet: &[u8]) {
        let counters = &self.attachment.counters;
        counters.add_received(1);
        if packet.len() > self.config.mtu {
            counters.add_dropped_from(DropReason::Oversize, from);
            return;
        }
        // A copy: a small packet that waits must not keep the buffer that it came in.
        self.attachment.deliver(from.clone(), Packet::from(packet));
    }

    /// Ends receives, and refuses further packets of peers.
    fn close(&self) {
        if self.attachment.close() {
            self.attachment.host.remove_handler(&self.protocol);
            self.attachment.host.packets.remove(self.number);
        }
    }
}

/// Reads the number that a peer gives the protocol.
async fn read_number(stream: &mut Stream) -> Option<u64> {
    let mut bytes = [0; MAX_NUMBER];
    for at in 0..MAX_NUMBER {
        let byte = stream.read_u8().await.ok()?;
        *bytes.get_mut(at)? = byte;
        if byte < 0x80 {
            let (number, len) = varint::read(&bytes).ok()?;
            return (len == varint::len(number)).then_some(number);
        }
    }
    None
}

impl PacketSwarm {
    /// Returns a handle of the host.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Swarm::close).
    pub fn host(&self) -> Result<Host> {
        self.host.get()
    }
}

impl Swarm<HostAddr> for PacketSwarm {
    /// # Errors
    /// [`Error::Unreachable`] if the peer takes no packets for the protocol, [`Error::TimedOut`], and those of
    /// [`connect`](Host::connect). The packet did not leave.
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

    /// Returns the addresses of the host over QUIC, or its id alone.
    fn local_addrs(&self) -> Vec<HostAddr> {
        let mut addrs = self.core.attachment.host.host_addrs();
        addrs.retain(|addr| matches!(addr.transport(), Some(Place::Quic(_))));
        if addrs.is_empty() {
            addrs.push(self.core.attachment.local.clone());
        }
        addrs
    }

    fn parse_addr(&self, text: &str) -> Result<HostAddr> {
        text.parse()
    }

    /// Closes the packets of this protocol; see [`Swarm::close`]. Waits until packets have left, for up to
    /// [`PacketConfig::linger`]. If no other handle of the host exists, closes the host.
    async fn close(&self) {
        self.core.close();
        let core = self.core.clone();
        let sent = async move {
            while !core.routes.have_sent() {
                tokio::time::sleep(FLUSH_STEP).await;
            }
            core.routes.clear();
        };
        self.host.close(self.core.config.linger, sent).await;
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(MAX_NUMBER, 0)
    }

    /// Visits the counters of this swarm, and those of the swarms below the host, which all swarms of the host share.
    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        visit(&self.core.attachment.counters);
        visit(&self.core.attachment.host.packets.counters);
        self.core.attachment.host.visit_counters(visit);
    }
}

impl SecureSwarm<HostAddr> for PacketSwarm {
    type PublicKey = PublicKey;

    fn public_key(&self) -> PublicKey {
        self.core.attachment.public_key()
    }

    async fn lookup_public_key(&self, addr: &HostAddr) -> Result<PublicKey> {
        self.core.attachment.lookup_public_key(addr).await
    }
}

impl Drop for PacketSwarm {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl fmt::Debug for PacketSwarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSwarm")
            .field("protocol", &self.core.protocol)
            .finish_non_exhaustive()
    }
}
