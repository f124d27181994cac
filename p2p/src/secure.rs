//! Swarms whose addresses are backed by keys.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{Addr, Result, Swarm};

/// A swarm that proves who sent a message.
///
/// The source of a message is who it says, a message to `ID@addr` reaches ID or nobody, and tampered or
/// replayed bytes never surface.
#[diagnostic::on_unimplemented(
    message = "no layer of `{Self}` proves identities to addresses of type `{A}`",
    label = "has no public key",
    note = "put a secure layer on top: `p2pke` over datagrams, or `quic`",
    note = "a layer above that passes no keys on hides those of the layers below it"
)]
pub trait SecureSwarm<A: Addr>: Swarm<A> {
    /// A node's public key; as bytes it is the key's one canonical encoding.
    type PublicKey: Clone + Eq + Debug + AsRef<[u8]> + Send + Sync + 'static;

    /// This node's public key.
    fn public_key(&self) -> Self::PublicKey;

    /// The public key of the node at `addr`, which may need a handshake with it.
    ///
    /// # Errors
    /// [`Unreachable`](crate::Error::Unreachable) or [`TimedOut`](crate::Error::TimedOut) if it does not prove
    /// its key in time.
    ///
    /// # Cancel safety
    /// Cancelling stops waiting; a handshake under way goes on.
    fn lookup_public_key(&self, addr: &A) -> impl Future<Output = Result<Self::PublicKey>> + Send;
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for Arc<S> {
    crate::pass_through!(*: PublicKey, public_key, lookup_public_key);
}
