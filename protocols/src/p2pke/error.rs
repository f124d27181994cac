//! Errors of packets and handshakes.

use p2p::DropReason;
use p2p_formats::x509::KeyError;

/// The reason for dropping a packet, or for the absence of a session. An error changes no state, unless its
/// variant says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The packet is invalid for this protocol.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// The hello has another version of the protocol.
    #[error("the peer uses version {0} of P2PKE; this is version 1")]
    Version(u32),
    /// The key or the signature in a handshake message is invalid.
    #[error("the peer's key was not accepted")]
    Key(#[from] KeyError),
    /// The ephemeral key of a handshake message is a point of low order.
    #[error("the peer's ephemeral key is of low order")]
    LowOrder,
    /// The peer proved a key other than the expected one.
    #[error("another peer answers at this address")]
    WrongPeer,
    /// The allow-list denies this peer.
    #[error("the peer is not allowed here")]
    Denied,
    /// The hello is not newer than the last one that led to a session: it is a replay.
    #[error("the hello is not newer than the last one")]
    Stale,
    /// Both sides sent a hello, and this side's has precedence.
    #[error("both sides sent a hello at once, and this side's has precedence")]
    Superseded,
    /// No session waits for this handshake message.
    #[error("no session waits for this handshake message")]
    Unexpected,
    /// Data arrived before the session was established.
    #[error("data arrived before the handshake was complete")]
    EarlyData,
    /// The packet does not authenticate under the keys of any session.
    #[error("the packet does not authenticate")]
    Unauthenticated,
    /// The packet is a replay, or older than the replay window.
    #[error("the packet is a replay, or arrived too late")]
    Replayed,
    /// The session is too old. Open another one.
    #[error("the session has expired")]
    Expired,
    /// The session has used all its counters. Open another one.
    #[error("the session has exceeded its message limit")]
    Exhausted,
    /// No authentic packet arrived for so long that the peer may have forgotten the session. Open another
    /// one.
    #[error("the peer has been silent for too long")]
    Silent,
    /// No session is established.
    #[error("no session is established")]
    NoSession,
    /// The handshake timed out. The channel may be opened again.
    #[error("the handshake went unanswered")]
    TimedOut,
    /// Too many hellos from this source, or in total.
    #[error("too many hellos")]
    RateLimited,
    /// The limit of channels is reached.
    #[error("the limit of channels is reached")]
    Full,
}

impl Error {
    /// Returns the drop reason for a packet with this error.
    pub fn reason(&self) -> DropReason {
        match self {
            Error::Malformed(_) | Error::Version(_) => DropReason::Malformed,
            Error::Key(_) | Error::LowOrder | Error::WrongPeer | Error::Unauthenticated => {
                DropReason::Unauthenticated
            }
            Error::Denied => DropReason::Denied,
            Error::Stale | Error::Superseded | Error::Replayed => DropReason::Duplicate,
            Error::Unexpected | Error::EarlyData | Error::NoSession | Error::Silent => DropReason::NoPeer,
            Error::Expired | Error::Exhausted | Error::TimedOut => DropReason::Expired,
            Error::RateLimited | Error::Full => DropReason::Budget,
        }
    }
}
