//! The rules of one network, which its engines share: limits, parsing of addresses, and validation of
//! records.

use std::fmt;

use super::Validator;

/// Parses the text of an address.
type Parse<A> = dyn Fn(&str) -> Option<A> + Send + Sync;

/// The rules of one network, which its engines share. `C` is their configuration.
pub struct Rules<A, C> {
    pub(crate) config: C,
    pub(crate) parse: Box<Parse<A>>,
    pub(crate) validator: Box<dyn Validator>,
}

/// The configuration of an engine: limits, intervals and policies.
pub trait EngineConfig: Sized {
    /// Clamps every number to its valid range.
    #[must_use]
    fn clamped(self) -> Self;
}

impl<A, C: EngineConfig> Rules<A, C> {
    /// Creates the rules. `parse` parses the text of an address, as a swarm's `parse_addr` does; `validator`
    /// accepts or rejects records. The numbers of the configuration are clamped to their valid ranges.
    pub fn new(
        config: C,
        parse: impl Fn(&str) -> Option<A> + Send + Sync + 'static,
        validator: impl Validator + 'static,
    ) -> Self {
        Self {
            config: config.clamped(),
            parse: Box::new(parse),
            validator: Box::new(validator),
        }
    }
}

impl<A, C> Rules<A, C> {
    /// Returns the configuration, with all numbers clamped to their valid ranges.
    pub fn config(&self) -> &C {
        &self.config
    }
}

impl<A, C: fmt::Debug> fmt::Debug for Rules<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
