//! A found node: its id, and the addresses that it announces.

use std::collections::BTreeSet;

use p2p::PeerId;

use crate::{Error, Result};

/// Maximum number of addresses of one node.
pub const MAX_ADDRS: usize = 16;
/// Maximum length of an address in bytes: with its key it fits into one string of a TXT record (RFC 6763,
/// section 6.1).
pub const MAX_ADDR: usize = 240;

/// A node with the addresses that it announces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its id.
    pub id: PeerId,
    /// Its addresses.
    pub addrs: Addrs,
}

/// The addresses of one node as texts, the best first: 1 to [`MAX_ADDRS`] different addresses of 1 to
/// [`MAX_ADDR`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addrs(Vec<Box<str>>);

impl Addrs {
    /// Creates a list of these addresses; duplicates are removed.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if there are none or too many, or one is empty, too long, or has control
    /// characters.
    pub fn new<T: ToString>(addrs: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut known = Self(Vec::new());
        for addr in addrs {
            known.push(&addr.to_string())?;
        }
        if known.0.is_empty() {
            return Err(Error::invalid("addresses", "the list is empty"));
        }
        Ok(known)
    }

    /// Parses addresses separated by line feeds, which no address contains.
    pub(crate) fn from_lines(text: &str) -> Result<Self> {
        Self::new(text.split('\n'))
    }

    pub(crate) fn to_lines(&self) -> String {
        self.0.join("\n")
    }

    fn push(&mut self, addr: &str) -> Result<()> {
        let at = self.0.len();
        if addr.is_empty() || addr.len() > MAX_ADDR {
            let reason = format!(
                "number {at} has {} bytes; 1 to {MAX_ADDR} are allowed",
                addr.len()
            );
            return Err(Error::invalid("addresses", reason));
        }
        if let Some((byte, c)) = addr.char_indices().find(|(_, c)| c.is_control()) {
            let reason = format!("number {at} has the control character {c:?} at byte {byte}");
            return Err(Error::invalid("addresses", reason));
        }
        if self.0.iter().any(|known| **known == *addr) {
            return Ok(());
        }
        if at == MAX_ADDRS {
            let reason = format!("there are more than {MAX_ADDRS}");
            return Err(Error::invalid("addresses", reason));
        }
        self.0.push(addr.into());
        Ok(())
    }

    /// Merges the addresses of one node from several sources, those of the first source in front. If there
    /// are too many, each source in turn contributes one, so that no source displaces another. Returns `None`
    /// without sources.
    pub(crate) fn merged(said: &[&Self]) -> Option<Self> {
        let chosen: BTreeSet<&str> = in_turn([], said).into_iter().collect();
        let mut merged = Self(Vec::with_capacity(chosen.len()));
        for addr in said
            .iter()
            .flat_map(|addrs| addrs.iter())
            .filter(|addr| chosen.contains(addr))
        {
            // The addresses were checked, and there is room.
            drop(merged.push(addr));
        }
        (!merged.0.is_empty()).then_some(merged)
    }

    /// Returns the addresses, the best first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|addr| &**addr)
    }
}

/// Returns at most [`MAX_ADDRS`] different addresses: `first`, then one of each source in turn.
pub(crate) fn in_turn<'a>(first: impl IntoIterator<Item = &'a str>, said: &[&'a Addrs]) -> Vec<&'a str> {
    let in_turn = (0..MAX_ADDRS).flat_map(|at| said.iter().filter_map(move |addrs| addrs.iter().nth(at)));
    let mut known = BTreeSet::new();
    let all = first
        .into_iter()
        .chain(in_turn)
        .filter(|addr| known.insert(*addr));
    all.take(MAX_ADDRS).collect()
}
