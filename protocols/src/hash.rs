//! Hash tables for the path of every message.
//!
//! They are seeded randomly, so that peers, which never see the hashes, cannot choose keys that collide; and
//! they are bounded, like everything that peers can grow. This allows a hash function that is several times
//! faster than the standard library's.

use foldhash::fast::RandomState;

/// [`std::collections::HashMap`] with a fast hash.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// [`std::collections::HashSet`] with a fast hash.
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
