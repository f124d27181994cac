//! Calls that need a connection: they use one that is open, or wait for a dial.

use std::sync::Arc;

use p2p::{Addr as _, Error, Result};
use p2p_protocols::dial::{DialId, Failure, Transport};
use tokio::sync::oneshot;

use super::engines::{Admitted, Caller, Destination, DialKey, Failed};
use super::names::{dial_each, resolve};
use super::shared::Shared;
use crate::addr::{HostAddr, Place, Target, transport};
use crate::connection::{Connection, OpenError};
use crate::stream::Stream;

/// What a call for a connection found.
enum Found {
    Open(Arc<Connection>),
    Dial(DialId),
}

/// The stream that a caller wants.
enum Wanted<'a> {
    /// For the first protocol that the peer supports.
    First(&'a [&'a str]),
    /// For this protocol, without awaiting the peer's answer.
    Lazily(Arc<str>),
}

impl Shared {
    /// Returns a connection with the peer of `addr`: the oldest one, or a new one.
    pub(crate) async fn connect(self: &Arc<Self>, addr: &HostAddr) -> Result<Arc<Connection>> {
        self.connection_with(addr, false).await
    }

    /// Returns a connection with the peer of `addr`: the oldest one unless it must be new, or a new one.
    pub(super) async fn connection_with(
        self: &Arc<Self>,
        addr: &HostAddr,
        wants_new: bool,
    ) -> Result<Arc<Connection>> {
        self.check_open()?;
        if addr.peer_id() == Some(self.upgrader.keypair.id()) {
            return Err(Error::unreachable(addr, "it is this host"));
        }
        let key = match addr.libp2p_id() {
            Some(peer) => DialKey::Peer(peer),
            None => DialKey::Place(addr.place().clone()),
        };
        let (reply, answered) = oneshot::channel();
        let found = self.drive(|engines, now| -> Result<Found> {
            if let DialKey::Peer(peer) = &key
                && !wants_new
                && let Some(connection) = engines.best(peer)
            {
                return Ok(Found::Open(connection));
            }
            let named = Some(addr.place()).filter(|place| !place.is_empty());
            let places = engines.places(now, &key, named);
            let dialled = engines.dialer.dial(now, &key, places);
            let id = dialled.map_err(|full| Error::Limit {
                what: full.what,
                limit: full.limit,
            })?;
            let addr = addr.clone();
            let caller = Caller {
                addr,
                reply,
                wants_new,
            };
            engines.callers.insert(id, caller);
            Ok(Found::Dial(id))
        })?;
        let id = match found {
            Found::Open(connection) => return Ok(connection),
            Found::Dial(id) => id,
        };
        let _cancel = CancelOnDrop {
            shared: self.clone(),
            id,
        };
        // Without an answer the host was closed.
        self.unless_closed(async { answered.await.unwrap_or(Err(Error::Closed)) })
            .await
    }

    /// Opens a stream for the first of `protocols` that the peer supports.
    pub(crate) async fn open(self: &Arc<Self>, addr: &HostAddr, protocols: &[&str]) -> Result<Stream> {
        self.on_connection(addr, Wanted::First(protocols)).await
    }

    /// Opens a stream for one protocol, and leaves the peer's answer to the first read.
    pub(crate) async fn open_lazily(self: &Arc<Self>, addr: &HostAddr, protocol: Arc<str>) -> Result<Stream> {
        self.on_connection(addr, Wanted::Lazily(protocol)).await
    }

    /// Opens on a connection with the peer. A connection that turns out to have ended is replaced once.
    async fn on_connection(self: &Arc<Self>, addr: &HostAddr, wanted: Wanted<'_>) -> Result<Stream> {
        let limit = self.config.stream_timeout;
        let mut is_first = true;
        loop {
            let connection = self.connect(addr).await?;
            let opened = async {
                Ok(match &wanted {
                    Wanted::First(protocols) => connection.open(protocols, limit).await,
                    Wanted::Lazily(protocol) => connection.open_lazily(protocol.clone(), limit).await,
                })
            };
            match self.unless_closed(opened).await? {
                Err(OpenError::Lost(_) | OpenError::Negotiation(_)) if is_first && connection.is_ended() => {
                    is_first = false;
                    self.forget(&connection);
                }
                opened => return opened.map_err(|error| error.into_error(addr, limit)),
            }
        }
    }

    /// Dials a place for an attempt of the dialer, which bounds the time.
    pub(super) async fn dial_place(
        self: &Arc<Self>,
        to: &Destination,
        admitted: Admitted,
    ) -> Result<(), Failed> {
        let (target, transport) = match transport(&to.place) {
            Some(Place::Quic(Target::Swarm(text))) => {
                return self.dial_swarm(&text, to.expected, admitted).await;
            }
            Some(Place::Quic(target)) => (target, Transport::Quic),
            Some(Place::Tcp(target)) => (target, Transport::Tcp),
            None => {
                let error = Error::unreachable(&to.place, "this host cannot dial it");
                return Err(Failed::new(Failure::Unsupported, error));
            }
        };
        let dial = |addr| async move {
            match transport {
                Transport::Quic => self.dial_quic(addr, to.expected, admitted).await,
                _ => self.dial_tcp(addr, to.expected, admitted).await,
            }
        };
        match target {
            Target::Ip(addr) => dial(addr).await,
            // Only the first connection is adopted: all attempts end with this call.
            target => {
                let addrs = resolve(to, target).await?;
                dial_each(&to.place, transport, addrs, self.config.dials(), dial).await
            }
        }
    }
}

/// Cancels a dial with its caller. The dialer ends the attempts of a peer with the last one.
struct CancelOnDrop {
    shared: Arc<Shared>,
    id: DialId,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.shared.drive(|engines, now| {
            // After its result, neither is there.
            engines.callers.remove(&self.id);
            engines.dialer.cancel(now, self.id);
        });
    }
}
