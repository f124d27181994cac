//! Tables on the way of every message.
//!
//! Keyed by chance, so that peers who do not see the hashes cannot choose keys that collide; and bounded, as everything
//! that peers can grow. That is why a hash that is several times faster than the standard library's will do.

use foldhash::fast::RandomState;

/// [`std::collections::HashMap`] with a fast hash.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// [`std::collections::HashSet`] with a fast hash.
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
