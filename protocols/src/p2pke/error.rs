//! What can be wrong with a packet or with the other side.

use p2p::Reason;
use p2p_formats::x509::KeyError;

/// Why a packet was dropped, or why there is no session. State never changes with an error, unless a variant
/// says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The packet is not one of this protocol.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// The hello is of another version of the protocol.
    #[error("the peer speaks version {0} of P2PKE; this is version 1")]
    Version(u32),
    /// The key in a handshake message, or its signature, is not good.
    #[error("the peer's key was not accepted")]
    Key(#[from] KeyError),
    /// The ephemeral key of a handshake message is a point of low order.
    #[error("the peer's ephemeral key is of low order")]
    LowOrder,
    /// The peer proved a key, and it is not the one that was expected.
    #[error("another peer answers at this address")]
    WrongPeer,
    /// The allow-list refuses this peer.
    #[error("the peer is not allowed here")]
    Denied,
    /// The hello is not newer than the last one that led to a session: it is a replay.
    #[error("the hello is not newer than the last one")]
    Stale,
    /// Both sides have sent a hello, and this side's goes first.
    #[error("both sides opened at once, and this side's hello goes first")]
    Superseded,
    /// The handshake message is for no session that is waiting for it.
    #[error("no session waits for this handshake message")]
    Unexpected,
    /// Data came before the session was established.
    #[error("data came before the handshake was done")]
    EarlyData,
    /// The packet is by nobody who holds a key of a live session.
    #[error("the packet does not authenticate")]
    Unauthenticated,
    /// The packet was here before, or is older than the replay window.
    #[error("the packet was here before, or came too late")]
    Replayed,
    /// The session is too old to be used. Open another one.
    #[error("the session has expired")]
    Expired,
    /// The session has sent all the messages that its counter can count. Open another one.
    #[error("the session has exceeded its message limit")]
    Exhausted,
    /// Nothing authentic came for so long that the peer may have forgotten the session. Open another one.
    #[error("the peer has been silent for too long")]
    Silent,
    /// No session is established.
    #[error("no session is established")]
    NoSession,
    /// The handshake went unanswered until its end. The channel may be opened again.
    #[error("the handshake went unanswered")]
    TimedOut,
    /// Too many hellos come from this source, or from everywhere.
    #[error("too many hellos")]
    RateLimited,
    /// As many channels exist as are allowed.
    #[error("as many channels exist as are allowed")]
    Full,
}

impl Error {
    /// The reason under which a packet that met this error is counted as dropped.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Malformed(_) | Error::Version(_) => Reason::Malformed,
            Error::Key(_) | Error::LowOrder | Error::WrongPeer | Error::Unauthenticated => {
                Reason::Unauthenticated
            }
            Error::Denied => Reason::Denied,
            Error::Stale | Error::Superseded | Error::Replayed => Reason::Duplicate,
            Error::Unexpected | Error::EarlyData | Error::NoSession | Error::Silent => Reason::NoPeer,
            Error::Expired | Error::Exhausted | Error::TimedOut => Reason::Expired,
            Error::RateLimited | Error::Full => Reason::Budget,
        }
    }
}
