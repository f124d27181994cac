//! Addresses of gossip swarms: `topic` for all subscribers of a topic, and `topic@peer` for the source of a
//! message.

use std::fmt;
use std::net::SocketAddr;

use p2p::{Addr, Error, PeerId, Result};
use p2p_protocols::gossipsub::Topic;

/// An address of a gossip network over a swarm with addresses `A`.
///
/// Its text is the topic, followed by `@` and the peer, if there is one. In topics, `@` is escaped as `%40`
/// and `%` as `%25`; the text of the peer is not escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipAddr<A> {
    /// The topic.
    pub topic: Topic,
    /// One node of the topic; `None` addresses all subscribers.
    pub at: Option<Place<A>>,
}

/// A node of a gossip network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place<A> {
    /// The node that signs messages with the key of this id.
    Author(PeerId),
    /// Where messages are not signed: the neighbour that forwarded the message, which may not be its author.
    Neighbour(A),
}

impl<A> GossipAddr<A> {
    /// Creates the address of all subscribers of a topic.
    pub fn topic(topic: &str) -> Self {
        let topic = Topic::from(topic);
        Self { topic, at: None }
    }

    /// Creates the address of one node in a topic.
    pub fn at(topic: Topic, place: Place<A>) -> Self {
        let at = Some(place);
        Self { topic, at }
    }

    /// Parses an address whose topic has at most `max` bytes; `parse_place` parses the peer.
    ///
    /// # Errors
    /// Returns [`Error::InvalidAddr`] with a position in the whole of `text`.
    pub fn parse(text: &str, max: usize, parse_place: impl FnOnce(&str) -> Result<Place<A>>) -> Result<Self> {
        let (name, place) = match text.split_once('@') {
            Some((name, place)) => (name, Some(place)),
            None => (text, None),
        };
        let topic = unescape(name).map_err(|at| {
            let reason = "a % in a topic must be followed by 25 (for %) or 40 (for @)";
            Error::addr(text, at, reason)
        })?;
        if topic.is_empty() || topic.len() > max {
            let reason = format!("a topic must have 1 to {max} bytes, this one has {}", topic.len());
            return Err(Error::addr(text, 0, reason));
        }
        let at = place.map(|place| {
            parse_place(place).map_err(|error| match error {
                Error::InvalidAddr { at, reason, .. } => Error::addr(text, name.len() + 1 + at, reason),
                other => other,
            })
        });
        let (topic, at) = (Topic::from(&*topic), at.transpose()?);
        Ok(Self { topic, at })
    }
}

/// Unescapes a topic, or returns the position of the first invalid escape.
fn unescape(text: &str) -> Result<String, usize> {
    let mut topic = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        topic.push_str(before);
        let (escaped, after) = after
            .strip_prefix("25")
            .map(|after| ('%', after))
            .or_else(|| after.strip_prefix("40").map(|after| ('@', after)))
            .ok_or(text.len() - after.len() - 1)?;
        topic.push(escaped);
        rest = after;
    }
    topic.push_str(rest);
    Ok(topic)
}

impl<A: fmt::Display> fmt::Display for GossipAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.topic.split_inclusive(['%', '@']) {
            match part.char_indices().next_back() {
                Some((at, '%')) => write!(f, "{}%25", part.get(..at).unwrap_or_default())?,
                Some((at, '@')) => write!(f, "{}%40", part.get(..at).unwrap_or_default())?,
                _ => f.write_str(part)?,
            }
        }
        match &self.at {
            Some(place) => write!(f, "@{place}"),
            None => Ok(()),
        }
    }
}

impl<A: fmt::Display> fmt::Display for Place<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(id) => id.fmt(f),
            Self::Neighbour(addr) => addr.fmt(f),
        }
    }
}

impl<A: Addr> Addr for GossipAddr<A> {
    fn peer_id(&self) -> Option<PeerId> {
        match self.at.as_ref()? {
            Place::Author(id) => Some(*id),
            Place::Neighbour(addr) => addr.peer_id(),
        }
    }

    fn socket_addr(&self) -> Option<SocketAddr> {
        match self.at.as_ref()? {
            Place::Author(_) => None,
            Place::Neighbour(addr) => addr.socket_addr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MemoryAddr;

    fn parse(text: &str) -> Result<GossipAddr<MemoryAddr>> {
        GossipAddr::parse(text, 256, |place| place.parse().map(Place::Neighbour))
    }

    proptest! {
        #[test]
        fn parsing_is_the_inverse_of_display(topic in "[a-z%@2405 é]{1,12}", node in prop::option::of(any::<i64>())) {
            let at = node.map(|node| Place::Neighbour(MemoryAddr::new(node)));
            let addr = GossipAddr { topic: Topic::from(&*topic), at };
            prop_assert_eq!(parse(&addr.to_string()).expect("its own text"), addr);
        }

        #[test]
        fn a_parsed_topic_displays_as_its_text_and_the_whole_parses_back(text in "[a-z%@2405]{0,12}") {
            if let Ok(addr) = parse(&text) {
                let written = addr.to_string();
                // The number of a node may have leading zeros in the text; topics have exactly one text.
                prop_assert_eq!(written.split('@').next(), text.split('@').next());
                prop_assert_eq!(parse(&written).expect("its own text"), addr);
            }
        }
    }

    #[test]
    fn errors_contain_the_position() {
        for (text, position) in [("", 0), ("a%", 1), ("a%41b", 1), ("@x", 0), ("a@?", 2)] {
            match parse(text) {
                Err(Error::InvalidAddr { at, .. }) => assert_eq!(at, position, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
