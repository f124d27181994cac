//! A libp2p host: it listens, dials, and hands streams to handlers.

mod admit;
mod builder;
mod dial;
mod driver;
mod engines;
mod events;
mod held;
mod identifying;
mod keep;
mod known;
mod listen;
mod names;
mod observe;
mod port;
mod quic;
mod results;
mod saved;
mod serve;
mod shared;

use std::fmt;
use std::sync::Arc;

use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_protocols::connections::ConnId;

pub use self::builder::HostBuilder;
pub(crate) use self::builder::place_to_listen;
pub use self::events::{HostEvent, HostEvents};
pub(crate) use self::held::HeldHost;
pub(crate) use self::identifying::may_be_named;
pub(crate) use self::keep::CountedStream;
pub use self::keep::OpenReason;
pub use self::known::PeerInfo;
pub(crate) use self::observe::Observe;
pub(crate) use self::port::Lease;
pub(crate) use self::shared::{Shared, check_protocol};
use crate::addr::HostAddr;
use crate::identify::Identified;
use crate::key::PublicKey;
use crate::stream::Stream;

/// A libp2p host; see the [crate](crate). Clones are handles of the same host.
///
/// Dropping the last handle closes the host: its calls end at once, and tasks of the runtime tell peers. A handler
/// that holds a handle keeps the host open until [`close`](Self::close).
#[derive(Clone)]
pub struct Host {
    handle: Arc<Handle>,
}

/// Closes the host when the last handle is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Host {
    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        let handle = Arc::new(Handle { shared });
        Self { handle }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Returns the libp2p peer id of this host.
    pub fn peer_id(&self) -> PeerId {
        self.shared().upgrader.keypair.peer_id()
    }

    /// Returns the identity of this host in this framework; see [`identity`](crate::identity).
    pub fn id(&self) -> p2p::PeerId {
        self.shared().upgrader.keypair.id()
    }

    /// Returns the public key of this host.
    pub fn public_key(&self) -> &PublicKey {
        self.shared().upgrader.keypair.public()
    }

    /// Returns the addresses at which this host listens, each with its peer id. Of a socket that is bound to all
    /// interfaces, one for each address of an interface.
    pub fn local_addrs(&self) -> Vec<HostAddr> {
        let addrs = self.shared().local_addrs().into_iter();
        addrs.map(|place| HostAddr::new(self.peer_id(), place)).collect()
    }

    /// Subscribes to events of this host from now on.
    pub fn events(&self) -> HostEvents {
        self.shared().events.subscribe()
    }

    /// Handles streams that peers open for `protocol`: `handler` is called with each, and its future runs in a
    /// task of its own, until it ends or the host closes.
    ///
    /// A handler must read and write with timeouts of its own: a stream counts against
    /// [`max_streams`](crate::HostConfig::max_streams) until it is dropped.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the id does not begin with `/`, is longer than 512 bytes, or has a handler already.
    pub fn handle<F>(
        &self,
        protocol: &str,
        handler: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared().add_handler(protocol, handler)
    }

    /// Removes the handler of `protocol`. Returns whether there was one. Streams that it holds go on.
    pub fn stop_handling(&self, protocol: &str) -> bool {
        self.shared().remove_handler(protocol)
    }

    /// Connects to a peer, or returns at once if a connection exists. Returns the peer's address, `/p2p/ID`.
    ///
    /// The places of a peer are those of `addr` and those that the host knows ([`peer`](Self::peer)). They are tried
    /// QUIC first, with a head start over TCP. A connection that nothing needs is closed after a while; see
    /// [`OpenReason`].
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::TimedOut`] if no address could be dialled, [`Error::Limit`] at a limit of
    /// connections or dials, [`Error::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// All callers that want the same peer share its dial, which ends with the last one.
    pub async fn connect(&self, addr: &HostAddr) -> Result<HostAddr> {
        let connection = self.shared().connect(addr).await?;
        Ok(connection.info.peer.clone())
    }

    /// Connects to a peer also if a connection exists. Streams go on using the oldest connection. Returns the new one's
    /// number, or that of a connection which the peer opened meanwhile.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As for [`connect`](Self::connect).
    pub async fn connect_anew(&self, addr: &HostAddr) -> Result<ConnId> {
        let connection = self.shared().connection_with(addr, true).await?;
        Ok(connection.info.id)
    }

    /// Opens a stream to a peer, on a connection with it or on a new one, for the first of `protocols` that the
    /// peer supports.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect); [`Error::Unreachable`] if the peer supports none of the protocols;
    /// [`Error::TimedOut`] if it permits no further stream or does not answer within
    /// [`stream_timeout`](crate::HostConfig::stream_timeout).
    pub async fn open(&self, addr: &HostAddr, protocols: &[&str]) -> Result<Stream> {
        self.shared().open(addr, protocols).await
    }

    /// Opens a stream for one protocol without awaiting the peer's answer, which saves a round trip: what is
    /// written leaves together with the proposal. If the peer does not support the protocol, the first read fails
    /// with [`std::io::ErrorKind::Unsupported`].
    ///
    /// # Errors
    /// Those of [`open`](Self::open), except where they concern the peer's answer.
    pub async fn open_lazily(&self, addr: &HostAddr, protocol: &str) -> Result<Stream> {
        self.shared().open_lazily(addr, protocol.into()).await
    }

    /// Returns what a peer said of itself, once it has identified itself on a connection; connects to it if there
    /// is none.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and [`Error::Unreachable`] if the peer's message is not valid.
    pub async fn identify(&self, addr: &HostAddr) -> Result<Arc<Identified>> {
        let connection = self.shared().connect(addr).await?;
        let asked = self.shared().identify(&connection);
        let asked = self.shared().unless_closed(async { Ok(asked.await) }).await?;
        asked.map_err(|reason| Error::unreachable(addr, reason))
    }

    /// Closes every connection with a peer. Returns their number. The next stream to it establishes another one, and so
    /// does [`maintain`](Self::maintain).
    pub fn disconnect(&self, peer: &HostAddr) -> usize {
        let Some(id) = peer.libp2p_id() else {
            return 0;
        };
        self.shared()
            .drive(|engines, _| engines.connections.close_peer(&id))
    }

    /// Closes the host: all calls and streams end, and the addresses are freed when it returns. Idempotent.
    ///
    /// # Cancel safety
    /// The host is closed from the first poll on, and a task frees its addresses.
    pub async fn close(&self) {
        self.shared().close();
        self.shared().freed().await;
    }

    /// Returns whether this is the last handle, and consumes it. The host is not closed by it.
    pub(crate) fn into_last(self) -> Option<LastHandle> {
        Arc::into_inner(self.handle).map(LastHandle)
    }

    pub(crate) fn core(&self) -> &Arc<Shared> {
        self.shared()
    }
}

/// The last handle of a host.
pub(crate) struct LastHandle(Handle);

impl LastHandle {
    /// Closes the host, and waits until its addresses are free.
    pub(crate) async fn close(self) {
        self.0.shared.close();
        self.0.shared.freed().await;
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("peer_id", &self.peer_id())
            .field("connections", &self.connections().len())
            .finish_non_exhaustive()
    }
}
