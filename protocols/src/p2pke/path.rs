//! The keys of a channel at one moment, for sealing and opening data.
//!
//! A driver keeps one for each peer beside the channel, and sends and receives data with it, without the
//! channel's lock. The channel returns a new one whenever its keys change.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Packet, PeerId};
use p2p_formats::x509::PublicKey;

use super::Error;
use super::transport::{Sealed, Transport, data_counter};

/// The peer of a channel and the keys for its data, at one moment. Immutable, and shareable between threads.
#[derive(Debug)]
pub struct DataPath {
    pub(super) peer: PeerId,
    pub(super) key: PublicKey,
    pub(super) current: Arc<Transport>,
    /// The previous session, for packets in flight, and a pending one that the peer may use first.
    pub(super) others: Vec<Arc<Transport>>,
}

/// Packets up to this size in bytes are saved on the stack while several keys are tried.
const SAVED: usize = 2048;

impl DataPath {
    /// Returns the peer's id.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Returns the peer's public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the expiry of the newest keys: they seal and open up to and including this time.
    pub fn expires(&self) -> Duration {
        self.current.expires()
    }

    /// Seals a packet in place with the newest keys; see [`Transport::seal`].
    pub fn seal(&self, now: Duration, packet: &mut Packet) -> Result<Sealed, Error> {
        self.current.seal(now, packet)
    }

    /// Opens a data packet in place, with the keys of any session of the path.
    ///
    /// # Errors
    /// [`Unexpected`](Error::Unexpected) for a handshake message, which must be passed unchanged to
    /// [`Channel::handle`](super::Channel::handle). After any other error, drop the packet; its bytes are
    /// undefined.
    pub fn open(&self, now: Duration, packet: &mut Packet) -> Result<(), Error> {
        if self.others.is_empty() {
            return self.current.open(now, packet);
        }
        data_counter(packet)?;
        // A failed decryption leaves undefined bytes, so the packet is restored before the next attempt.
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
            // A replay in one session may be new in another; otherwise `Replayed` is the more specific error.
            if !(last == Err(Error::Unauthenticated) && result == Err(Error::Replayed)) {
                result.clone_from(&last);
            }
        }
        result
    }
}
