//! A connection with one peer, over QUIC or over TCP.

mod end;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use multiaddr::Multiaddr;
use p2p::{Error, Result};
use p2p_protocols::connections::{CloseReason, ConnId};
use p2p_protocols::identify::Info;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub(crate) use self::end::End;
use crate::addr::HostAddr;
use crate::config::{Muxer, Security};
use crate::host::{Lease, OpenReason, Shared};
use crate::key::PublicKey;
use crate::mplex::{Mplex, MplexHandle};
use crate::muxer::{self, MAX_STREAMS, MuxerHandle};
use crate::negotiate::{NegotiateError, Negotiated};
use crate::stream::{Held, RawStream, Stream};

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC version 1.
    Quic,
    /// TCP with this secure channel and this muxer.
    Tcp(Security, Muxer),
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic-v1",
            Self::Tcp(Security::Noise, Muxer::Yamux) => "tcp, noise, yamux",
            Self::Tcp(Security::Tls, Muxer::Yamux) => "tcp, tls, yamux",
            Self::Tcp(Security::Noise, Muxer::Mplex) => "tcp, noise, mplex",
            Self::Tcp(Security::Tls, Muxer::Mplex) => "tcp, tls, mplex",
        })
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// A number that no other connection of this host has.
    pub id: ConnId,
    /// The peer, whose identity it proved.
    pub peer: HostAddr,
    /// The place of the peer.
    pub remote: Multiaddr,
    /// The transport.
    pub transport: Transport,
    /// Whether this host dialled it.
    pub is_dialled: bool,
    /// The time since it was established.
    pub age: Duration,
    /// Number of open streams, in both directions. 0 in events.
    pub streams: usize,
    /// The reasons for which it is open. Empty in events.
    pub reasons: Vec<OpenReason>,
}

/// Opens streams.
pub(crate) enum Opener {
    Quic(quinn::Connection),
    Yamux(MuxerHandle),
    Mplex(MplexHandle),
}

/// Accepts streams, and moves them where the muxer is part of this process.
pub(crate) enum Acceptor {
    Quic(quinn::Connection),
    Yamux(Box<muxer::Muxer>),
    Mplex(Box<Mplex>),
}

pub(crate) struct Connection {
    pub(crate) info: ConnectionInfo,
    pub(crate) key: PublicKey,
    opener: Opener,
    /// Keeps the address of a peer in a swarm below.
    _lease: Option<Lease>,
    /// Streams over TCP that this host opened: beyond the limit callers wait. Over QUIC the peer sets the limit.
    opened: Arc<Semaphore>,
    /// Streams of the peer that handlers of the program hold, and that built-in protocols hold.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) reserved: Arc<Semaphore>,
    /// What the peer said of itself last.
    pub(crate) info_of_peer: Mutex<Option<Info>>,
    /// When it was established, by the clock of the host.
    pub(crate) since: Duration,
    /// The swarms and protocols that keep it open.
    pub(crate) kept_by: Mutex<Vec<Arc<str>>>,
    host: Weak<Shared>,
    /// Tells the task of the connection to close it.
    closing: Notify,
    /// Why it ended, as the transport says.
    end: OnceLock<Box<str>>,
    /// Held while the peer is asked: peers permit one stream for identify, and js-libp2p resets a second one.
    pub(crate) identifying: tokio::sync::Mutex<()>,
}

/// Maximum number of streams of one connection over TCP that this host opens.
const OPENED: usize = MAX_STREAMS / 2;
/// Maximum number of streams of one connection that ping, identify and the like hold.
const RESERVED: usize = 8;

/// The reason for which a stream could not be opened.
pub(crate) enum OpenError {
    /// The connection has ended.
    Lost(io::Error),
    /// The peer permits no further stream in time.
    NoRoom,
    /// The negotiation failed.
    Negotiation(NegotiateError),
    /// The peer did not answer in time.
    NoAnswer,
}

impl Connection {
    pub(crate) fn new(
        info: ConnectionInfo,
        key: PublicKey,
        opener: Opener,
        lease: Option<Lease>,
        host: &Arc<Shared>,
    ) -> Self {
        Self {
            since: host.now(),
            kept_by: Mutex::default(),
            host: Arc::downgrade(host),
            closing: Notify::new(),
            end: OnceLock::new(),
            info,
            key,
            opener,
            _lease: lease,
            opened: Arc::new(Semaphore::new(OPENED)),
            streams: Arc::new(Semaphore::new(host.config.max_streams)),
            reserved: Arc::new(Semaphore::new(RESERVED)),
            info_of_peer: Mutex::new(None),
            identifying: tokio::sync::Mutex::new(()),
        }
    }

    async fn raw(&self) -> io::Result<(RawStream, Option<OwnedSemaphorePermit>)> {
        match &self.opener {
            Opener::Quic(connection) => Ok((RawStream::quic(connection.open_bi().await?), None)),
            Opener::Yamux(muxer) => {
                // The semaphore is never closed.
                let permit = self.opened.clone().acquire_owned().await.ok();
                Ok((muxer.open().await?.into(), permit))
            }
            Opener::Mplex(mplex) => {
                let permit = self.opened.clone().acquire_owned().await.ok();
                Ok((RawStream::Mplex(mplex.open()?), permit))
            }
        }
    }

    async fn unnegotiated(
        &self,
        limit: Duration,
    ) -> Result<(Negotiated<RawStream>, Option<OwnedSemaphorePermit>), OpenError> {
        match timeout(limit, self.raw()).await {
            Ok(Ok((raw, permit))) => Ok((Negotiated::new(raw), permit)),
            Ok(Err(error)) => Err(OpenError::Lost(error)),
            Err(_) => Err(OpenError::NoRoom),
        }
    }

    /// Opens a stream, and negotiates the first of `protocols` that the peer supports.
    pub(crate) async fn open(
        self: &Arc<Self>,
        protocols: &[&str],
        limit: Duration,
    ) -> Result<Stream, OpenError> {
        let (mut stream, permit) = self.unnegotiated(limit).await?;
        match timeout(limit, stream.dial(protocols)).await {
            Ok(Ok(index)) => {
                let protocol = protocols.get(index).copied().unwrap_or_default();
                Ok(self.stream(stream, protocol.into(), permit))
            }
            Ok(Err(error)) => Err(OpenError::Negotiation(error)),
            Err(_) => Err(OpenError::NoAnswer),
        }
    }

    /// Opens a stream for one protocol, and leaves the peer's answer to the first read.
    pub(crate) async fn open_lazily(
        self: &Arc<Self>,
        protocol: Arc<str>,
        limit: Duration,
    ) -> Result<Stream, OpenError> {
        let (mut stream, permit) = self.unnegotiated(limit).await?;
        match timeout(limit, stream.dial_lazily(protocol.clone())).await {
            Ok(Ok(())) => Ok(self.stream(stream, protocol, permit)),
            Ok(Err(NegotiateError::Io(error))) => Err(OpenError::Lost(error)),
            Ok(Err(error)) => Err(OpenError::Negotiation(error)),
            Err(_) => Err(OpenError::NoRoom),
        }
    }

    /// Returns the connection of QUIC, if it is one.
    pub(crate) fn quic(&self) -> Option<&quinn::Connection> {
        match &self.opener {
            Opener::Quic(connection) => Some(connection),
            Opener::Yamux(_) | Opener::Mplex(_) => None,
        }
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_ended(&self) -> bool {
        match &self.opener {
            Opener::Quic(connection) => connection.close_reason().is_some(),
            Opener::Yamux(muxer) => muxer.is_ended(),
            Opener::Mplex(mplex) => mplex.is_ended(),
        }
    }

    /// Returns a negotiated stream, which counts as a reason to keep the connection open.
    pub(crate) fn stream(
        self: &Arc<Self>,
        inner: Negotiated<RawStream>,
        protocol: Arc<str>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Stream {
        let counted = self.host.upgrade().map(|host| host.count_stream(self, &protocol));
        let held = Held {
            permit,
            _counted: counted,
        };
        Stream::new(inner, protocol, self.info.peer.clone(), held)
    }

    /// Closes the connection; its streams end.
    pub(crate) fn close(&self) {
        match &self.opener {
            Opener::Quic(connection) => connection.close(VarInt::from_u32(0), b""),
            Opener::Yamux(_) | Opener::Mplex(_) => self.closing.notify_one(),
        }
    }

    /// Waits until [`close`](Self::close) was called, where the task of the connection has to end it.
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Records why the connection ended; the first reason stays.
    pub(crate) fn set_end(&self, detail: Box<str>) {
        // Fails only where there is a reason already.
        let _ = self.end.set(detail);
    }

    /// Returns why the connection ended: what the transport says, or the reason of the connection manager.
    pub(crate) fn detail(&self, reason: CloseReason) -> Box<str> {
        let known = self.end.get().cloned();
        known.unwrap_or_else(|| reason.to_string().into())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl Acceptor {
    /// Closes the connection after what was written.
    pub(crate) async fn close(&mut self) {
        match self {
            Self::Quic(connection) => connection.close(VarInt::from_u32(0), b""),
            Self::Yamux(muxer) => muxer.close().await,
            Self::Mplex(mplex) => mplex.close().await,
        }
    }

    /// Waits for a stream of the peer; returns the reason when the connection has ended.
    pub(crate) async fn accept(&mut self) -> Result<RawStream, End> {
        match self {
            Self::Quic(connection) => match connection.accept_bi().await {
                Ok(streams) => Ok(RawStream::quic(streams)),
                Err(error) => Err(End::from(&error)),
            },
            Self::Yamux(muxer) => match muxer.accept().await {
                Some(Ok(stream)) => Ok(stream.into()),
                Some(Err(error)) => Err(End::from(&error)),
                None => Err(End::new(CloseReason::Remote, "the peer closed the connection")),
            },
            Self::Mplex(mplex) => match mplex.accept().await {
                Some(Ok(stream)) => Ok(RawStream::Mplex(stream)),
                Some(Err(error)) => Err(End::from(&error)),
                None => Err(End::new(CloseReason::Remote, "the peer closed the connection")),
            },
        }
    }
}

impl OpenError {
    /// Converts it to the error of a call that concerned `addr`.
    pub(crate) fn into_error(self, addr: &HostAddr, limit: Duration) -> Error {
        match self {
            Self::Lost(error) => Error::unreachable(addr, format!("the connection has ended: {error}")),
            Self::Negotiation(error) => Error::unreachable(addr, error.to_string()),
            Self::NoRoom => Error::TimedOut {
                doing: "waiting for the peer to permit another stream",
                limit,
            },
            Self::NoAnswer => Error::TimedOut {
                doing: "negotiating the protocol of a stream",
                limit,
            },
        }
    }
}
