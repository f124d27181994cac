//! The description that a peer gives of itself.

use bytes::Bytes;

use super::error::KeyMismatch;

/// The description that a peer gives of itself, with the address at which it sees the other peer.
///
/// A field that is `None` or empty was not sent. All are claims of the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The peer's public key, as the protobuf of the libp2p specification (peer-ids).
    pub public_key: Option<Bytes>,
    /// Addresses at which the peer listens, as binary multiaddrs that may not parse.
    pub listen_addrs: Vec<Bytes>,
    /// Protocols for which the peer accepts streams.
    pub protocols: Vec<String>,
    /// The address of the other peer as this peer sees it, as a binary multiaddr that may not parse.
    pub observed_addr: Option<Bytes>,
    /// The family of protocols, such as `ipfs/0.1.0`. It has no effect.
    pub protocol_version: Option<String>,
    /// The implementation and its version, such as `example/1.0`.
    pub agent_version: Option<String>,
    /// The peer's addresses, signed by itself: an envelope that is not verified here.
    pub signed_peer_record: Option<Bytes>,
}

impl Info {
    /// Checks that the claimed public key, if there is one, is the one that the connection proved.
    ///
    /// # Errors
    /// [`KeyMismatch`]; the connection should then be closed.
    pub fn verify_key(&self, proven: &[u8]) -> Result<(), KeyMismatch> {
        let is_other = self.public_key.as_deref().is_some_and(|key| key != proven);
        if is_other { Err(KeyMismatch) } else { Ok(()) }
    }

    /// Applies a push: replaces the fields that it has, and keeps the others.
    ///
    /// A list that is empty in the push stays as it is, because the encoding does not tell an empty list from
    /// one that was not sent.
    pub fn update(&mut self, push: Self) {
        replace(&mut self.public_key, push.public_key);
        replace(&mut self.observed_addr, push.observed_addr);
        replace(&mut self.protocol_version, push.protocol_version);
        replace(&mut self.agent_version, push.agent_version);
        replace(&mut self.signed_peer_record, push.signed_peer_record);
        if !push.listen_addrs.is_empty() {
            self.listen_addrs = push.listen_addrs;
        }
        if !push.protocols.is_empty() {
            self.protocols = push.protocols;
        }
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}
