//! What engines of one network have in common: limits, how addresses are read, which records are good.

use std::fmt;

use super::Validator;

/// Reads an address's text.
type Parse<A> = dyn Fn(&str) -> Option<A> + Send + Sync;

/// What engines of one network have in common. `C` is their configuration.
pub struct Rules<A, C> {
    pub(crate) config: C,
    pub(crate) parse: Box<Parse<A>>,
    pub(crate) validator: Box<dyn Validator>,
}

impl<A, C> Rules<A, C> {
    /// With this configuration as it is.
    pub(crate) fn with(
        config: C,
        parse: impl Fn(&str) -> Option<A> + Send + Sync + 'static,
        validator: impl Validator + 'static,
    ) -> Self {
        Self {
            config,
            parse: Box::new(parse),
            validator: Box::new(validator),
        }
    }

    /// The configuration, with its numbers in the range where they mean something.
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
