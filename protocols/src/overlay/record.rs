//! Which records are good: the application knows, engines ask.

use p2p::PeerId;

/// Which records are good, and which of two is the better. The application knows.
pub trait Validator: Send + Sync {
    /// Whether `value` may stand under `key`. It is asked before anything is kept or given out.
    fn is_valid(&self, key: &PeerId, value: &[u8]) -> bool;

    /// Whether the valid value `new` takes the place of the valid value `old`. By default what came first stays.
    fn supersedes(&self, key: &PeerId, new: &[u8], old: &[u8]) -> bool {
        let _ = (key, new, old);
        false
    }
}

impl<F: Fn(&PeerId, &[u8]) -> bool + Send + Sync> Validator for F {
    fn is_valid(&self, key: &PeerId, value: &[u8]) -> bool {
        self(key, value)
    }
}

impl Validator for Box<dyn Validator> {
    fn is_valid(&self, key: &PeerId, value: &[u8]) -> bool {
        (**self).is_valid(key, value)
    }

    fn supersedes(&self, key: &PeerId, new: &[u8], old: &[u8]) -> bool {
        (**self).supersedes(key, new, old)
    }
}

/// Refuses all records: for a network that only finds nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRecords;

impl Validator for NoRecords {
    fn is_valid(&self, _: &PeerId, _: &[u8]) -> bool {
        false
    }
}
