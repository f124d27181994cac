//! The codec of this framework's networks, whose messages are those of [`wire`](super::wire).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::Rng;

use super::codec::{Answer, Codec, NamedNode, Request, RequestKind};
use super::config::{FRAME, Rules};
use super::distance::random_id;
use super::wire::{self, Ask, MAX_ADDR, Message, Node};
use crate::overlay::{Contact, Key};

/// Writes and reads the messages of [`wire`](super::wire): postcard, with addresses as text.
#[derive(Debug)]
pub struct PostcardCodec<A> {
    own: PeerId,
    rules: Arc<Rules<A>>,
}

impl<A> PostcardCodec<A> {
    /// Creates the codec of the node with this id. The rules parse addresses.
    pub fn new(own: PeerId, rules: Arc<Rules<A>>) -> Self {
        Self { own, rules }
    }

    fn named(&self, nodes: &[Node<'_>]) -> Vec<NamedNode<A>> {
        let named = |node: &Node<'_>| NamedNode {
            id: PeerId::new(node.id),
            addr: (self.rules.parse)(&node.addr),
        };
        nodes.iter().map(named).collect()
    }
}

impl<A: Addr> Codec<A> for PostcardCodec<A> {
    fn write_request(&self, request: &Request<'_>) -> Vec<u8> {
        let id = |key: &Key| *key.id().as_bytes();
        let ask = match request {
            Request::Ping => Ask::Ping,
            Request::FindNode(key) => Ask::FindNode(id(key)),
            Request::Get(key) => Ask::Get(id(key)),
            Request::Put { key, ttl, value } => Ask::Put {
                key: id(key),
                ttl: seconds(*ttl),
                value,
            },
            Request::Providers(key) => Ask::Providers(id(key)),
            Request::Provide { key, ttl } => Ask::Provide {
                key: id(key),
                ttl: seconds(*ttl),
            },
        };
        Message::new(*self.own.as_bytes(), ask).emit()
    }

    fn read_request<'a>(&self, _from: &A, bytes: &'a [u8]) -> Option<(PeerId, Request<'a>)> {
        let message = Message::<Ask<'_>>::parse(bytes)?;
        let key = |id| Key::from(PeerId::new(id));
        let lifetime = |ttl: u32| Duration::from_secs(ttl.into());
        let request = match message.body {
            Ask::Ping => Request::Ping,
            Ask::FindNode(id) => Request::FindNode(key(id)),
            Ask::Get(id) => Request::Get(key(id)),
            Ask::Put { key: id, ttl, value } => Request::Put {
                key: key(id),
                ttl: lifetime(ttl),
                value,
            },
            Ask::Providers(id) => Request::Providers(key(id)),
            Ask::Provide { key: id, ttl } => Request::Provide {
                key: key(id),
                ttl: lifetime(ttl),
            },
        };
        Some((PeerId::new(message.from), request))
    }

    fn write_answer(
        &self,
        _to: &A,
        _request: &Request<'_>,
        answer: Answer<'_, &Contact<A>>,
        most: usize,
    ) -> Vec<u8> {
        let room = most.saturating_sub(FRAME);
        let answer = match answer {
            Answer::Pong => wire::Answer::Pong,
            Answer::Kept => wire::Answer::Kept,
            Answer::Nodes(nodes) => wire::Answer::Nodes(within(room, &nodes)),
            Answer::Record { ttl, value, nodes } => match room.checked_sub(value.len()) {
                Some(room) => wire::Answer::Record {
                    ttl: seconds(ttl),
                    value,
                    nodes: within(room, &nodes),
                },
                None => wire::Answer::Nodes(within(room, &nodes)),
            },
            Answer::Providers { providers, nodes } => wire::Answer::Providers {
                providers: within(room / 2, &providers),
                nodes: within(room / 2, &nodes),
            },
        };
        let bytes = answer.estimate();
        Message::new(*self.own.as_bytes(), answer).emit_within(bytes)
    }

    fn read_answer<'a>(
        &self,
        from: &A,
        _request: RequestKind,
        bytes: &'a [u8],
    ) -> Option<(Contact<A>, Answer<'a, NamedNode<A>>)> {
        let message = Message::<wire::Answer<'_>>::parse(bytes)?;
        let answer = match message.body {
            wire::Answer::Pong => Answer::Pong,
            wire::Answer::Kept => Answer::Kept,
            wire::Answer::Nodes(nodes) => Answer::Nodes(self.named(&nodes)),
            wire::Answer::Record { ttl, value, nodes } => Answer::Record {
                ttl: Duration::from_secs(ttl.into()),
                value,
                nodes: self.named(&nodes),
            },
            wire::Answer::Providers { providers, nodes } => Answer::Providers {
                providers: self.named(&providers),
                nodes: self.named(&nodes),
            },
        };
        let sender = Contact {
            id: PeerId::new(message.from),
            addr: from.clone(),
        };
        Some((sender, answer))
    }

    fn random_key(&self, bits: usize, rng: &mut dyn Rng) -> Key {
        random_id(&self.own, bits, rng).into()
    }
}

/// Converts a duration into whole seconds, as sent on the wire.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// Returns the longest prefix of `nodes` that fits into `room` bytes. Nodes whose address is too long are left out.
fn within<A: Addr>(mut room: usize, nodes: &[&Contact<A>]) -> Vec<Node<'static>> {
    let nodes = nodes.iter().filter_map(|contact| {
        let addr = contact.addr.to_string();
        (addr.len() <= MAX_ADDR).then(|| Node {
            id: *contact.id.as_bytes(),
            addr: Cow::Owned(addr),
        })
    });
    let fitting = nodes.take_while(|node| {
        let left = room.checked_sub(node.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    fitting.collect()
}
