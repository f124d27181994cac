//! `ID@inner`: where a node is, and who must be there.

use std::fmt;
use std::net::SocketAddr;

use p2p::{Addr, Error, PeerId, Result};

/// An address of the swarm below, and the identity that a secure swarm proves behind it.
///
/// Its text is the [`PeerId`], an `@`, and the inner address, which may itself contain more of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyAddr<A> {
    /// Who must be there.
    pub id: PeerId,
    /// Where that is.
    pub addr: A,
}

impl<A> KeyAddr<A> {
    /// `id` at `addr`.
    pub fn new(id: PeerId, addr: A) -> Self {
        Self { id, addr }
    }

    /// Parses `ID@inner`, where `parse_inner` parses what stands behind the first `@`.
    ///
    /// # Errors
    /// [`Error::InvalidAddr`], whose position is one in the whole of `text`.
    pub fn parse(text: &str, parse_inner: impl FnOnce(&str) -> Result<A>) -> Result<Self> {
        let Some((id, inner)) = text.split_once('@') else {
            return Err(Error::addr(
                text,
                text.len(),
                "a peer id, an @ and an inner address were expected, and there is no @",
            ));
        };
        let id_len = id.len();
        let id = id.parse().map_err(|error| shift(error, text, 0))?;
        let addr = parse_inner(inner).map_err(|error| shift(error, text, id_len + 1))?;
        Ok(Self { id, addr })
    }
}

/// The same error, told of the text around what the inner parser saw.
fn shift(error: Error, text: &str, by: usize) -> Error {
    match error {
        Error::InvalidAddr { at, reason, .. } => Error::addr(text, at + by, reason),
        other => other,
    }
}

impl<A: fmt::Display> fmt::Display for KeyAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.addr)
    }
}

impl<A: Addr> Addr for KeyAddr<A> {
    fn peer_id(&self) -> Option<PeerId> {
        Some(self.id)
    }
    fn socket_addr(&self) -> Option<SocketAddr> {
        self.addr.socket_addr()
    }
}
