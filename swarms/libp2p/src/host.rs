//! A libp2p host: it listens, dials, and hands streams to handlers.

mod admission;
mod builder;
mod dial;
mod events;
mod identifying;
mod listen;
mod port;
mod quic;
mod serve;
mod shared;
mod table;

use std::fmt;
use std::sync::Arc;

use multiaddr::{Multiaddr, PeerId};
use p2p::{Error, Result};

pub use self::builder::HostBuilder;
pub use self::events::{HostEvent, HostEvents};
pub(crate) use self::port::Lease;
pub(crate) use self::shared::Shared;
use crate::addr::HostAddr;
use crate::connection::ConnectionInfo;
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
        self.shared.close_unattended();
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

    /// Returns what is known of each connection, in the order in which they were established.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared().table.lock().infos()
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
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::TimedOut`] if no address could be dialled, [`Error::Limit`] at the limit
    /// of outbound connections, [`Error::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// A dial ends with its last waiting caller.
    pub async fn connect(&self, addr: &HostAddr) -> Result<HostAddr> {
        let connection = self.shared().connect(addr).await?;
        Ok(connection.info.peer.clone())
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

    /// Closes every connection with a peer. Returns their number. The next stream to it establishes another one.
    pub fn disconnect(&self, peer: &HostAddr) -> usize {
        let Some(id) = p2p::Addr::peer_id(peer) else {
            return 0;
        };
        let all = self.shared().table.lock().all();
        let with = all
            .iter()
            .filter(|connection| p2p::Addr::peer_id(&connection.info.peer) == Some(id));
        with.map(|connection| connection.close()).count()
    }

    /// Remembers places of a peer, which dials of `/p2p/ID` use.
    pub fn add_addrs(&self, peer: PeerId, places: impl IntoIterator<Item = Multiaddr>) {
        let shared = self.shared();
        let max = shared.config.max_known_peers;
        let id = crate::identity(&peer);
        let places = places
            .into_iter()
            .map(|place| HostAddr::from_multiaddr(place).place().clone());
        shared.table.lock().learn(id, places, max);
    }

    /// Closes the host: all calls and streams end, and the addresses are freed when it returns. Idempotent.
    ///
    /// # Cancel safety
    /// The host is closed from the first poll on.
    pub async fn close(&self) {
        self.shared().close();
        self.shared().ended().await;
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
        self.0.shared.ended().await;
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
