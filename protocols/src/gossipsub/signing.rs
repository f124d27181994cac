//! Signature policies: the fields that identify and sign a message, and the message ids.
//!
//! pubsub/README.md, "Message Signing" and "Message Identification". [`Signing::StrictSign`] adds the author,
//! a sequence number and a signature to each message; [`Signing::StrictNoSign`] adds none of these, and
//! refuses messages with them. Deliberately absent: the two lax policies, which the specification calls
//! insecure.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use p2p::Error;
use p2p_formats::x509::{Ed25519, Signer};
use prost::Message as _;

use super::block::Block;
use super::identity::{AUTHOR, Author, VerifyAuthor};
use super::message_id::MessageId;
use super::wire::{self, Message, SEQNO};

/// The prefix of the signed bytes.
pub const SIGNATURE_PREFIX: &[u8] = b"libp2p-pubsub:";

const RECIPIENT: &str = "the recipient";

/// The signature policy. It must be the same at all nodes of a network.
#[derive(Clone)]
pub enum Signing {
    /// Every message has an author, a sequence number and a signature.
    StrictSign {
        /// The key of this node's messages: Ed25519.
        signer: Arc<dyn Signer>,
        /// Its libp2p peer id.
        author: Author,
        /// Verifies authors whose keys are not Ed25519; without it, their messages are refused.
        others: Option<VerifyAuthor>,
    },
    /// No message names its author.
    StrictNoSign,
}

/// The reason for which a message violates the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A forbidden field is present.
    #[error("{0} must be absent")]
    Unwanted(&'static str),
    /// The author is not the id of an Ed25519 key, and other keys are not accepted ([`Signing::verifying`]).
    #[error("the author is not the id of a key that is accepted")]
    UnknownAuthor,
    /// The key differs from the key in the author's id.
    #[error("the key differs from the author's key")]
    ForeignKey,
    /// The message is for another node only.
    #[error("the message is for another node")]
    ForOthers,
    /// The signature is not the author's.
    #[error("the signature is not the author's")]
    BadSignature,
}

impl Signing {
    /// Creates [`Signing::StrictSign`] with a key.
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
        Ok(Self::StrictSign {
            signer,
            author,
            others: None,
        })
    }

    /// Accepts messages of authors whose keys are not Ed25519, and verifies them by this function. Without signatures it has no
    /// effect.
    #[must_use]
    pub fn verifying(mut self, verify: VerifyAuthor) -> Self {
        if let Self::StrictSign { others, .. } = &mut self {
            *others = Some(verify);
        }
        self
    }

    /// Returns what verifies authors whose keys are not Ed25519.
    pub(super) fn others(&self) -> Option<&VerifyAuthor> {
        match self {
            Self::StrictSign { others, .. } => others.as_ref(),
            Self::StrictNoSign => None,
        }
    }

    /// Returns the author of this node's messages, if they name one.
    pub fn author(&self) -> Option<&Author> {
        match self {
            Self::StrictSign { author, .. } => Some(author),
            Self::StrictNoSign => None,
        }
    }

    /// Makes a message with the sequence number `seqno`.
    pub fn make(&self, topic: &str, data: Bytes, seqno: u64) -> Message {
        let mut message = Message {
            topic: Some(topic.to_owned()),
            data: Some(data),
            ..Message::default()
        };
        if let Self::StrictSign { signer, author, .. } = self {
            message.from = Some(Bytes::copy_from_slice(author.as_bytes()));
            message.seqno = Some(Bytes::copy_from_slice(&seqno.to_be_bytes()));
            sign(&mut message, &**signer);
        }
        message
    }

    /// Encodes a message, as [`make`](Self::make) makes it, as an RPC with only this message.
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
            Self::StrictSign { signer, author, .. } => {
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

    /// Makes a message for one peer only. A signed message names its recipient. It always has a sequence
    /// number, because two equal messages to one peer are distinct.
    pub(super) fn make_direct(&self, topic: &str, data: Bytes, seqno: u64, to: Option<&Author>) -> Message {
        let mut message = Message {
            topic: Some(topic.to_owned()),
            data: Some(data),
            seqno: Some(Bytes::copy_from_slice(&seqno.to_be_bytes())),
            ..Message::default()
        };
        if let Self::StrictSign { signer, author, .. } = self {
            message.from = Some(Bytes::copy_from_slice(author.as_bytes()));
            message.to = to.map(|to| Bytes::copy_from_slice(to.as_bytes()));
            sign(&mut message, &**signer);
        }
        message
    }

    /// Checks that a direct message has the required fields and is for this node.
    pub(super) fn check_direct(&self, message: &Message) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { author, .. } => match &message.to {
                None => Err(PolicyError::Missing(RECIPIENT)),
                Some(to) if **to != *author.as_bytes() => Err(PolicyError::ForOthers),
                Some(_) => check_author(message, false),
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

    /// Checks that a message has the fields that the policy requires, and no others. The cost is negligible.
    ///
    /// # Errors
    /// [`PolicyError`], except [`PolicyError::BadSignature`].
    pub fn check_fields(&self, message: &Message) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { others, .. } => {
                // Prevents the recipient of a direct message from publishing it.
                unwanted([(RECIPIENT, &message.to)])?;
                check_author(message, others.is_some())
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

    /// Verifies the author's signature of the message with the encoding `bytes`. This takes some 30 µs with Ed25519.
    ///
    /// # Errors
    /// [`PolicyError::BadSignature`]; those of [`check_fields`](Self::check_fields) must be checked before.
    pub fn check_signature(&self, message: &Message, bytes: &[u8]) -> Result<(), PolicyError> {
        match self {
            Self::StrictSign { others, .. } => verify(
                message.from.as_deref(),
                message.key.as_deref(),
                message.signature.as_deref(),
                bytes,
                others.as_ref(),
            ),
            Self::StrictNoSign => Ok(()),
        }
    }

    /// Returns the default id of a message: the concatenation of its author and sequence number, or the
    /// SHA-256 of its data if the policy has neither.
    pub fn message_id(&self, message: &Message) -> MessageId {
        let [from, seqno, data] =
            [&message.from, &message.seqno, &message.data].map(|field| field.as_deref().unwrap_or_default());
        match self {
            Self::StrictSign { .. } => id_of(from, seqno),
            Self::StrictNoSign => hash_of(data),
        }
    }

    /// Returns the id of a message of this node.
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

/// A pending signature check with its inputs. It shares the message's buffer.
#[derive(Clone)]
pub struct Check {
    id: MessageId,
    from: Option<Bytes>,
    key: Option<Bytes>,
    signature: Option<Bytes>,
    /// The encoded message.
    bytes: Bytes,
    others: Option<VerifyAuthor>,
}

impl Check {
    pub(super) fn new(id: MessageId, message: &Message, bytes: &Bytes, others: Option<VerifyAuthor>) -> Self {
        Self {
            id,
            others,
            from: message.from.clone(),
            key: message.key.clone(),
            signature: message.signature.clone(),
            bytes: bytes.clone(),
        }
    }

    /// Returns the message id. If one of several messages with the same id is authentic, the others need no
    /// check.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// Verifies the author's signature. This takes some 40 µs with Ed25519.
    ///
    /// # Errors
    /// [`PolicyError::UnknownAuthor`] and [`PolicyError::BadSignature`].
    pub fn verify(&self) -> Result<(), PolicyError> {
        verify(
            self.from.as_deref(),
            self.key.as_deref(),
            self.signature.as_deref(),
            &self.bytes,
            self.others.as_ref(),
        )
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Verifies the author's signature of the message with the encoding `bytes`.
fn verify(
    from: Option<&[u8]>,
    key: Option<&[u8]>,
    signature: Option<&[u8]>,
    bytes: &[u8],
    others: Option<&VerifyAuthor>,
) -> Result<(), PolicyError> {
    let author = from.and_then(Author::from_peer_id);
    let author = author.ok_or(PolicyError::UnknownAuthor)?;
    let signed = wire::unsigned(bytes, SIGNATURE_PREFIX).map_err(|_| PolicyError::BadSignature)?;
    let signature = signature.unwrap_or_default();
    let is_good = match (author.key(), others) {
        (Some(_), _) => author.verifies(&signed, signature),
        (None, Some(verify)) => verify(&author, key, &signed, signature),
        (None, None) => return Err(PolicyError::UnknownAuthor),
    };
    if is_good {
        Ok(())
    } else {
        Err(PolicyError::BadSignature)
    }
}

fn sign(message: &mut Message, signer: &dyn Signer) {
    let mut text = Vec::with_capacity(SIGNATURE_PREFIX.len() + message.encoded_len());
    text.extend_from_slice(SIGNATURE_PREFIX);
    // Encoding into a vector cannot fail.
    let _ = message.encode(&mut text);
    message.signature = Some(signer.sign(&text).into());
}

/// Checks that a message names its author consistently. `others` says whether the author's key may be other than Ed25519.
fn check_author(message: &Message, others: bool) -> Result<(), PolicyError> {
    let fields = [
        ("the author", &message.from),
        ("the sequence number", &message.seqno),
        ("the signature", &message.signature),
    ];
    if let Some((what, _)) = fields.iter().find(|(_, field)| field.is_none()) {
        return Err(PolicyError::Missing(what));
    }
    let from = message.from.as_deref().unwrap_or_default();
    let author = Author::from_peer_id(from).filter(|author| others || author.key().is_some());
    let author = author.ok_or(PolicyError::UnknownAuthor)?;
    match (&message.key, author.encoded_key()) {
        (Some(key), Some(own)) if key != own => Err(PolicyError::ForeignKey),
        // Its id is a hash.
        (None, None) => Err(PolicyError::Missing("the key")),
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
