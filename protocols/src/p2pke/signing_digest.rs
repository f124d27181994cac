//! Signing digests: a signature covers the `BLAKE2Xb` digest of a message and its purpose.
//!
//! So a signature for one purpose is invalid for another. The digest is `BLAKE2Xb` with 64 bytes of output,
//! which differs from BLAKE2b-512: `BLAKE2X` hashes the root hash again with another parameter block. Source:
//! Jean-Philippe Aumasson, Samuel Neves, Zooko Wilcox-O'Hearn, Christian Winnerlein, "BLAKE2X".

use blake2b_simd::{OUTBYTES, Params};
use p2p_formats::x509::{KeyError, Signer, Verifier};

/// The purpose of the signature of a hello's time stamp.
pub(super) const TIMESTAMP: &str = "p2pke/timestamp";
/// The purpose of the signatures of the handshake hash.
pub(super) const CHANNEL_BINDING: &str = "p2pke/channel-binding";

/// The output length in the node offset of every parameter block.
const XOF_LENGTH: u64 = (OUTBYTES as u64) << 32;

/// Returns the 64-byte signing digest of `message` for `purpose`, which has at most 255 bytes.
pub(super) fn signing_digest(purpose: &str, message: &[u8]) -> [u8; OUTBYTES] {
    debug_assert!(u8::try_from(purpose.len()).is_ok());
    let root = Params::new()
        .node_offset(XOF_LENGTH)
        .to_state()
        .update(&[purpose.len() as u8])
        .update(purpose.as_bytes())
        .update(message)
        .finalize();
    let expanded = Params::new()
        .fanout(0)
        .max_depth(0)
        .max_leaf_length(OUTBYTES as u32)
        .node_offset(XOF_LENGTH)
        .inner_hash_length(OUTBYTES)
        .hash(root.as_bytes());
    *expanded.as_array()
}

/// Signs `message` for `purpose`.
pub(super) fn sign(signer: &dyn Signer, purpose: &str, message: &[u8]) -> Vec<u8> {
    signer.sign(&signing_digest(purpose, message))
}

/// Verifies a signature of `message` for `purpose`.
pub(super) fn verify(
    verifier: &dyn Verifier,
    purpose: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), KeyError> {
    verifier.verify(&signing_digest(purpose, message), signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn hex(value: &Value) -> Vec<u8> {
        let hex = value.as_str().expect("a string");
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
            .collect()
    }

    #[test]
    fn digests_equal_the_recorded_ones() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/p2pke_v1.json")).expect("JSON");
        let cases = vectors["presig_cases"].as_array().expect("cases");
        let mut checked = 0;
        // The last case has a purpose of 256 bytes, which no caller here has.
        for case in cases.iter().filter(|case| case["purpose"].is_string()) {
            let purpose = case["purpose"].as_str().expect("a string");
            assert_eq!(
                signing_digest(purpose, &hex(&case["message"]))[..],
                hex(&case["digest64"])
            );
            checked += 1;
        }
        assert_eq!(checked, cases.len() - 1);
    }
}
