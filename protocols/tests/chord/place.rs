//! Addresses that authenticate ids, for tests of one engine.

#![allow(
    dead_code,
    reason = "each test crate that includes this module uses a part of it"
)]

use std::fmt;
use std::sync::Arc;

use p2p::{Addr, PeerId};
use p2p_protocols::chord::wire::{Answer, Ask, Message, Node};
use p2p_protocols::chord::{Config, Engine, RequestTransmit, Rules, Validator};
use p2p_protocols::overlay::Key;

/// The address of a node. Its id follows from its number, as it would from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(pub(crate) u16);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Addr for Place {
    fn peer_id(&self) -> Option<PeerId> {
        Some(id(self.0))
    }
}

/// Returns the id that starts with this number: 0x8000 is opposite to 0.
pub(crate) fn id(number: u16) -> PeerId {
    key(u32::from(number) << 16)
}

/// Returns the key that starts with this number.
pub(crate) fn key(number: u32) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PeerId::new(bytes)
}

/// Accepts any bytes that do not start with `BAD`; the greater value is better.
struct Greater;

pub(crate) const BAD: u8 = 0xff;

impl Validator for Greater {
    fn is_valid(&self, _: &Key, value: &[u8]) -> bool {
        value.first() != Some(&BAD)
    }

    fn supersedes(&self, _: &Key, new: &[u8], old: &[u8]) -> bool {
        new > old
    }
}

pub(crate) fn rules(config: Config) -> Arc<Rules<Place>> {
    let parse = |text: &str| text.parse().ok().map(Place);
    Arc::new(Rules::new(config, parse, Greater))
}

pub(crate) fn ask(from: u16, ask: Ask<'_>) -> Vec<u8> {
    Message::new(*id(from).as_bytes(), ask).emit()
}

pub(crate) fn answer(from: u16, answer: Answer<'_>) -> Vec<u8> {
    Message::new(*id(from).as_bytes(), answer).emit()
}

pub(crate) fn node(number: u16) -> Node<'static> {
    Node {
        id: *id(number).as_bytes(),
        addr: number.to_string().into(),
    }
}

/// Returns all requests that an engine sends.
pub(crate) fn sent<A: Addr>(engine: &mut Engine<A>) -> Vec<RequestTransmit<A>> {
    std::iter::from_fn(|| engine.poll_transmit()).collect()
}

pub(crate) fn parse(request: &[u8]) -> Ask<'_> {
    Message::parse(request).expect("engines send valid requests").body
}
