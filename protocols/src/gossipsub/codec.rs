//! What of messages needs no engine: reading, naming and verifying them on the way in, writing and signing them on the
//! way out.
//!
//! This is where most of a node's work is, and none of its state. A driver that shares an engine between threads does
//! it outside of the engine's lock; [`Engine::handle_rpc`] and [`Engine::publish`] do all of it at once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use p2p::{Addr, Error, Result};
use p2p_formats::varint;
use prost::Message as _;

use super::block::Block;
use super::engine::Engine;
use super::event::Refused;
use super::fields::Fields;
use super::identity::Author;
use super::message_id::MessageId;
use super::peer::PeerKey;
use super::signing::{Check, PolicyError, Signing};
use super::topic::Topic;
use super::wire::{
    ControlMessage, DATA, DIRECT, FRAME, Hello, Limits, Message, PUBLISH, Rpc, SubOpts, WireError,
    begin_frame, put_frame,
};

/// Names messages otherwise than [`Signing::message_id`] does.
type NameMessage = Arc<dyn Fn(&Message) -> MessageId + Send + Sync>;

/// Reads and writes messages as one node does. Clones number messages together.
#[derive(Clone)]
pub struct Codec {
    pub(super) signing: Signing,
    pub(super) name: Option<NameMessage>,
    limits: Limits,
    /// The number of the last message.
    seqno: Arc<AtomicU64>,
}

/// An RPC that came, read but not yet acted upon. It shares the buffer that it came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Bytes of the RPC.
    pub(super) len: usize,
    pub(super) parts: std::result::Result<Parts, WireError>,
}

#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) subscriptions: Vec<SubOpts>,
    pub(super) control: Option<ControlMessage>,
    pub(super) messages: Vec<std::result::Result<Arrived, WireError>>,
    pub(super) hello: Option<Hello>,
    /// Messages for this node alone.
    pub(super) direct: Vec<std::result::Result<Arrived, WireError>>,
}

/// A message that came, well formed.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) message: Message,
    bytes: Bytes,
    /// The RPC that it came in, if there was nothing else in it.
    alone: Option<Bytes>,
    /// Its name, if it is as the policy wants it, signature aside.
    pub(super) id: std::result::Result<MessageId, Refused>,
    pub(super) signature: Signature,
    /// Whether it is for this node alone.
    pub(super) is_direct: bool,
    /// Whether it shares a buffer that is not to be kept.
    pub(super) is_borrowed: bool,
}

/// What is known of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// Nothing yet: the message may be one that is known already.
    Unknown,
    /// Nothing, and it will matter.
    Wanted,
    Good,
    Bad(PolicyError),
}

impl From<std::result::Result<(), PolicyError>> for Signature {
    fn from(outcome: std::result::Result<(), PolicyError>) -> Self {
        outcome.err().map_or(Self::Good, Self::Bad)
    }
}

/// A message that is written and signed, and not sent yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(super) topic: Topic,
    pub(super) id: MessageId,
    /// The message as an RPC of its own.
    pub(super) frame: Bytes,
}

impl Codec {
    pub(super) fn new(signing: Signing, limits: Limits, seqno: u64) -> Self {
        let seqno = Arc::new(AtomicU64::new(seqno));
        Self {
            signing,
            name: None,
            limits,
            seqno,
        }
    }

    /// Reads an RPC, names its messages, and verifies nothing yet. Whatever the bytes are, this costs no more than their
    /// length and [`Limits`] allow.
    pub fn read(&self, bytes: &Bytes) -> Incoming {
        self.read_from(bytes, false)
    }

    /// Reads an RPC as [`read`](Self::read) does, from bytes that may be a part of a larger buffer: of what is kept of
    /// them, copies are made.
    pub fn read_borrowed(&self, bytes: &Bytes) -> Incoming {
        self.read_from(bytes, true)
    }

    /// About how many bytes an RPC holds once it is read, its own included: what a driver that reads several before it hands
    /// them to the engine charges for each, before it reads it. Short messages hold many times their bytes.
    pub fn held(bytes: &[u8]) -> usize {
        let fields = Fields::new(bytes).map_while(Result::ok);
        let of_fields = fields.map(|field| {
            let len = field.bytes().map_or(0, <[u8]>::len);
            match field.number {
                PUBLISH | DIRECT => MESSAGE + len,
                // An id has three bytes and a handle on its buffer, a topic has a text of its own.
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
        let len = bytes.len();
        Incoming { len, parts }
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
        // The shortest field that can hold it is the one that others would write.
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

    /// Whether a message says that this node made it.
    pub(super) fn is_own(&self, message: &Message) -> bool {
        let own = self.signing.author();
        own.is_some_and(|own| message.from.as_deref() == Some(own.as_bytes()))
    }

    /// Writes and signs a message, which takes a number. [`Engine::send`] publishes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a topic that cannot be, and for a message without a name; [`Error::MtuExceeded`] if the RPC
    /// would exceed [`Limits::rpc`].
    pub fn write(&self, topic: impl Into<Topic>, data: &[u8]) -> Result<Outgoing> {
        self.write_into(&mut Block::default(), topic, data)
    }

    /// Writes and signs a message as [`write`](Self::write) does, beside others that are published with it.
    pub fn write_into(&self, block: &mut Block, topic: impl Into<Topic>, data: &[u8]) -> Result<Outgoing> {
        let topic = topic.into();
        let seqno = self.begin(&topic, data)?;
        let frame = self.signing.write(block, &topic, data, seqno);
        let (size, mtu) = (frame.len(), self.limits.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        let id = match &self.name {
            None => Some(self.signing.own_id(data, seqno)),
            Some(_) => self.name_frame(&frame),
        };
        let id = id.ok_or_else(|| Error::invalid("message id", "it is empty or too long"))?;
        Ok(Outgoing { topic, id, frame })
    }

    /// The id of a message that is an RPC of its own.
    fn name_frame(&self, frame: &Bytes) -> Option<MessageId> {
        let message = Message::parse(&message_of(frame)?, &self.limits).ok()?;
        self.name(&message)
    }

    /// Writes and signs a message for one peer alone, who is named in it where messages are signed.
    pub(super) fn write_direct(&self, topic: &str, data: Bytes, to: Option<&Author>) -> Result<Bytes> {
        let seqno = self.begin(topic, &data)?;
        let message = self.signing.make_direct(topic, data, seqno, to);
        self.framed(DIRECT, &message)
    }

    /// The number of a message that can be.
    fn begin(&self, topic: &str, data: &[u8]) -> Result<u64> {
        self.check_topic(topic)?;
        let (size, mtu) = (data.len(), self.limits.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        Ok(self.seqno.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    /// A message as an RPC of its own.
    fn framed(&self, field: u32, message: &Message) -> Result<Bytes> {
        let len = message.encoded_len();
        let mut frame = BytesMut::with_capacity(FRAME + len);
        begin_frame(&mut frame, field, len);
        let (size, mtu) = (frame.len() + len, self.limits.rpc);
        if size > mtu {
            return Err(Error::MtuExceeded { size, mtu });
        }
        // There is room for all of it.
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

    /// The id of a message, if it is one that may be.
    fn name(&self, message: &Message) -> Option<MessageId> {
        let id = match &self.name {
            Some(name) => name(message),
            None => self.signing.message_id(message),
        };
        (1..=self.limits.id).contains(&id.len()).then_some(id)
    }
}

/// Bytes that a message holds beside its own once it is read: its handles, its text, its id and what the allocator adds.
const MESSAGE: usize = size_of::<std::result::Result<Arrived, WireError>>() + size_of::<Bytes>() + 128;
/// Bytes that another field of an RPC holds beside its own.
const EACH: usize = 128;

/// What an error of a message without a usable id names.
const NAME: &str = "a message id of a length that may be";

impl Incoming {
    pub(super) fn arrived(&mut self) -> impl Iterator<Item = &mut Arrived> {
        let parts = self.parts.as_mut().ok();
        parts
            .into_iter()
            .flat_map(|parts| parts.messages.iter_mut().chain(&mut parts.direct).flatten())
    }

    /// The signatures that [`Engine::select`] asks for, to be checked by anybody, and the place of each. What is not
    /// checked until the RPC is handled is checked then.
    pub fn to_check(&self) -> impl Iterator<Item = (usize, Check)> {
        let parts = self.parts.iter();
        let arrived = parts.flat_map(|parts| parts.messages.iter().chain(&parts.direct));
        let arrived = arrived
            .enumerate()
            .filter_map(|(at, arrived)| Some((at, arrived.as_ref().ok()?)));
        let wanted = arrived.filter(|(_, arrived)| arrived.signature == Signature::Wanted);
        wanted.filter_map(|(at, arrived)| {
            let id = arrived.id.clone().ok()?;
            Some((at, Check::new(id, &arrived.message, &arrived.bytes)))
        })
    }

    /// Checks these signatures one after the other.
    pub fn verify(&mut self) {
        let outcomes: Vec<_> = self.to_check().map(|(at, check)| (at, check.verify())).collect();
        self.checked(outcomes);
    }

    /// Says what came of [checks](Self::to_check).
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

    /// Why the bytes are no RPC.
    pub fn error(&self) -> Option<WireError> {
        self.parts.as_ref().err().copied()
    }

    /// Bytes of the RPC.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the RPC has no bytes; such a one says nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a direct message is known by: its author and number, or its number among those of a neighbour.
fn direct_id(message: &Message) -> MessageId {
    let [from, seqno] = [&message.from, &message.seqno].map(|field| field.as_deref().unwrap_or_default());
    [from, seqno].concat().into()
}

impl Arrived {
    /// The message as an RPC of its own, and its data, which shares that one's buffer: the RPC that it came in if there was
    /// nothing else, or else a copy.
    pub(super) fn into_frame(self, block: &mut Block) -> (Bytes, Bytes) {
        if let Some(frame) = self.alone.filter(|_| !self.is_borrowed) {
            return (frame, self.message.data.unwrap_or_default());
        }
        let len = FRAME + self.bytes.len();
        let frame = block.frame(len, |frame| put_frame(frame, &self.bytes));
        let data = message_of(&frame).and_then(|message| data_of(&message));
        (frame, data.unwrap_or_default())
    }

    /// The data of a message that is for this node alone, which came in an RPC of so many bytes.
    pub(super) fn into_data(self, rpc: usize) -> Bytes {
        let data = self.message.data.unwrap_or_default();
        if self.is_borrowed || data.len() * 2 < rpc {
            return Bytes::copy_from_slice(&data);
        }
        data
    }

    /// Who signed it.
    pub(super) fn author(&self) -> Option<Author> {
        self.message.from.as_deref().and_then(Author::from_bytes)
    }

    /// Finds out about the signature, if nobody has.
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

/// The message of an RPC that holds it alone; it shares the buffer.
fn message_of(frame: &Bytes) -> Option<Bytes> {
    let field = Fields::new(frame).next()?.ok()?;
    Some(frame.slice_ref(field.bytes().ok()?))
}

/// The data of a message that is well formed; it shares the buffer.
fn data_of(message: &Bytes) -> Option<Bytes> {
    let mut fields = Fields::new(message).flatten();
    let data = fields.find(|field| field.number == DATA)?;
    Some(message.slice_ref(data.bytes().ok()?))
}

impl Outgoing {
    /// The message's id.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

impl<A: Addr> Engine<A> {
    /// What reads and writes messages as this engine does, for use outside of its lock.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Names messages by this function, which must be the same at all nodes. An id must not be empty nor longer than
    /// [`Limits::id`]; such messages are refused. Codecs that were cloned before go on as they did.
    pub fn set_message_id(&mut self, name: impl Fn(&Message) -> MessageId + Send + Sync + 'static) {
        self.codec.name = Some(Arc::new(name));
    }

    /// Says which signatures of an RPC matter: those of messages that are new here, of topics that are wanted, from a peer
    /// that is listened to. Whether there is any, for [`Incoming::to_check`].
    ///
    /// It only saves time: whatever was not verified when it comes to [`Engine::handle_incoming`] is verified there.
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

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut codec = f.debug_struct("Codec");
        codec.field("signing", &self.signing).finish_non_exhaustive()
    }
}
