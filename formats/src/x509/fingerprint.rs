//! Fingerprints: the 32-byte ids of public keys.

use p2p::PeerId;
use sha3::digest::{ExtendableOutput, FixedOutput, Update, XofReader};
use sha3::{Sha3_256, Shake256};

use super::PublicKey;

/// A function from a public key to its owner's id. Nodes must use the same one to agree on ids.
pub type Fingerprint = fn(&PublicKey) -> PeerId;

/// Returns SHAKE256 of the canonical `SubjectPublicKeyInfo` with 32 bytes of output: the id in P2PKE swarms.
pub fn shake256(key: &PublicKey) -> PeerId {
    let mut hash = Shake256::default();
    hash.update(key.as_der());
    let mut id = [0; 32];
    hash.finalize_xof().read(&mut id);
    PeerId::new(id)
}

/// Returns SHA3-256 of the canonical `SubjectPublicKeyInfo`: the id in QUIC swarms.
pub fn sha3_256(key: &PublicKey) -> PeerId {
    let mut hash = Sha3_256::default();
    hash.update(key.as_der());
    PeerId::new(hash.finalize_fixed().into())
}
