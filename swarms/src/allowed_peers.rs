//! The peers that may have a session with a node of a secure layer.

use std::sync::Arc;

use p2p::PeerId;

/// Decides which peers may have a session; see [`P2pkeConfig::allow`](crate::P2pkeConfig::allow) and
/// [`QuicConfig::allow`](crate::QuicConfig::allow).
pub type Allow = Arc<dyn Fn(&PeerId) -> bool + Send + Sync>;

/// The decision of a configuration, in which every peer may have a session if nothing decides.
pub(crate) trait Permits {
    /// Returns whether `peer` may have a session. Calls the caller's function, so no lock may be held that it could need.
    fn permits(&self, peer: &PeerId) -> bool;
}

impl Permits for Option<Allow> {
    fn permits(&self, peer: &PeerId) -> bool {
        self.as_ref().is_none_or(|allow| allow(peer))
    }
}
