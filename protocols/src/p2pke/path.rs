//! What a driver seals and opens data with: the keys of a channel at one moment.
//!
//! A driver keeps one for each peer beside the channel and sends and receives data with it alone, without the
//! channel's lock. The channel hands out a new one whenever its keys change.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Packet, PeerId};
use p2p_formats::x509::PublicKey;

use super::Error;
use super::transport::{Sealed, Transport, data_counter};

/// Whose data a channel carries at the moment, and the keys for it. Immutable; share it as you like.
#[derive(Debug)]
pub struct DataPath {
    pub(super) peer: PeerId,
    pub(super) key: PublicKey,
    pub(super) current: Arc<Transport>,
    /// The session before, for packets that were on their way; and the one that the peer may be first to use.
    pub(super) others: Vec<Arc<Transport>>,
}

/// Packets up to this size are saved on the stack while several keys are tried on them.
const SAVED: usize = 2048;

impl DataPath {
    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The public key of who is at the other end.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// When the newest keys end: they seal and open up to and including this moment.
    pub fn expires(&self) -> Duration {
        self.current.expires()
    }

    /// Seals a packet in place with the newest keys; see [`Transport::seal`].
    pub fn seal(&self, now: Duration, packet: &mut Packet) -> Result<Sealed, Error> {
        self.current.seal(now, packet)
    }

    /// Opens a data packet in place with whichever keys it was sealed.
    ///
    /// # Errors
    /// [`Unexpected`](Error::Unexpected) for a handshake message, which goes to
    /// [`Channel::handle`](super::Channel::handle) as it is; any other means that the packet is to be dropped,
    /// and its bytes are undefined.
    pub fn open(&self, now: Duration, packet: &mut Packet) -> Result<(), Error> {
        if self.others.is_empty() {
            return self.current.open(now, packet);
        }
        data_counter(packet)?;
        // A cipher that does not authenticate leaves rubbish behind, so the packet is put back for the next.
        let mut stack = [0; SAVED];
        let mut heap = Vec::new();
        let saved: &[u8] = if let Some(saved) = stack.get_mut(..packet.len()) {
            saved.copy_from_slice(packet);
            saved
        } else {
            heap.extend_from_slice(packet);
            &heap
        };
        let mut result = self.current.open(now, packet);
        let mut last = result.clone();
        for transport in &self.others {
            if last.is_ok() {
                break;
            }
            if last == Err(Error::Unauthenticated) {
                packet.grow_front(saved.len().saturating_sub(packet.len()));
                packet.copy_from_slice(saved);
            }
            last = transport.open(now, packet);
            // What is a replay to one session may be new to another; otherwise it stays the more telling error.
            if !(last == Err(Error::Unauthenticated) && result == Err(Error::Replayed)) {
                result.clone_from(&last);
            }
        }
        result
    }
}
