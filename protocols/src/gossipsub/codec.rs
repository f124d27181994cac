//! The part of message processing that needs no engine: parsing, identifying and verifying incoming messages;
//! encoding and signing outgoing ones.
//!
//! This is most of a node's work, and none of its state. A driver that shares an engine between threads does
//! it without the engine's lock; [`Engine::handle_rpc`] and [`Engine::publish`] do all of it at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2p::{Addr, Error, Result};
use p2p_formats::varint;
use prost::Message as _;

use super::block::Block;
use super::config::SendLimits;
use super::engine::Engine;
use super::event::Refused;
use super::identity::{Author, VerifyAuthor};
use super::message_id::MessageId;
use super::peer::PeerKey;
use super::signing::{Check, PolicyError, Signing};
use super::topic::Topic;
use super::wire::{
    ControlMessage, DATA, DIRECT, FRAME, Hello, Limits, Message, PUBLISH, Rpc, SubOpts, WireError,
    begin_frame, put_frame,
};
use crate::protobuf::Fields;

/// An application's function for message ids, instead of [`Signing::message_id`].
type NameMessage = Arc<dyn Fn(&Message) -> MessageId + Send + Sync>;

/// Parses and encodes the messages of one node. Clones share the sequence number.
#[derive(Clone)]
pub struct Codec {
    pub(super) signing: Signing,
    pub(super) name: Option<NameMessage>,
    limits: Limits,
    pub(super) send: SendLimits,
    /// The sequence number of the last message.
    seqno: Arc<AtomicU64>,
}

/// A received RPC that is parsed but not processed. It shares the buffer that it arrived in.
#[derive(Clone)]
pub struct Incoming {
    /// Length of the RPC in bytes.
    pub(super) len: usize,
    pub(super) parts: std::result::Result<Parts, WireError>,
    others: Option<VerifyAuthor>,
}

#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) subscriptions: Vec<SubOpts>,
    pub(super) control: Option<ControlMessage>,
    pub(super) messages: Vec<std::result::Result<Arrived, WireError>>,
    pub(super) hello: Option<Hello>,
    /// Messages for this node only.
    pub(super) direct: Vec<std::result::Result<Arrived, WireError>>,
}

/// A received message that is well formed.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) message: Message,
    bytes: Bytes,
    /// The RPC, if it contains only this message.
    alone: Option<Bytes>,
    /// Its id, if its fields follow the policy; the signature is checked separately.
    pub(super) id: std::result::Result<MessageId, Refused>,
    pub(super) signature: Signature,
    /// Whether the message is for this node only.
    pub(super) is_direct: bool,
    /// Whether it shares a buffer that must not be kept.
    pub(super) is_borrowed: bool,
}

/// The state of a signature check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// Not checked; the message may be a duplicate.
    Unknown,
    /// Not checked, and needed.
    Wanted,
    Good,
    Bad(PolicyError),
}

impl From<std::result::Result<(), PolicyError>> for Signature {
    fn from(outcome: std::result::Result<(), PolicyError>) -> Self {
        outcome.err().map_or(Self::Good, Self::Bad)
    }
}

/// A message that is encoded and signed, and not sent yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(super) topic: Topic,
    pub(super) id: MessageId,
    /// The message as an RPC with only this message.
    pub(super) frame: Bytes,
}

impl Codec {
    pub(super) fn new(signing: Signing, limits: Limits, send: SendLimits, seqno: u64) -> Self {
        let seqno = Arc::new(AtomicU64::new(seqno));
        Self {
            signing,
            name: None,
            limits,
            send,
            seqno,
        }
    }

    /// Parses an RPC and computes the ids of its messages; verifies nothing. For any input, the cost is
    /// bounded by its length and by [`Limits`].
    pub fn read(&self, bytes: &Bytes) -> Incoming {
        self.read_from(bytes, false)
    }

    /// Parses an RPC like [`read`](Self::read), from bytes that may be part of a larger buffer: whatever is
    /// kept is copied.
    pub fn read_borrowed(&self, bytes: &Bytes) -> Incoming {
        self.read_from(bytes, true)
    }

    /// Returns the approximate memory of an RPC once it is parsed, in bytes, including its buffer. A driver
    /// that parses several RPCs before it hands them to the engine charges this amount for each before
    /// parsing. Short messages hold many times their length.
    pub fn held(bytes: &[u8]) -> usize {
        let fields = Fields::new(bytes).map_while(Result::ok);
        let of_fields = fields.map(|field| {
            let len = field.bytes().map_or(0, <[u8]>::len);
            match field.number {
                PUBLISH | DIRECT => MESSAGE + len,
                // An id can have three bytes and needs a handle to its buffer; a topic has its own string.
                _ => EACH + len.saturating_mul(16),
            }
        });
        of_fields.fold(bytes.len(), usize::saturating_add)
    }

    fn read_from(&self, bytes: &Bytes, is_borrowed: bool) -> Incoming {
        let arrived = |messages: Vec<Bytes>, is_direct| {
            let messages = messages.into_iter();
            messages
                .map(|message| {
                    let arrived = self.arrived(message, bytes, is_direct)?;
                    Ok(Arrived {
                        is_borrowed,
                        ..arrived
                    })
                })
                .collect()
        };
        let parts = Rpc::parse(bytes, &self.limits).map(|rpc| Parts {
            subscriptions: rpc.subscriptions,
            control: rpc.control,
            messages: arrived(rpc.publish, false),
            hello: rpc.hello,
            direct: arrived(rpc.direct, true),
        });
        Incoming {
            len: bytes.len(),
            parts,
            others: self.signing.others().cloned(),
        }
    }

    fn arrived(&self, bytes: Bytes, rpc: &Bytes, is_direct: bool) -> std::result::Result<Arrived, WireError> {
        let message = Message::parse(&bytes, &self.limits)?;
        let id = if is_direct {
            let named = self.signing.check_direct(&message);
            named.map(|()| direct_id(&message)).map_err(Refused::from)
        } else {
            match self.signing.check_fields(&message) {
                Ok(()) => self.name(&message).ok_or(WireError::Missing(NAME).into()),
                Err(reason) => Err(reason.into()),
            }
        };
        // A field with the shortest encoding is the one that other nodes would produce.
        let is_alone = rpc.len() == 1 + varint::len(bytes.len() as u64) + bytes.len();
        Ok(Arrived {
            message,
            bytes,
            id,
            signature: Signature::Unknown,
            is_direct,
            is_borrowed: false,
            alone: is_alone.then(|| rpc.clone()),
        })
    }

    /// Returns whether the message names this node as its author.
    pub(super) fn is_own(&self, message: &Message) -> bool {
        let own = self.signing.author();
        own.is_some_and(|own| message.from.as_deref() == Some(own.as_bytes()))
    }

    /// Encodes and signs a message with the next sequence number. [`Engine::send`] publishes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid topic, and for a message without a valid id; [`Error::MtuExceeded`]
    /// if the RPC would exceed [`SendLimits::rpc`].
    pub fn write(&self, topic: impl Into<Topic>, data: &[u8]) -> Result<Outgoing> {
        self.write_into(&mut Block::default(), topic, data)
    }

    /// Encodes and signs a message like [`write`](Self::write), in the same block as other messages that are
    /// published with it.
    pub fn write_into(&self, block: &mut Block, topic: impl Into<Topic>, data: &[u8]) -> Result<Outgoing> {
        let topic = topic.into();
        let seqno = self.begin(&topic, data)?;
        let frame = self.signing.write(block, &topic, data, seqno);
        let (size, mtu) = (frame.len(), self.send.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        let id = match &self.name {
            None => Some(self.signing.own_id(data, seqno)),
            Some(_) => self.name_frame(&frame),
        };
        let id = id.ok_or_else(|| Error::invalid("message id", "its length is zero or above the limit"))?;
        Ok(Outgoing { topic, id, frame })
    }

    /// Returns the id of the message in an RPC with only this message.
    fn name_frame(&self, frame: &Bytes) -> Option<MessageId> {
        let message = Message::parse(&message_of(frame)?, &self.limits).ok()?;
        self.name(&message)
    }

    /// Encodes and signs a message for one peer only, which a signed message names.
    pub(super) fn write_direct(&self, topic: &str, data: Bytes, to: Option<&Author>) -> Result<Bytes> {
        let seqno = self.begin(topic, &data)?;
        let message = self.signing.make_direct(topic, data, seqno, to);
        self.framed(DIRECT, &message)
    }

    /// Checks the topic and the length, and returns the next sequence number.
    fn begin(&self, topic: &str, data: &[u8]) -> Result<u64> {
        self.check_topic(topic)?;
        let (size, mtu) = (data.len(), self.send.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        Ok(self.seqno.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// Encodes a message as an RPC with only this message.
    fn framed(&self, field: u32, message: &Message) -> Result<Bytes> {
        let len = message.encoded_len();
        let mut frame = BytesMut::with_capacity(FRAME + len);
        begin_frame(&mut frame, field, len);
        let (size, mtu) = (frame.len() + len, self.send.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        // The buffer has room for all of it.
        let _ = message.encode(&mut frame);
        Ok(frame.freeze())
    }

    pub(super) fn check_topic(&self, name: &str) -> Result<()> {
        let max = self.limits.topic;
        if name.is_empty() || name.len() > max {
            let reason = format!("it has {} bytes, not 1 to {max}", name.len());
            return Err(Error::invalid("topic", reason));
        }
        Ok(())
    }

    /// Returns the id of a message, if its length is valid.
    fn name(&self, message: &Message) -> Option<MessageId> {
        let id = match &self.name {
            Some(name) => name(message),
            None => self.signing.message_id(message),
        };
        (1..=self.limits.id).contains(&id.len()).then_some(id)
    }
}

/// Upper bound of the bytes that a parsed message holds besides its own: handles, strings, id and allocator
/// overhead.
const MESSAGE: usize = size_of::<std::result::Result<Arrived, WireError>>() + size_of::<Bytes>() + 128;
/// Upper bound of the bytes that another field of an RPC holds besides its own.
const EACH: usize = 128;

/// The missing item in the error of a message without a valid id.
const NAME: &str = "a message id of valid length";

impl Incoming {
    pub(super) fn arrived(&mut self) -> impl Iterator<Item = &mut Arrived> {
        let parts = self.parts.as_mut().ok();
        parts
            .into_iter()
            .flat_map(|parts| parts.messages.iter_mut().chain(&mut parts.direct).flatten())
    }

    /// Returns the signatures that [`Engine::select`] marked, each with its index, for a check on any thread.
    /// A signature that is not checked by then is checked when the RPC is handled.
    pub fn to_check(&self) -> impl Iterator<Item = (usize, Check)> {
        let parts = self.parts.iter();
        let arrived = parts.flat_map(|parts| parts.messages.iter().chain(&parts.direct));
        let arrived = arrived
            .enumerate()
            .filter_map(|(at, arrived)| Some((at, arrived.as_ref().ok()?)));
        let wanted = arrived.filter(|(_, arrived)| arrived.signature == Signature::Wanted);
        wanted.filter_map(|(at, arrived)| {
            let id = arrived.id.clone().ok()?;
            Some((
                at,
                Check::new(id, &arrived.message, &arrived.bytes, self.others.clone()),
            ))
        })
    }

    /// Checks these signatures one after another.
    pub fn verify(&mut self) {
        let outcomes: Vec<_> = self.to_check().map(|(at, check)| (at, check.verify())).collect();
        self.checked(outcomes);
    }

    /// Records the results of [checks](Self::to_check).
    pub fn checked(
        &mut self,
        outcomes: impl IntoIterator<Item = (usize, std::result::Result<(), PolicyError>)>,
    ) {
        let Ok(parts) = &mut self.parts else { return };
        let count = parts.messages.len();
        for (at, outcome) in outcomes {
            let arrived = match at.checked_sub(count) {
                None => parts.messages.get_mut(at),
                Some(at) => parts.direct.get_mut(at),
            };
            if let Some(Ok(arrived)) = arrived {
                arrived.signature = outcome.into();
            }
        }
    }

    /// Returns the parse error of the RPC, if there is one.
    pub fn error(&self) -> Option<WireError> {
        self.parts.as_ref().err().copied()
    }

    /// Returns the length of the RPC in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the RPC has no bytes. An empty RPC has no effect.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Returns the id of a direct message: its author and sequence number, or its number among those of a
/// neighbour.
fn direct_id(message: &Message) -> MessageId {
    let [from, seqno] = [&message.from, &message.seqno].map(|field| field.as_deref().unwrap_or_default());
    [from, seqno].concat().into()
}

impl Arrived {
    /// Returns the message as an RPC with only this message, and its data, which shares that buffer. Uses the
    /// received RPC if it contains nothing else, or else a copy.
    pub(super) fn into_frame(self, block: &mut Block) -> (Bytes, Bytes) {
        if let Some(frame) = self.alone.filter(|_| !self.is_borrowed) {
            return (frame, self.message.data.unwrap_or_default());
        }
        let len = FRAME + self.bytes.len();
        let frame = block.frame(len, |frame| put_frame(frame, &self.bytes));
        let data = message_of(&frame).and_then(|message| data_of(&message));
        (frame, data.unwrap_or_default())
    }

    /// Returns the data of a direct message that arrived in an RPC of `rpc` bytes.
    pub(super) fn into_data(self, rpc: usize) -> Bytes {
        let data = self.message.data.unwrap_or_default();
        if self.is_borrowed || data.len() * 2 < rpc {
            return Bytes::copy_from_slice(&data);
        }
        data
    }

    /// Returns the author of the message.
    pub(super) fn author(&self) -> Option<Author> {
        self.message.from.as_deref().and_then(Author::from_peer_id)
    }

    /// Verifies the signature, unless its result is known.
    pub(super) fn verify(&mut self, signing: &Signing) -> std::result::Result<(), PolicyError> {
        if matches!(self.signature, Signature::Unknown | Signature::Wanted) {
            self.signature = signing.check_signature(&self.message, &self.bytes).into();
        }
        match self.signature {
            Signature::Bad(reason) => Err(reason),
            Signature::Unknown | Signature::Wanted | Signature::Good => Ok(()),
        }
    }
}

/// Returns the message of an RPC with only this message, sharing its buffer.
fn message_of(frame: &Bytes) -> Option<Bytes> {
    let field = Fields::new(frame).next()?.ok()?;
    Some(frame.slice_ref(field.bytes().ok()?))
}

/// Returns the data of a well-formed message, sharing its buffer.
fn data_of(message: &Bytes) -> Option<Bytes> {
    let mut fields = Fields::new(message).flatten();
    let data = fields.find(|field| field.number == DATA)?;
    Some(message.slice_ref(data.bytes().ok()?))
}

impl Outgoing {
    /// Returns the id of the message.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Returns the topic of the message.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl<A: Addr> Engine<A> {
    /// Returns the codec of this engine, for use without the engine's lock.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Sets the function for message ids, which must be the same at all nodes. An id must not be empty or
    /// longer than [`Limits::id`]; messages with other ids are refused. Clones of the codec made before keep
    /// their function.
    pub fn set_message_id(&mut self, name: impl Fn(&Message) -> MessageId + Send + Sync + 'static) {
        self.codec.name = Some(Arc::new(name));
    }

    /// Marks the signatures of an RPC that need a check: those of new messages of joined topics from a peer
    /// that is not graylisted. Returns whether there is any, for [`Incoming::to_check`].
    ///
    /// This only saves time: [`Engine::handle_incoming`] verifies whatever was not verified before.
    pub fn select(&mut self, now: Duration, from: &A, incoming: &mut Incoming) -> bool {
        if self.codec.signing.author().is_none() {
            return false;
        }
        let is_heard = |key: &PeerKey| !self.is_graylisted(now, *key);
        if !self.keys.get(from).is_some_and(is_heard) {
            return false;
        }
        let mut any = false;
        for arrived in incoming.arrived() {
            let topic = arrived.message.topic();
            let wanted = if arrived.is_direct {
                self.hears_of(topic)
            } else {
                self.topics.get(topic).is_some_and(|state| state.joined)
            };
            if let Ok(id) = &arrived.id
                && arrived.signature == Signature::Unknown
                && wanted
                && !self.codec.is_own(&arrived.message)
                && !(if arrived.is_direct {
                    self.told.contains_at(now, id)
                } else {
                    self.seen.contains_at(now, id)
                })
            {
                arrived.signature = Signature::Wanted;
                any = true;
            }
        }
        any
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut incoming = f.debug_struct("Incoming");
        incoming.field("len", &self.len).field("parts", &self.parts);
        incoming.finish_non_exhaustive()
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut codec = f.debug_struct("Codec");
        codec.field("signing", &self.signing).finish_non_exhaustive()
    }
}
