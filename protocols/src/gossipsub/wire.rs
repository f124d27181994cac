//! The encoding of an RPC: protobuf, in the schema of the libp2p specifications.
//!
//! The schema is that of pubsub/README.md, gossipsub v1.0 (control messages), v1.1 (peer exchange and
//! backoff) and v1.2 (IDONTWANT). There is no framing: one message of a swarm is one RPC. [`Rpc::parse`] and
//! [`Message::parse`] count and measure everything before they allocate for it; unknown fields are ignored,
//! groups are refused.
//!
//! In protobuf, the concatenation of two RPCs is one RPC with the contents of both. So a message is encoded
//! once, as an RPC of its own ([`frame`]), for all destinations, and messages that are sent together are the
//! concatenation of such RPCs.
//!
//! The fields of this library ([`HELLO`], [`DIRECT`], [`TO`]) have numbers beyond 2²¹, as the specification
//! of gossipsub's extensions requires for experimental ones; other routers ignore them.

use bytes::{BufMut, Bytes, BytesMut};
use p2p_formats::varint;
use prost::Message as _;

use crate::protobuf::{Fields, Malformed, Value};

pub(super) use crate::protobuf::{field_len, put_field};

pub use super::schema::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Hello, Message,
    PeerInfo, Rpc, SubOpts,
};

/// The field of an RPC with a [`Hello`].
pub const HELLO: u32 = 2_125_874;
/// The field of an RPC with messages for the receiver only.
pub const DIRECT: u32 = 2_125_875;
/// The field of a message with its recipient.
pub const TO: u32 = 2_125_876;

/// Maximum number of bytes that [`frame`] adds.
pub const FRAME: usize = 4 + varint::MAX_LEN;
/// Maximum length of an author's id in bytes: libp2p's identity hash of a 42-byte key.
pub const MAX_FROM: usize = 44;
/// Length of a sequence number in bytes.
pub const SEQNO: usize = 8;
/// Maximum length of a signature in bytes: that of RSA with 4096 bits.
pub const MAX_SIGNATURE: usize = 512;
/// Maximum length of a public key in bytes: an RSA key with 4096 bits and its encoding are shorter.
pub const MAX_KEY: usize = 1024;

/// Limits of an RPC. An RPC beyond any of them is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an RPC, and of a message with its overhead. Default: 1 MiB, as the specification suggests.
    pub rpc: usize,
    /// Subscriptions in an RPC. Default: 1024.
    pub subscriptions: usize,
    /// Messages in an RPC. Default: 4096.
    pub messages: usize,
    /// Entries of a control message, and the peers in them, together. Default: 4096.
    pub control: usize,
    /// Message ids in an RPC. Default: 16384.
    pub ids: usize,
    /// Bytes of a topic; the minimum is one. Default: 256.
    pub topic: usize,
    /// Bytes of a message id; the minimum is one. Default: 128.
    pub id: usize,
    /// Bytes of a signed peer record. Default: 4096.
    pub record: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rpc: 1 << 20,
            subscriptions: 1024,
            messages: 4096,
            control: 4096,
            ids: 16384,
            topic: 256,
            id: 128,
            record: 4096,
        }
    }
}

/// The reason for which bytes are not an RPC or a message. Nothing of them was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not protobuf, or a field has the wrong type.
    #[error("the bytes are not protobuf of this schema")]
    Malformed,
    /// A topic is not UTF-8.
    #[error("a topic is not UTF-8")]
    Text,
    /// The length of a part is out of bounds.
    #[error("{what} of {len} bytes is out of bounds, at most {max}")]
    Length {
        /// The part.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The maximum length.
        max: usize,
    },
    /// There are too many items of one kind.
    #[error("there are more than {max} {what}")]
    TooMany {
        /// The kind.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
    /// A singular field occurs twice.
    #[error("{0} occurs twice")]
    Twice(&'static str),
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl From<Malformed> for WireError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Encodes a message as an RPC with only this message; all destinations share this copy.
pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME + message.len());
    put_frame(&mut frame, message);
    frame.freeze()
}

/// Appends a message as an RPC with only this message: at most [`FRAME`] bytes more.
pub(super) fn put_frame(frame: &mut BytesMut, message: &[u8]) {
    begin_frame(frame, PUBLISH, message.len());
    frame.put_slice(message);
}

/// The field of an RPC with messages of topics.
pub(super) const PUBLISH: u32 = 2;
/// The field of a message with its data.
pub(super) const DATA: u32 = 2;

/// Appends the header of an RPC with one message of `len` bytes in this field: at most [`FRAME`] bytes.
pub(super) fn begin_frame(frame: &mut BytesMut, field: u32, len: usize) {
    frame.put_slice(varint::write(
        u64::from(field << 3 | 2),
        &mut [0; varint::MAX_LEN],
    ));
    frame.put_slice(varint::write(len as u64, &mut [0; varint::MAX_LEN]));
}

/// Returns whether an RPC of this node starts with a message, of a topic or for one peer only.
pub fn is_message(rpc: &[u8]) -> bool {
    [PUBLISH, DIRECT].iter().any(|field| {
        let mut tag = [0; varint::MAX_LEN];
        rpc.starts_with(varint::write(u64::from(field << 3 | 2), &mut tag))
    })
}

/// Returns the maximum number of bytes that are added to the data of a message, if topics have at most
/// `topic` bytes, an RPC has at most `rpc`, and messages are signed with Ed25519 or not at all.
pub fn overhead(topic: usize, rpc: usize, signed: bool) -> usize {
    let (rpc, text) = (varint::len(rpc as u64), varint::len(topic as u64) + topic);
    // The field of the RPC, the data field, the sequence number and the topic.
    let all = (4 + rpc) + (1 + rpc) + (2 + SEQNO) + (1 + text);
    // The author, the signature, and the recipient of a direct message.
    all + if signed { (2 + 38) + (2 + 64) + (5 + 38) } else { 0 }
}

impl Rpc {
    /// Parses an RPC. Its contents share the buffer of `bytes`.
    ///
    /// # Errors
    /// [`WireError`], before anything is allocated, except for text that is not UTF-8. The messages in the
    /// RPC are not parsed: see [`Message::parse`].
    pub fn parse(bytes: &Bytes, limits: &Limits) -> Result<Self, WireError> {
        length("the RPC", bytes.len(), 0, limits.rpc)?;
        let mut count = Count::new(limits);
        let mut is_more = false;
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => count.subscription(field.bytes()?)?,
                PUBLISH => {
                    field.bytes()?;
                    more(&mut count.messages, limits.messages, "messages")?;
                    continue;
                }
                3 => count.control(field.bytes()?)?,
                HELLO => hello(field.bytes()?)?,
                DIRECT => {
                    field.bytes()?;
                    more(&mut count.messages, limits.messages, "messages")?;
                }
                _ => {}
            }
            is_more = true;
        }
        if !is_more {
            // Most RPCs contain only messages.
            let mut publish = Vec::with_capacity(count.messages);
            let messages = Fields::new(bytes).flatten();
            publish.extend(messages.filter_map(|field| Some(bytes.slice_ref(field.bytes().ok()?))));
            return Ok(Self {
                publish,
                ..Self::default()
            });
        }
        // Everything was checked except the encoding of texts.
        Self::decode(bytes.clone()).map_err(|_| WireError::Text)
    }

    /// Encodes the RPC.
    pub fn emit(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

impl PeerInfo {
    /// Returns whether it is within the limits of other nodes.
    pub(super) fn fits(&self, limits: &Limits) -> bool {
        let id = self.peer_id.as_ref().map_or(0, Bytes::len);
        let record = self.signed_peer_record.as_ref().map_or(0, Bytes::len);
        (1..=MAX_FROM).contains(&id) && record <= limits.record
    }
}

impl Message {
    /// Parses a message. Its contents share the buffer of `bytes`.
    ///
    /// # Errors
    /// [`WireError`], also if the topic is missing, or any field occurs twice.
    pub fn parse(bytes: &Bytes, limits: &Limits) -> Result<Self, WireError> {
        let mut message = Self::default();
        for field in Fields::new(bytes) {
            let field = field?;
            let (into, what, min, max) = match field.number {
                1 => (&mut message.from, "the author", 1, MAX_FROM),
                DATA => (&mut message.data, "the data", 0, limits.rpc),
                3 => (&mut message.seqno, "the sequence number", SEQNO, SEQNO),
                4 => {
                    let topic = field.bytes()?;
                    length(TOPIC, topic.len(), 1, limits.topic)?;
                    let topic = std::str::from_utf8(topic).map_err(|_| WireError::Text)?;
                    if message.topic.replace(topic.to_owned()).is_some() {
                        return Err(WireError::Twice(TOPIC));
                    }
                    continue;
                }
                5 => (&mut message.signature, "the signature", 1, MAX_SIGNATURE),
                6 => (&mut message.key, "the key", 1, MAX_KEY),
                TO => (&mut message.to, "the recipient", 1, MAX_FROM),
                _ => continue,
            };
            let part = field.bytes()?;
            length(what, part.len(), min, max)?;
            if into.replace(bytes.slice_ref(part)).is_some() {
                return Err(WireError::Twice(what));
            }
        }
        if message.topic.is_none() {
            return Err(WireError::Missing(TOPIC));
        }
        Ok(message)
    }
}

const TOPIC: &str = "the topic";

fn hello(bytes: &[u8]) -> Result<(), WireError> {
    let mut seen = [false; 3];
    for field in Fields::new(bytes) {
        let field = field?;
        match field.number {
            1 => {
                length("the author", field.bytes()?.len(), 1, MAX_FROM)?;
                once(&mut seen[0], "the author")?;
            }
            2 => {
                field.varint()?;
                once(&mut seen[1], "asks")?;
            }
            3 => {
                field.varint()?;
                once(&mut seen[2], "leaves")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The counts of an RPC so far.
struct Count<'a> {
    limits: &'a Limits,
    subscriptions: usize,
    messages: usize,
    control: usize,
    ids: usize,
}

impl<'a> Count<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            subscriptions: 0,
            messages: 0,
            control: 0,
            ids: 0,
        }
    }

    fn subscription(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        more(
            &mut self.subscriptions,
            self.limits.subscriptions,
            "subscriptions",
        )?;
        let mut seen = [false; 2];
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => {
                    field.varint()?;
                    once(&mut seen[0], "subscribe")?;
                }
                2 => {
                    self.topic(field.bytes()?)?;
                    once(&mut seen[1], "the topic")?;
                }
                _ => {}
            }
        }
        seen[1].then_some(()).ok_or(WireError::Missing("the topic"))
    }

    fn control(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        for field in Fields::new(bytes) {
            let field = field?;
            let (ids, has_topic) = match field.number {
                1 => (2, true),
                2 | 5 => (1, false),
                3 | 4 => (0, true),
                _ => continue,
            };
            more(&mut self.control, self.limits.control, "control messages")?;
            let mut topic = false;
            let mut backoff = false;
            for inner in Fields::new(field.bytes()?) {
                let inner = inner?;
                match (field.number, inner.number) {
                    (_, number) if number == ids => self.id(inner.bytes()?)?,
                    (_, 1) if has_topic => {
                        self.topic(inner.bytes()?)?;
                        once(&mut topic, "the topic")?;
                    }
                    (4, 2) => self.peer(inner.bytes()?)?,
                    (4, 3) => {
                        inner.varint()?;
                        once(&mut backoff, "the backoff")?;
                    }
                    _ => {}
                }
            }
            if has_topic && !topic {
                return Err(WireError::Missing("the topic"));
            }
        }
        Ok(())
    }

    fn peer(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        more(&mut self.control, self.limits.control, "control messages")?;
        let mut seen = [false; 2];
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => {
                    length("the peer id", field.bytes()?.len(), 1, MAX_FROM)?;
                    once(&mut seen[0], "the peer id")?;
                }
                2 => {
                    length("the peer record", field.bytes()?.len(), 0, self.limits.record)?;
                    once(&mut seen[1], "the peer record")?;
                }
                _ => {}
            }
        }
        seen[0].then_some(()).ok_or(WireError::Missing("the peer id"))
    }

    fn id(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        length("the message id", bytes.len(), 1, self.limits.id)?;
        more(&mut self.ids, self.limits.ids, "message ids")
    }

    fn topic(&self, bytes: &[u8]) -> Result<(), WireError> {
        length("the topic", bytes.len(), 1, self.limits.topic)
    }
}

fn more(count: &mut usize, max: usize, what: &'static str) -> Result<(), WireError> {
    *count += 1;
    if *count > max {
        return Err(WireError::TooMany { what, max });
    }
    Ok(())
}

fn length(what: &'static str, len: usize, min: usize, max: usize) -> Result<(), WireError> {
    if (min..=max).contains(&len) {
        Ok(())
    } else {
        Err(WireError::Length { what, len, max })
    }
}

fn once(seen: &mut bool, what: &'static str) -> Result<(), WireError> {
    if std::mem::replace(seen, true) {
        return Err(WireError::Twice(what));
    }
    Ok(())
}

/// Returns the signed bytes of a message: `prefix`, then the message without its signature and key.
pub(super) fn unsigned(message: &[u8], prefix: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::with_capacity(prefix.len() + message.len());
    bytes.extend_from_slice(prefix);
    for field in Fields::new(message) {
        let field = field?;
        let left_out = matches!(field.value, Value::Bytes(_)) && matches!(field.number, 5 | 6);
        if !left_out {
            bytes.extend_from_slice(field.whole);
        }
    }
    Ok(bytes)
}
