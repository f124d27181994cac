//! Validation of records by the application.

use p2p::PeerId;

use super::Key;

/// Decides which records are valid, and which of two is better. Implemented by the application.
///
/// A function of the place of a key and the value is a validator that keeps the older of two records.
pub trait Validator: Send + Sync {
    /// Returns whether `value` is valid for `key`. Called before a record is stored or returned.
    fn is_valid(&self, key: &Key, value: &[u8]) -> bool;

    /// Returns whether the valid value `new` replaces the valid value `old`. By default the older value
    /// stays.
    fn supersedes(&self, key: &Key, new: &[u8], old: &[u8]) -> bool {
        let _ = (key, new, old);
        false
    }
}

impl<F: Fn(&PeerId, &[u8]) -> bool + Send + Sync> Validator for F {
    fn is_valid(&self, key: &Key, value: &[u8]) -> bool {
        self(key.id(), value)
    }
}

impl Validator for Box<dyn Validator> {
    fn is_valid(&self, key: &Key, value: &[u8]) -> bool {
        (**self).is_valid(key, value)
    }

    fn supersedes(&self, key: &Key, new: &[u8], old: &[u8]) -> bool {
        (**self).supersedes(key, new, old)
    }
}

/// Rejects all records, for a network that only finds nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecords;

impl Validator for NoRecords {
    fn is_valid(&self, _: &Key, _: &[u8]) -> bool {
        false
    }
}
