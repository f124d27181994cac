//! The messages of libp2p's Kademlia, `/ipfs/kad/1.0.0` (libp2p specification, kad-dht, "RPC messages").
//!
//! A request and its answer are one [`Message`] each: protobuf, on a stream, behind its length as a varint, which is not
//! part of this codec. Ids and keys are bytes here, and addresses are not parsed: a [`Codec`](super::Codec) for addresses
//! of a host does that.
//!
//! Unknown fields are ignored, and so are the fields of a record that the specification has removed. Of a field that
//! occurs more than once the last one counts.
//!
//! # Limits
//! [`MAX_KEY`] bytes of a key; a longer one is an error. [`MAX_PEERS`] peers in a list and [`MAX_ADDRS`] addresses of a
//! peer, of at most [`MAX_ADDR`] bytes each: further ones are left out and counted. A parsed message borrows the bytes of
//! a received one, and its lists have at most 64 KiB. The caller limits the length of a message before it reads it.
//!
//! ```
//! use p2p_protocols::kademlia::libp2p::{Message, MessageType, Peer};
//!
//! let mut answer = Message::new(MessageType::FindNode, b"key");
//! answer.closer_peers.push(Peer { id: b"id", ..Peer::default() });
//! let bytes = answer.write();
//! assert_eq!(bytes, b"\x08\x04\x12\x03key\x42\x04\x0a\x02id");
//! assert_eq!(Message::read(&bytes)?.message, answer);
//! # Ok::<_, p2p_protocols::kademlia::libp2p::WireError>(())
//! ```

use crate::protobuf::{Field, Fields, Malformed, field_len, put_field, put_number};

/// The protocol id.
pub const PROTOCOL: &str = "/ipfs/kad/1.0.0";
/// Maximum length in bytes of a message that this side sends: rust-libp2p accepts no longer ones.
pub const MAX_SENT: usize = 16 << 10;
/// Maximum length of a key in bytes.
pub const MAX_KEY: usize = 1024;
/// Maximum length of a peer id in bytes. A longer one is an error.
pub const MAX_ID: usize = 128;
/// Maximum number of peers in a list.
pub const MAX_PEERS: usize = 64;
/// Maximum number of addresses of a peer.
pub const MAX_ADDRS: usize = 32;
/// Maximum length of an address in bytes.
pub const MAX_ADDR: usize = 512;

/// The type of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Stores a record. The answer repeats it.
    #[default]
    PutValue,
    /// Requests a record, and the peers nearest to its key.
    GetValue,
    /// Announces the sender as a provider of a key. There is no answer.
    AddProvider,
    /// Requests the providers of a key, and the peers nearest to it.
    GetProviders,
    /// Requests the peers nearest to a key.
    FindNode,
    /// Checks whether a peer is alive. Deprecated: it is answered, and not sent.
    Ping,
}

impl MessageType {
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::PutValue,
            1 => Self::GetValue,
            2 => Self::AddProvider,
            3 => Self::GetProviders,
            4 => Self::FindNode,
            5 => Self::Ping,
            _ => return None,
        })
    }
}

/// The connection of the sender with a peer that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConnectionType {
    /// None, or an unknown value.
    #[default]
    NotConnected,
    /// The sender is connected with the peer.
    Connected,
    /// The sender was connected with it a short time ago.
    CanConnect,
    /// The sender could not connect to it a short time ago.
    CannotConnect,
}

impl ConnectionType {
    fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Connected,
            2 => Self::CanConnect,
            3 => Self::CannotConnect,
            _ => Self::NotConnected,
        }
    }
}

/// A peer that a message names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer<'a> {
    /// The bytes of its peer id.
    pub id: &'a [u8],
    /// Its addresses, each a multiaddr in bytes.
    pub addrs: Vec<&'a [u8]>,
    /// The sender's connection with it.
    pub connection: ConnectionType,
}

/// A record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// When the sender received it, as it says (RFC 3339); empty if it does not say. Any bytes.
    pub time_received: &'a [u8],
}

/// A request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message<'a> {
    /// The type.
    pub message_type: MessageType,
    /// The key that the message is about; empty where there is none.
    pub key: &'a [u8],
    /// The record, in `PUT_VALUE`, and in the answer to `GET_VALUE` if the sender has one.
    pub record: Option<Record<'a>>,
    /// The peers nearest to the key.
    pub closer_peers: Vec<Peer<'a>>,
    /// The providers of the key.
    pub provider_peers: Vec<Peer<'a>>,
}

/// A message that was read, and what was left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received<'a> {
    /// The message, within the limits.
    pub message: Message<'a>,
    /// Number of peers that were left out because of [`MAX_PEERS`].
    pub ignored_peers: usize,
    /// Number of addresses that were left out because of [`MAX_ADDRS`] or [`MAX_ADDR`].
    pub ignored_addrs: usize,
}

/// The reason for which bytes are not a message. Nothing of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not protobuf, or a field has the wrong type.
    #[error("not a message of {PROTOCOL}: the field at byte {at} is malformed")]
    Malformed {
        /// Offset of the field in bytes, from the start of the message that contains it.
        at: usize,
    },
    /// The type is not known.
    #[error("{0} is not the type of a message of {PROTOCOL}")]
    UnknownType(u64),
    /// A key is too long.
    #[error("a key of {len} bytes exceeds the limit of {MAX_KEY} bytes")]
    Key {
        /// Its length in bytes.
        len: usize,
    },
    /// A peer id is too long.
    #[error("a peer id of {len} bytes exceeds the limit of {MAX_ID} bytes")]
    Id {
        /// Its length in bytes.
        len: usize,
    },
}

impl From<Malformed> for WireError {
    fn from(error: Malformed) -> Self {
        Self::Malformed { at: error.at }
    }
}

/// The numbers of the fields.
mod field {
    pub(super) const TYPE: u8 = 1;
    pub(super) const KEY: u8 = 2;
    pub(super) const RECORD: u8 = 3;
    pub(super) const CLOSER_PEERS: u8 = 8;
    pub(super) const PROVIDER_PEERS: u8 = 9;

    pub(super) const PEER_ID: u8 = 1;
    pub(super) const PEER_ADDRS: u8 = 2;
    pub(super) const PEER_CONNECTION: u8 = 3;

    pub(super) const RECORD_KEY: u8 = 1;
    pub(super) const RECORD_VALUE: u8 = 2;
    pub(super) const RECORD_TIME: u8 = 5;
}

impl<'a> Message<'a> {
    /// Creates a message about a key, without a record and peers.
    pub fn new(message_type: MessageType, key: &'a [u8]) -> Self {
        Self {
            message_type,
            key,
            ..Self::default()
        }
    }

    /// Reads a message from all of `bytes`.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(bytes: &'a [u8]) -> Result<Received<'a>, WireError> {
        let mut received = Received::default();
        for field in known(bytes) {
            let (number, field) = field?;
            match number {
                field::TYPE => {
                    let number = field.varint()?;
                    let known = MessageType::from_number(number);
                    received.message.message_type = known.ok_or(WireError::UnknownType(number))?;
                }
                field::KEY => received.message.key = key(&field)?,
                field::RECORD => received.message.record = Some(Record::read(field.bytes()?)?),
                field::CLOSER_PEERS | field::PROVIDER_PEERS => received.add_peer(number, field.bytes()?)?,
                _ => {}
            }
        }
        Ok(received)
    }

    /// Encodes the message. The caller keeps to [`MAX_SENT`]; see [`encoded_len`](Self::encoded_len).
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        put_number(&mut bytes, field::TYPE, self.message_type as u64);
        if !self.key.is_empty() {
            put_field(&mut bytes, field::KEY, self.key);
        }
        if let Some(record) = &self.record {
            put_field(&mut bytes, field::RECORD, &record.write());
        }
        let closer = self.closer_peers.iter().map(|peer| (field::CLOSER_PEERS, peer));
        let providers = self
            .provider_peers
            .iter()
            .map(|peer| (field::PROVIDER_PEERS, peer));
        for (number, peer) in closer.chain(providers) {
            put_field(&mut bytes, number, &peer.write());
        }
        bytes
    }

    /// Returns an upper bound of the encoded length in bytes.
    pub fn encoded_len(&self) -> usize {
        let record = self.record.as_ref().map_or(0, Record::encoded_len);
        let peers = self.closer_peers.iter().chain(&self.provider_peers);
        2 + field_len(self.key) + record + peers.map(Peer::encoded_len).sum::<usize>()
    }
}

impl<'a> Received<'a> {
    fn add_peer(&mut self, number: u8, bytes: &'a [u8]) -> Result<(), WireError> {
        let message = &mut self.message;
        let peers = match number {
            field::CLOSER_PEERS => &mut message.closer_peers,
            _ => &mut message.provider_peers,
        };
        if peers.len() >= MAX_PEERS {
            self.ignored_peers += 1;
            return Ok(());
        }
        let mut peer = Peer::default();
        for field in known(bytes) {
            let (number, field) = field?;
            match number {
                field::PEER_ID => {
                    peer.id = field.bytes()?;
                    let len = peer.id.len();
                    if len > MAX_ID {
                        return Err(WireError::Id { len });
                    }
                }
                field::PEER_ADDRS => {
                    let addr = field.bytes()?;
                    if peer.addrs.len() < MAX_ADDRS && addr.len() <= MAX_ADDR {
                        peer.addrs.push(addr);
                    } else {
                        self.ignored_addrs += 1;
                    }
                }
                field::PEER_CONNECTION => peer.connection = ConnectionType::from_number(field.varint()?),
                _ => {}
            }
        }
        peers.push(peer);
        Ok(())
    }
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut record = Self::default();
        for field in known(bytes) {
            let (number, field) = field?;
            match number {
                field::RECORD_KEY => record.key = key(&field)?,
                field::RECORD_VALUE => record.value = field.bytes()?,
                field::RECORD_TIME => record.time_received = field.bytes()?,
                _ => {}
            }
        }
        Ok(record)
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        for (number, value) in [
            (field::RECORD_KEY, self.key),
            (field::RECORD_VALUE, self.value),
            (field::RECORD_TIME, self.time_received),
        ] {
            if !value.is_empty() {
                put_field(&mut bytes, number, value);
            }
        }
        bytes
    }

    /// Returns an upper bound of the bytes that the record needs in a message.
    pub fn encoded_len(&self) -> usize {
        let fields = [self.key, self.value, self.time_received];
        HEADER + fields.into_iter().map(field_len).sum::<usize>()
    }
}

impl Peer<'_> {
    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        put_field(&mut bytes, field::PEER_ID, self.id);
        for addr in &self.addrs {
            put_field(&mut bytes, field::PEER_ADDRS, addr);
        }
        put_number(&mut bytes, field::PEER_CONNECTION, self.connection as u64);
        bytes
    }

    /// Returns an upper bound of the bytes that the peer needs in a message.
    pub fn encoded_len(&self) -> usize {
        let addrs = self.addrs.iter().map(|addr| field_len(addr));
        HEADER + field_len(self.id) + addrs.sum::<usize>() + 2
    }
}

/// Maximum length of the tag and the length in front of a message within a message.
const HEADER: usize = 6;

/// Returns the fields whose number may be one of the schema.
fn known(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, Field<'_>), WireError>> {
    Fields::new(bytes).filter_map(|field| match field {
        Ok(field) => u8::try_from(field.number).ok().map(|number| Ok((number, field))),
        Err(error) => Some(Err(error.into())),
    })
}

fn key<'a>(field: &Field<'a>) -> Result<&'a [u8], WireError> {
    let key = field.bytes()?;
    match key.len() {
        len if len > MAX_KEY => Err(WireError::Key { len }),
        _ => Ok(key),
    }
}
