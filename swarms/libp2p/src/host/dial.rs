//! Dials: one for all callers that want the same peer at the same places.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::{FutureExt as _, Shared as SharedFuture, WeakShared};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use multiaddr::{Multiaddr, PeerId};
use p2p::{Addr as _, Error, Result};
use tokio::time::{sleep, timeout};

use super::shared::Shared;
use crate::addr::{HostAddr, Place, Target, transport};
use crate::connection::{Connection, OpenError};
use crate::stream::Stream;

/// Maximum number of places that one dial tries.
const MAX_PLACES: usize = 25;

type Dialling = Pin<Box<dyn Future<Output = Result<Arc<Connection>>> + Send>>;

/// The dials under way, by peer and places. A dial ends with its last waiting caller.
pub(super) type Dials = HashMap<(Option<p2p::PeerId>, Vec<Multiaddr>), WeakShared<Dialling>>;

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
        self.check_open()?;
        let id = addr.peer_id();
        let mut places = vec![addr.place().clone()];
        if let Some(id) = id {
            if id == self.upgrader.keypair.id() {
                return Err(Error::unreachable(addr, "it is this host"));
            }
            let table = self.table.lock();
            if let Some(connection) = table.find(&id) {
                return Ok(connection);
            }
            places.extend(table.addrs(&id).into_iter().filter(|place| place != addr.place()));
        }
        places.retain(|place| transport(place).is_some());
        if places.is_empty() {
            return Err(Error::unreachable(
                addr,
                "no place of it is known that this host can dial",
            ));
        }
        // QUIC first: its handshake takes fewer round trips.
        places.sort_by_key(|place| !matches!(transport(place), Some(Place::Quic(_))));
        places.truncate(MAX_PLACES);
        let dial = self.dial(id, addr.libp2p_id(), places);
        self.unless_closed(dial).await
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

    /// Returns the dial under way, or begins one.
    fn dial(
        self: &Arc<Self>,
        id: Option<p2p::PeerId>,
        expected: Option<PeerId>,
        places: Vec<Multiaddr>,
    ) -> SharedFuture<Dialling> {
        let mut dials = self.dials.lock();
        let key = (id, places);
        if let Some(dial) = dials.get(&key).and_then(WeakShared::upgrade) {
            return dial;
        }
        dials.retain(|_, dial| dial.upgrade().is_some());
        let (shared, places) = (self.clone(), key.1.clone());
        let dial: Dialling = Box::pin(async move { shared.dial_places(expected, places).await });
        let dial = dial.shared();
        if let Some(weak) = dial.downgrade() {
            dials.insert(key, weak);
        }
        dial
    }

    /// Dials places in turn, the next one after a failure or after the head start. The first connection wins.
    async fn dial_places(
        self: &Arc<Self>,
        expected: Option<PeerId>,
        places: Vec<Multiaddr>,
    ) -> Result<Arc<Connection>> {
        let acquired = self.dialling.acquire().await;
        let _permit = acquired.map_err(|_| Error::Closed)?;
        let mut places = places.into_iter();
        let mut dials = FuturesUnordered::new();
        dials.extend(places.next().map(|place| self.dial_place(expected, place)));
        let mut first_error = None;
        loop {
            let next = tokio::select! {
                biased;
                Some(dialled) = dials.next() => match dialled {
                    Ok(connection) => return Ok(connection),
                    Err(error) => {
                        first_error.get_or_insert(error);
                        places.next()
                    }
                },
                () = sleep(self.config.quic_head_start), if places.len() > 0 => places.next(),
                else => break,
            };
            if let Some(place) = next {
                dials.push(self.dial_place(expected, place));
            } else if dials.is_empty() {
                break;
            }
        }
        Err(first_error.unwrap_or(Error::Closed))
    }

    async fn dial_place(
        self: &Arc<Self>,
        expected: Option<PeerId>,
        place: Multiaddr,
    ) -> Result<Arc<Connection>> {
        let limit = self.config.handshake_timeout;
        let dial = async {
            match transport(&place) {
                Some(Place::Quic(Target::Swarm(text))) => self.dial_swarm(&text, expected).await,
                Some(Place::Quic(target)) => {
                    let to = self.resolve(&place, target).await?;
                    self.dial_quic(to, expected).await
                }
                Some(Place::Tcp(target)) => {
                    let to = self.resolve(&place, target).await?;
                    self.dial_tcp(to, expected).await
                }
                None => Err(Error::unreachable(&place, "this host cannot dial it")),
            }
        };
        match timeout(limit, dial).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Error::TimedOut {
                doing: "dialling a peer",
                limit,
            }),
        }
    }

    async fn resolve(&self, place: &Multiaddr, target: Target) -> Result<SocketAddr> {
        let (name, port, ip6) = match target {
            Target::Ip(addr) => return Ok(addr),
            Target::Dns { name, port, ip6 } => (name, port, ip6),
            Target::Swarm(_) => return Err(Error::unreachable(place, "it is not an IP address")),
        };
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let mut found = found.map_err(|error| Error::unreachable(place, error.to_string()))?;
        let fits = |addr: &SocketAddr| ip6.is_none_or(|ip6| addr.is_ipv6() == ip6);
        found
            .find(fits)
            .ok_or_else(|| Error::unreachable(place, "the name has no address of that kind"))
    }
}
