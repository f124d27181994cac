//! The address type of secure swarms, `ID@inner`: the identity of a node, and its address below.

use std::fmt;
use std::net::SocketAddr;

use p2p::{Addr, Error, PeerId, Result};

/// An address of the swarm below with the identity that a secure swarm proves for it.
///
/// Its text is the [`PeerId`], an `@`, and the inner address, which may itself contain further `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyAddr<A> {
    /// The identity that the node must prove.
    pub id: PeerId,
    /// The address of the node in the swarm below.
    pub addr: A,
}

impl<A> KeyAddr<A> {
    /// Creates the address of the identity `id` at `addr`.
    pub fn new(id: PeerId, addr: A) -> Self {
        Self { id, addr }
    }

    /// Parses `ID@inner`; `parse_inner` parses the part behind the first `@`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAddr`] with a position in the whole of `text`.
    pub fn parse(text: &str, parse_inner: impl FnOnce(&str) -> Result<A>) -> Result<Self> {
        let Some((id, inner)) = text.split_once('@') else {
            return Err(Error::addr(
                text,
                text.len(),
                "expected a peer id, an @ and an inner address, but found no @",
            ));
        };
        let id_len = id.len();
        let id = id.parse().map_err(|error| shift(error, text, 0))?;
        let addr = parse_inner(inner).map_err(|error| shift(error, text, id_len + 1))?;
        Ok(Self { id, addr })
    }
}

/// Converts an error of the inner parser to positions in the whole text.
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
