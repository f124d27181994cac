//! Addresses of simulated nodes.

use std::fmt;
use std::str::FromStr;

use p2p::{Addr, Error};

/// The address of a simulated node: its index, in the order in which the nodes were added.
///
/// Its text is `sim:` and the index in decimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimAddr(pub u32);

impl SimAddr {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Addr for SimAddr {}

impl fmt::Display for SimAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sim:{}", self.0)
    }
}

impl FromStr for SimAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(digits) = text.strip_prefix("sim:") else {
            return Err(Error::addr(text, 0, "a simulated address must begin with `sim:`"));
        };
        let index = digits
            .parse()
            .map_err(|_| Error::addr(text, 4, "the index of a node must be a decimal number below 2^32"))?;
        // One canonical text: no sign and no leading zeros.
        if SimAddr(index).to_string() == text {
            Ok(SimAddr(index))
        } else {
            Err(Error::addr(
                text,
                4,
                "an index must not have a sign or leading zeros",
            ))
        }
    }
}
