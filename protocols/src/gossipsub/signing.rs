//! Signature policies: what a message must say of its author, and how messages are named.
//!
//! pubsub/README.md, "Message Signing" and "Message Identification". [`Signing::StrictSign`] stamps each message with
//! its author and a number and signs it; [`Signing::StrictNoSign`] does none of this, and refuses what does.
//! Deliberately absent: the two lax policies, which the specification calls insecure.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use p2p::Error;
use p2p_formats::x509::{Ed25519, Signer};
use prost::Message as _;

use super::block::Block;
use super::identity::{AUTHOR, Author};
use super::message_id::MessageId;
use super::wire::{self, Message, SEQNO};

/// What stands before the bytes that are signed.
pub const SIGNATURE_PREFIX: &[u8] = b"libp2p-pubsub:";

const RECIPIENT: &str = "the recipient";

/// How messages are made and which are taken; the same at all nodes of a network.
#[derive(Clone)]
pub enum Signing {
    /// Every message says its author and number, and is signed.
    StrictSign {
        /// The key of this node's messages: Ed25519.
        signer: Arc<dyn Signer>,
        /// Its libp2p peer id.
        author: Author,
    },
    /// No message says who made it.
    StrictNoSign,
}

/// Why a message is not as the policy wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A field must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field must not be there.
    #[error("{0} must not be there")]
    Unwanted(&'static str),
    /// The author is not the id of an Ed25519 key.
    #[error("the author is not the id of an ed25519 key")]
    UnknownAuthor,
    /// The key is not the one that the author's id says.
    #[error("the key is not the author's")]
    ForeignKey,
    /// The message is for one node alone, and not for this one.
    #[error("the message is for another node")]
    ForOthers,
    /// The author did not sign this.
    #[error("the signature is not the author's")]
    BadSignature,
}

impl Signing {
    /// [`Signing::StrictSign`] with this key.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not an Ed25519 key.
    pub fn strict(signer: Arc<dyn Signer>) -> p2p::Result<Self> {
        let key = signer.public_key();
        let author = <&[u8; 32]>::try_from(key.key_bytes())
            .ok()
            .filter(|_| key.algorithm() == Ed25519::OID)
            .map(Author::new)
            .ok_or_else(|| Error::invalid("key", "gossipsub signs with ed25519 only"))?;
        Ok(Self::StrictSign { signer, author })
    }

    /// The author of this node's messages, if they say one.
    pub fn author(&self) -> Option<&Author> {
        match self {
            Self::StrictSign { author, .. } => Some(author),
            Self::StrictNoSign => None,
        }
    }

    /// Makes a message. `seqno` is its number among those of this node.
    pub fn make(&self, topic: &str, data: Bytes, seqno: u64) -> Message {
        let mut message = Message {
            topic: Some(topic.to_owned()),
            data: Some(data),
            ..Message::default()
        };
        if let Self::StrictSign { signer, author } = self {
            message.from = Some(Bytes::copy_from_slice(author.as_bytes()));
            message.seqno = Some(Bytes::copy_from_slice(&seqno.to_be_bytes()));
            sign(&mut message, &**signer);
        }
        message
    }

    /// The bytes of a message as [`make`](Self::make) makes it, as an RPC of its own.
    pub(super) fn write(&self, block: &mut Block, topic: &str, data: &[u8], seqno: u64) -> Bytes {
        let topic = topic.as_bytes();
        match self {
            Self::StrictNoSign => {
                let len = wire::field_len(data) + wire::field_len(topic);
                block.frame(wire::FRAME + len, |frame| {
                    wire::begin_frame(frame, wire::PUBLISH, len);
                    wire::put_field(frame, 2, data);
                    wire::put_field(frame, 4, topic);
                })
            }
            Self::StrictSign { signer, author } => {
                let seqno = seqno.to_be_bytes();
                let fields = [(1, author.as_bytes()), (2, data), (3, &seqno), (4, topic)];
                let len: usize = fields.iter().map(|(_, field)| wire::field_len(field)).sum();
                let mut text = Vec::with_capacity(SIGNATURE_PREFIX.len() + len);
                text.extend_from_slice(SIGNATURE_PREFIX);
                for (number, field) in fields {
                    wire::put_field(&mut text, number, field);
                }
                let signature = signer.sign(&text);
                let len = len + wire::field_len(&signature);
                block.frame(wire::FRAME + len, |frame| {
                    wire::begin_frame(frame, wire::PUBLISH, len);
                    frame.extend_from_slice(text.get(SIGNATURE_PREFIX.len()..).unwrap_or_default());
                    wire::put_field(frame, 5, &signature);
                })
            }
        }
    }

    /// Makes a message for one peer alone, whose name is in it where messages are signed. It has a number in any case:
    /// what is said to one peer twice is not the same message.
    pub(super) fn make_direct(&self, topic: &str, data: Bytes, seqno: u64, to: Option<&Author>) -> Message {
        let mut message = Message {
            topic: Some(topic.to_owned()),
            data: Some(data),
            seqno: Some(Bytes::copy_from_slice(&seqno.to_be_bytes())),
            ..Message::default()
        };
        if let Self::StrictSign { signer, author } = self {
            message.from = Some(Bytes::copy_from_slice(author.as_bytes()));
            message.to = to.map(|to| Bytes::copy_from_slice(to.as_bytes()));
            sign(&mut message, &**signer);
        }
        message
    }

    /// Whether a direct message has the fields that it should, and is for this node.
    pub(super) fn check_direct(&self, message: &Message) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { author, .. } => match &message.to {
                None => Err(PolicyError::Missing(RECIPIENT)),
                Some(to) if **to != *author.as_bytes() => Err(PolicyError::ForOthers),
                Some(_) => check_author(message),
            },
            Self::StrictNoSign if message.seqno.is_none() => Err(PolicyError::Missing("the sequence number")),
            Self::StrictNoSign => unwanted([
                ("the author", &message.from),
                ("the signature", &message.signature),
                ("the key", &message.key),
                (RECIPIENT, &message.to),
            ]),
        }
    }

    /// Whether a message has the fields that the policy wants, and no others. This costs nothing.
    ///
    /// # Errors
    /// [`PolicyError`], but for [`PolicyError::BadSignature`].
    pub fn check_fields(&self, message: &Message) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { .. } => {
                // Who gets a direct message cannot publish it.
                unwanted([(RECIPIENT, &message.to)])?;
                check_author(message)
            }
            Self::StrictNoSign => unwanted([
                ("the author", &message.from),
                ("the sequence number", &message.seqno),
                ("the signature", &message.signature),
                ("the key", &message.key),
                (RECIPIENT, &message.to),
            ]),
        }
    }

    /// Whether the author signed the message that `bytes` are. It takes some 30 µs.
    ///
    /// # Errors
    /// [`PolicyError::BadSignature`]; those of [`check_fields`](Self::check_fields) come before.
    pub fn check_signature(&self, message: &Message, bytes: &[u8]) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { .. } => verify(message.from.as_deref(), message.signature.as_deref(), bytes),
            Self::StrictNoSign => Ok(()),
        }
    }

    /// The id that a message has unless the application names messages otherwise: the author and the number, one after
    /// the other, or the SHA-256 of the data where there are none.
    pub fn message_id(&self, message: &Message) -> MessageId {
        let [from, seqno, data] =
            [&message.from, &message.seqno, &message.data].map(|field| field.as_deref().unwrap_or_default());
        match self {
            Self::StrictSign { .. } => id_of(from, seqno),
            Self::StrictNoSign => hash_of(data),
        }
    }

    /// The id of a message of this node.
    pub(super) fn own_id(&self, data: &[u8], seqno: u64) -> MessageId {
        match self {
            Self::StrictSign { author, .. } => id_of(author.as_bytes(), &seqno.to_be_bytes()),
            Self::StrictNoSign => hash_of(data),
        }
    }
}

fn id_of(author: &[u8], seqno: &[u8]) -> MessageId {
    let mut id = [0; AUTHOR + SEQNO];
    let (from, number) = id.split_at_mut(AUTHOR);
    if author.len() != from.len() || seqno.len() != number.len() {
        return [author, seqno].concat().into();
    }
    from.copy_from_slice(author);
    number.copy_from_slice(seqno);
    MessageId::copy_from_slice(&id)
}

fn hash_of(data: &[u8]) -> MessageId {
    MessageId::copy_from_slice(digest(&SHA256, data).as_ref())
}

/// A signature that is to be checked, and all that it takes. It shares the message's buffer.
#[derive(Clone, Debug)]
pub struct Check {
    id: MessageId,
    from: Option<Bytes>,
    signature: Option<Bytes>,
    /// The message.
    bytes: Bytes,
}

impl Check {
    pub(super) fn new(id: MessageId, message: &Message, bytes: &Bytes) -> Self {
        Self {
            id,
            from: message.from.clone(),
            signature: message.signature.clone(),
            bytes: bytes.clone(),
        }
    }

    /// The message's id. Where one of several with the same id is good, the others need no check.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Whether the author signed the message. It takes some 40 µs.
    ///
    /// # Errors
    /// [`PolicyError::UnknownAuthor`] and [`PolicyError::BadSignature`].
    pub fn verify(&self) -> Result<(), PolicyError> {
        verify(self.from.as_deref(), self.signature.as_deref(), &self.bytes)
    }
}

/// Whether the author signed the message that `bytes` are.
fn verify(from: Option<&[u8]>, signature: Option<&[u8]>, bytes: &[u8]) -> Result<(), PolicyError> {
    let author = from.and_then(Author::from_bytes);
    let author = author.ok_or(PolicyError::UnknownAuthor)?;
    let signed = wire::unsigned(bytes, SIGNATURE_PREFIX).map_err(|_| PolicyError::BadSignature)?;
    if author.verifies(&signed, signature.unwrap_or_default()) {
        Ok(())
    } else {
        Err(PolicyError::BadSignature)
    }
}

fn sign(message: &mut Message, signer: &dyn Signer) {
    let mut text = Vec::with_capacity(SIGNATURE_PREFIX.len() + message.encoded_len());
    text.extend_from_slice(SIGNATURE_PREFIX);
    // A vector grows as needed, so there is always room.
    let _ = message.encode(&mut text);
    message.signature = Some(signer.sign(&text).into());
}

/// Whether a message says who made it, and nothing that contradicts itself.
fn check_author(message: &Message) -> Result<(), PolicyError> {
    let fields = [
        ("the author", &message.from),
        ("the sequence number", &message.seqno),
        ("the signature", &message.signature),
    ];
    if let Some((what, _)) = fields.iter().find(|(_, field)| field.is_none()) {
        return Err(PolicyError::Missing(what));
    }
    let from = message.from.as_deref().unwrap_or_default();
    let author = Author::from_bytes(from).ok_or(PolicyError::UnknownAuthor)?;
    match &message.key {
        Some(key) if key != author.encoded_key() => Err(PolicyError::ForeignKey),
        _ => Ok(()),
    }
}

fn unwanted<const N: usize>(fields: [(&'static str, &Option<Bytes>); N]) -> Result<(), PolicyError> {
    let there = fields.iter().find(|(_, field)| field.is_some());
    there.map_or(Ok(()), |(what, _)| Err(PolicyError::Unwanted(what)))
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StrictSign { author, .. } => f.debug_tuple("StrictSign").field(author).finish(),
            Self::StrictNoSign => f.write_str("StrictNoSign"),
        }
    }
}
