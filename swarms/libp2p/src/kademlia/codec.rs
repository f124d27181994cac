//! The codec of `/ipfs/kad/1.0.0` for addresses of hosts, with the peer store of a host.
//!
//! The engine keeps one address of a node. All other addresses that a message names go to the peer store, where a dial
//! finds them, and a message names the addresses that the peer store has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use multiaddr::{Multiaddr, PeerId};
use p2p::Addr as _;
use p2p_protocols::kademlia::codec::{Answer, Codec, NamedNode, Request, RequestKind};
use p2p_protocols::kademlia::libp2p::{
    ConnectionType, MAX_ADDR, MAX_SENT, Message, MessageType, Peer, Record,
};
use p2p_protocols::kademlia::{Contact, Distance, Key};
use p2p_protocols::overlay::Scope;
use p2p_protocols::peers::Source;
use rand::{Rng, RngExt as _};

use crate::addr::{HostAddr, transport};
use crate::host::{Shared, may_be_named};
use crate::key::{identity, sha256};

/// Addresses of one peer that are taken from a message, and named in one.
const ADDRS: usize = 16;
/// Keys that are tried for one with a given prefix: enough for networks of 100,000 nodes.
const TRIES: usize = 1 << 14;

/// Makes the key of these bytes.
pub(super) fn key(bytes: &[u8]) -> Key {
    Key::hashed(sha256(bytes), bytes)
}

pub(super) struct HostCodec {
    host: Arc<Shared>,
    own: Key,
    /// Nodes whose addresses are remembered from one list.
    most: usize,
    /// Parts of messages that were left out: peers and addresses beyond the limits, and those that are not valid.
    pub(super) ignored: AtomicU64,
}

impl HostCodec {
    pub(super) fn new(host: Arc<Shared>, own: Key, most: usize) -> Self {
        let ignored = AtomicU64::new(0);
        Self {
            host,
            own,
            most,
            ignored,
        }
    }

    fn ignore(&self, count: usize) {
        self.ignored.fetch_add(count as u64, Relaxed);
    }

    fn read<'a>(&self, bytes: &'a [u8]) -> Option<Message<'a>> {
        match Message::read(bytes) {
            Ok(received) => {
                self.ignore(received.ignored_peers + received.ignored_addrs);
                Some(received.message)
            }
            Err(error) => {
                tracing::debug!(layer = "kad", %error, "a message is malformed");
                None
            }
        }
    }

    /// Returns the places of a peer that the node at `by` may name and this host can dial.
    fn places(&self, peer: &PeerId, named: &Peer<'_>, by: &HostAddr) -> Vec<Multiaddr> {
        let parse = |bytes: &&[u8]| Multiaddr::try_from(bytes.to_vec()).ok();
        let addrs: Vec<_> = named.addrs.iter().filter_map(parse).collect();
        let places = may_be_named(peer, by, &addrs).into_iter();
        let places: Vec<_> = places
            .filter(|place| transport(place).is_some())
            .take(ADDRS)
            .collect();
        self.ignore(named.addrs.len() - places.len());
        places
    }

    /// Returns the nodes that the node at `by` named, and remembers their places for the operation.
    fn named(&self, peers: &[Peer<'_>], by: &HostAddr) -> Vec<NamedNode<HostAddr>> {
        let mut known = Vec::new();
        let named = peers.iter().filter_map(|named| {
            let Ok(peer) = PeerId::from_bytes(named.id) else {
                self.ignore(1);
                return None;
            };
            let id = identity(&peer);
            if known.len() >= self.most {
                // The engine counts these as surplus.
                let addr = None;
                return Some(NamedNode { id, addr });
            }
            let places = self.places(&peer, named, by);
            let place = places.first().cloned().unwrap_or_else(Multiaddr::empty);
            if id != *self.own.id() {
                known.push((peer, places));
            }
            let addr = Some(HostAddr::new(peer, place));
            Some(NamedNode { id, addr })
        });
        let named = named.collect();
        self.host.remember_named(known, Source::Temporary);
        named
    }

    /// Returns what a message to `to` says of nodes.
    fn naming(&self, nodes: &[&Contact<HostAddr>], to: &HostAddr) -> Vec<Naming> {
        let naming = |contact: &&Contact<HostAddr>| {
            let peer = contact.addr.libp2p_id()?;
            let (mut places, is_connected) = self.host.confirmed_places(&peer, ADDRS);
            let place = contact.addr.place();
            if transport(place).is_some() && !places.contains(place) {
                places.push(place.clone());
            }
            places.retain(|place| Scope::may_name(to, &HostAddr::from_multiaddr(place.clone())));
            Some(Naming {
                id: peer.to_bytes(),
                addrs: places.iter().map(Multiaddr::to_vec).collect(),
                is_connected,
            })
        };
        nodes.iter().filter_map(naming).collect()
    }
}

/// What a message says of a node.
struct Naming {
    id: Vec<u8>,
    addrs: Vec<Vec<u8>>,
    is_connected: bool,
}

impl Naming {
    fn peer(&self) -> Peer<'_> {
        let addrs = self.addrs.iter().map(|addr| &addr[..]);
        Peer {
            id: &self.id,
            addrs: addrs.filter(|addr| addr.len() <= MAX_ADDR).collect(),
            connection: if self.is_connected {
                ConnectionType::Connected
            } else {
                ConnectionType::NotConnected
            },
        }
    }
}

/// Returns the longest prefix of these nodes that fits into `room` bytes.
fn within(mut room: usize, nodes: &[Naming]) -> Vec<Peer<'_>> {
    let fitting = nodes.iter().map(Naming::peer).take_while(|peer| {
        let left = room.checked_sub(peer.encoded_len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    fitting.collect()
}

/// Adds as many nodes to a message as fit into `most` bytes. Providers take half of the room at most.
fn filled<'a>(
    mut message: Message<'a>,
    nodes: &'a [Naming],
    providers: &'a [Naming],
    most: usize,
) -> Message<'a> {
    let room = most.saturating_sub(message.encoded_len());
    message.provider_peers = within(room / 2, providers);
    let room = most.saturating_sub(message.encoded_len());
    message.closer_peers = within(room, nodes);
    message
}

fn message_type(request: RequestKind) -> MessageType {
    match request {
        // The specification deprecates PING.
        RequestKind::Ping | RequestKind::FindNode => MessageType::FindNode,
        RequestKind::Get => MessageType::GetValue,
        RequestKind::Put => MessageType::PutValue,
        RequestKind::Providers => MessageType::GetProviders,
        RequestKind::Provide => MessageType::AddProvider,
    }
}

impl Codec<HostAddr> for HostCodec {
    /// A client sends requests as well. Identify tells the two apart.
    fn senders_serve(&self) -> bool {
        false
    }

    fn write_request(&self, request: &Request<'_>) -> Vec<u8> {
        let key = request.key().unwrap_or(&self.own);
        let mut message = Message::new(message_type(request.kind()), key.bytes());
        let own;
        match request {
            Request::Put { value, .. } => {
                message.record = Some(Record {
                    key: key.bytes(),
                    value,
                    time_received: b"",
                });
            }
            Request::Provide { .. } => {
                let places = self.host.local_addrs();
                own = Naming {
                    id: self.own.bytes().to_vec(),
                    addrs: places.iter().take(ADDRS).map(Multiaddr::to_vec).collect(),
                    is_connected: false,
                };
                message.provider_peers.push(own.peer());
            }
            _ => {}
        }
        message.write()
    }

    fn read_request<'a>(&self, from: &HostAddr, bytes: &'a [u8]) -> Option<(p2p::PeerId, Request<'a>)> {
        let (sender, id) = (from.libp2p_id()?, from.peer_id()?);
        let message = self.read(bytes)?;
        if message.message_type == MessageType::Ping {
            return Some((id, Request::Ping));
        }
        if message.key.is_empty() {
            return None;
        }
        let key = key(message.key);
        let request = match message.message_type {
            MessageType::Ping => Request::Ping,
            MessageType::FindNode => Request::FindNode(key),
            MessageType::GetValue => Request::Get(key),
            MessageType::GetProviders => Request::Providers(key),
            MessageType::PutValue => {
                let record = message.record.filter(|record| record.key == message.key)?;
                Request::Put {
                    key,
                    ttl: Duration::MAX,
                    value: record.value,
                }
            }
            MessageType::AddProvider => {
                let id = sender.to_bytes();
                // A node announces itself only.
                let named = message.provider_peers.iter().find(|peer| peer.id == id)?;
                let places = self.places(&sender, named, from);
                // As what it says in identify.
                self.host.remember_named([(sender, places)], Source::Connected);
                Request::Provide {
                    key,
                    ttl: Duration::MAX,
                }
            }
        };
        Some((id, request))
    }

    fn write_answer(
        &self,
        to: &HostAddr,
        request: &Request<'_>,
        answer: Answer<'_, &Contact<HostAddr>>,
        most: usize,
    ) -> Vec<u8> {
        let Some(key) = request.key() else {
            return Message::new(MessageType::Ping, b"").write();
        };
        let mut message = Message::new(message_type(request.kind()), key.bytes());
        let most = most.min(MAX_SENT);
        let record = |value| Record {
            key: key.bytes(),
            value,
            time_received: b"",
        };
        let (nodes, providers) = match answer {
            Answer::Kept => {
                // An announcement has no answer.
                let Request::Put { value, .. } = request else {
                    return Vec::new();
                };
                message.record = Some(record(value));
                (Vec::new(), Vec::new())
            }
            Answer::Pong => (Vec::new(), Vec::new()),
            Answer::Nodes(nodes) => (self.naming(&nodes, to), Vec::new()),
            Answer::Record { value, nodes, .. } => {
                let record = Some(record(value));
                let filled = Message {
                    record,
                    ..message.clone()
                };
                if filled.encoded_len() <= most {
                    message = filled;
                }
                (self.naming(&nodes, to), Vec::new())
            }
            Answer::Providers { providers, nodes } => (self.naming(&nodes, to), self.naming(&providers, to)),
        };
        filled(message, &nodes, &providers, most).write()
    }

    fn read_answer<'a>(
        &self,
        from: &HostAddr,
        request: RequestKind,
        bytes: &'a [u8],
    ) -> Option<(Contact<HostAddr>, Answer<'a, NamedNode<HostAddr>>)> {
        let peer = from.libp2p_id()?;
        let sender = Contact {
            id: identity(&peer),
            // Where the connection leads, and not where another node said that it is.
            addr: self.host.addr_of(&peer).unwrap_or_else(|| from.clone()),
        };
        // The stream ended. Otherwise an empty message would be a `PUT_VALUE` without a key.
        if bytes.is_empty() {
            return (request == RequestKind::Provide).then_some((sender, Answer::Kept));
        }
        let message = self.read(bytes)?;
        if message.message_type != message_type(request) {
            return None;
        }
        let named = |peers: &[Peer<'_>]| self.named(peers, &sender.addr);
        let answer = match request {
            RequestKind::Ping => Answer::Pong,
            RequestKind::Put | RequestKind::Provide => Answer::Kept,
            RequestKind::FindNode => Answer::Nodes(named(&message.closer_peers)),
            RequestKind::Providers => Answer::Providers {
                providers: named(&message.provider_peers),
                nodes: named(&message.closer_peers),
            },
            RequestKind::Get => match message.record {
                Some(record) => Answer::Record {
                    ttl: Duration::MAX,
                    value: record.value,
                    nodes: named(&message.closer_peers),
                },
                None => Answer::Nodes(named(&message.closer_peers)),
            },
        };
        Some((sender, answer))
    }

    /// Tries keys that are peer ids, since peers may take no other ones.
    fn random_key(&self, bits: usize, rng: &mut dyn Rng) -> Key {
        let mut best = None;
        for _ in 0..TRIES {
            // The multihash of a SHA-256 hash.
            let mut id = [0; 34];
            rng.fill(&mut id[..]);
            id[..2].copy_from_slice(&[0x12, 32]);
            let place = sha256(&id);
            let shared = Distance::between(self.own.id(), &place).shared_bits();
            if shared > bits {
                continue;
            }
            if best.is_none_or(|(most, _, _)| shared > most) {
                best = Some((shared, place, id));
            }
            if shared == bits {
                break;
            }
        }
        match best {
            Some((_, place, id)) => Key::hashed(place, id),
            None => self.own.clone(),
        }
    }
}

impl fmt::Debug for HostCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCodec")
            .field("ignored", &self.ignored)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_many_nodes_fits_into_16_kib() {
        let naming = |number: u8| Naming {
            id: vec![number; 38],
            addrs: vec![vec![number; 40]; ADDRS],
            is_connected: true,
        };
        let nodes: Vec<_> = (0..60).map(naming).collect();
        let record = Record {
            key: &[1; 100],
            value: &[2; 8 << 10],
            time_received: b"",
        };
        for record in [None, Some(record)] {
            let message = Message {
                record,
                ..Message::new(MessageType::GetProviders, &[1; 100])
            };
            let message = filled(message, &nodes, &nodes, MAX_SENT);
            let len = message.write().len();
            assert!(len <= MAX_SENT && len > MAX_SENT - 1000, "{len} bytes");
            let counts = (message.closer_peers.len(), message.provider_peers.len());
            assert!(counts.0 > 4 && counts.1 > 4, "{counts:?}");
            // The nearest are first.
            assert_eq!(message.closer_peers[1].id, nodes[1].id);
        }
    }
}
