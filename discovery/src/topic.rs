//! Topics: the short names under which nodes are found.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Maximum length of a topic in bytes: it fits into one label of a DNS name (RFC 1035, section 2.3.4).
const MAX: usize = 63;

/// A name under which nodes are found: 1 to 63 lower-case letters, digits, `-`, `_` and `.`.
///
/// Upper case is not allowed, since DNS is case-insensitive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Box<str>);

impl Topic {
    /// Returns its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '_', '.'].contains(c);
        if let Some((at, c)) = text.char_indices().find(|(_, c)| !fits(c)) {
            let reason = format!("{c:?} at byte {at} is not a lower-case letter, digit, '-', '_' or '.'");
            return Err(Error::invalid("topic", reason));
        }
        if text.is_empty() || text.len() > MAX {
            let reason = format!("it has {} characters; 1 to {MAX} are allowed", text.len());
            return Err(Error::invalid("topic", reason));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0)
    }
}
