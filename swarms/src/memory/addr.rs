//! Addresses and keys of memory swarms.

use std::fmt;
use std::str::FromStr;

use p2p::{Addr, Error, Result};

/// The address of a node in a [`MemoryRealm`](super::MemoryRealm): a number in decimal text form.
///
/// Parsing accepts what other implementations accept: a sign and leading zeros, but no spaces, underscores or
/// other bases. The text form contains neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryAddr(i64);

impl MemoryAddr {
    /// Creates the address with this number.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// Returns the key of the node at this address.
    pub(super) fn key(self) -> MemoryKey {
        let mut key = *b"no security: memory node\0\0\0\0\0\0\0\0";
        let (_, number) = key.split_at_mut(24);
        number.copy_from_slice(&self.0.to_be_bytes());
        MemoryKey(key)
    }
}

impl Addr for MemoryAddr {}

impl fmt::Display for MemoryAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MemoryAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = text.len() - digits.len();
            match digits.find(|c: char| !c.is_ascii_digit()) {
                Some(at) => Error::addr(text, sign + at, "expected a decimal digit"),
                None if digits.is_empty() => Error::addr(text, sign, "expected a decimal number"),
                None => Error::addr(text, sign, "the number does not fit into 64 bits"),
            }
        })
    }
}

/// The public key of a memory node. **It provides no security**: the key is derived from the address, nothing
/// is signed, and any node that opens the address has the key.
///
/// It is consistent, which is what layers under test need: one node has one key, two nodes have two keys, and
/// [`lookup_public_key`](p2p::SecureSwarm::lookup_public_key) returns what
/// [`public_key`](p2p::SecureSwarm::public_key) returns at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryKey([u8; 32]);

impl AsRef<[u8]> for MemoryKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
