//! Swarms that authenticate their addresses with public keys.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{Addr, Result, Swarm};

/// A swarm that authenticates the source of every message.
///
/// # Security
/// The source address of a message is authenticated, a message to `ID@addr` is delivered only to the node with that ID,
/// and modified or replayed bytes are never delivered.
///
/// # Example
/// ```
/// use p2p::{Addr, SecureSwarm};
///
/// async fn same_key<A: Addr>(swarm: &impl SecureSwarm<A>, a: &A, b: &A) -> p2p::Result<bool> {
///     Ok(swarm.lookup_public_key(a).await? == swarm.lookup_public_key(b).await?)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "no layer of `{Self}` proves identities to addresses of type `{A}`",
    label = "has no public key",
    note = "put a secure layer on top: `p2pke` over datagrams, or `quic`",
    note = "a layer above that passes no keys on hides those of the layers below it"
)]
pub trait SecureSwarm<A: Addr>: Swarm<A> {
    /// A node's public key. `as_ref` returns its one canonical encoding.
    type PublicKey: Clone + Eq + Debug + AsRef<[u8]> + Send + Sync + 'static;

    /// Returns this node's public key.
    fn public_key(&self) -> Self::PublicKey;

    /// Returns the public key of the node at `addr`. May perform a handshake with it.
    ///
    /// # Errors
    /// [`Unreachable`](crate::Error::Unreachable) or [`TimedOut`](crate::Error::TimedOut) if the node does
    /// not prove its key in time.
    ///
    /// # Cancel safety
    /// Cancelling ends the wait; a handshake in progress continues.
    fn lookup_public_key(&self, addr: &A) -> impl Future<Output = Result<Self::PublicKey>> + Send;
}

impl<A: Addr, S: SecureSwarm<A>> SecureSwarm<A> for Arc<S> {
    crate::pass_through!(*: PublicKey, public_key, lookup_public_key);
}
