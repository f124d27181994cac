//! The message ids that implementations of gossipsub use by default.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_formats::varint;
use p2p_swarms::gossipsub::wire::Message;
use p2p_swarms::gossipsub::{MessageId, NameMessage};

/// How the id of a message is computed, which must be the same at all nodes of a network.
///
/// Implementations differ in what they do by default, so in a network of several of them one scheme is configured at all. The
/// text of a scheme is `spec`, `rust`, `js` or `sha256`.
///
/// ```
/// use p2p_libp2p::HostGossipConfig;
/// use p2p_libp2p::gossip::MessageIdScheme;
///
/// let mut config = HostGossipConfig::default();
/// config.gossip.message_id = Some(MessageIdScheme::Rust.into());
/// assert_eq!("rust".parse::<MessageIdScheme>()?, MessageIdScheme::Rust);
/// # Ok::<(), p2p::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageIdScheme {
    /// The author's id and the sequence number, in bytes: that of the specification and of go- and py-libp2p for signed
    /// messages. It gives messages without an author no id, so they are refused.
    Spec,
    /// The author's id in base58 and the sequence number in decimal: that of rust-libp2p. All messages without an author have
    /// one id, so all but the first are taken for duplicates.
    Rust,
    /// The author's public key in its protobuf encoding and the sequence number in bytes: that of js-libp2p for signed
    /// messages. Messages without an author, or whose author's key is neither in its id nor in the message, are refused.
    Js,
    /// SHA-256 of the data, whatever the author is: that of js-libp2p for messages without an author, and of this library.
    Sha256,
}

impl MessageIdScheme {
    const ALL: [Self; 4] = [Self::Spec, Self::Rust, Self::Js, Self::Sha256];

    /// Returns the id of a message. An empty id means that the scheme gives it none.
    pub fn id(self, message: &Message) -> MessageId {
        let [from, seqno, data] =
            [&message.from, &message.seqno, &message.data].map(|field| field.as_deref().unwrap_or_default());
        match self {
            Self::Spec => [from, seqno].concat().into(),
            Self::Rust => {
                let author = if message.from.is_some() { from } else { NO_AUTHOR };
                let author = PeerId::from_bytes(author).map_or_else(|_| String::new(), PeerId::to_base58);
                let number = <[u8; 8]>::try_from(seqno).map_or(0, u64::from_be_bytes);
                format!("{author}{number}").into_bytes().into()
            }
            Self::Js => match message.key.as_deref().or_else(|| key_in(from)) {
                Some(key) => [key, seqno].concat().into(),
                None => MessageId::copy_from_slice(&[]),
            },
            Self::Sha256 => MessageId::copy_from_slice(digest(&SHA256, data).as_ref()),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Sha256 => "sha256",
        }
    }
}

/// The peer id in whose name rust-libp2p identifies messages without an author.
const NO_AUTHOR: &[u8] = &[0, 1, 0];

/// Returns the encoded key in a peer id that is an identity multihash.
fn key_in(id: &[u8]) -> Option<&[u8]> {
    let rest = id.strip_prefix(&[0])?;
    let (len, used) = varint::read(rest).ok()?;
    let key = rest.get(used..)?;
    (!key.is_empty() && u64::try_from(key.len()).ok()? == len).then_some(key)
}

impl From<MessageIdScheme> for NameMessage {
    fn from(scheme: MessageIdScheme) -> Self {
        Arc::new(move |message| scheme.id(message))
    }
}

impl fmt::Display for MessageIdScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl FromStr for MessageIdScheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        let scheme = all.find(|scheme| scheme.text() == text);
        scheme.ok_or_else(|| {
            Error::invalid(
                "message id scheme",
                format!("{text} is none of spec, rust, js, sha256"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use p2p_formats::x509::{PrivateKey, Registry};
    use p2p_swarms::gossipsub::Signing;

    use super::*;
    use crate::Keypair;

    fn signed(seqno: u64) -> (PeerId, Vec<u8>, Message) {
        let key = PrivateKey::ed25519(&[7; 32]);
        let keypair = Keypair::new(&key).expect("an Ed25519 key");
        let signer = Registry::default().signer(&key).expect("a key");
        let signing = Signing::strict(signer.into()).expect("an Ed25519 key");
        let message = signing.make("news", b"data".to_vec().into(), seqno);
        (keypair.peer_id(), keypair.public().encode().to_vec(), message)
    }

    #[test]
    fn each_scheme_is_that_of_its_implementation() {
        let (author, key, message) = signed(258);
        let number = [0, 0, 0, 0, 0, 0, 1, 2];
        let ids = MessageIdScheme::ALL.map(|scheme| scheme.id(&message).to_vec());
        assert_eq!(ids[0], [&author.to_bytes()[..], &number].concat());
        assert_eq!(ids[1], format!("{author}258").into_bytes());
        assert_eq!(ids[2], [&key[..], &number].concat());
        assert_eq!(ids[3], digest(&SHA256, b"data").as_ref());
    }

    #[test]
    fn messages_without_an_author_have_the_id_of_their_data_or_that_of_all_or_none() {
        let message = Message {
            data: Some(b"data".to_vec().into()),
            ..Message::default()
        };
        let ids = MessageIdScheme::ALL.map(|scheme| scheme.id(&message).to_vec());
        assert_eq!(ids[..3], [vec![], b"15R0".to_vec(), vec![]]);
        assert_eq!(ids[3], digest(&SHA256, b"data").as_ref());
    }

    #[test]
    fn the_text_of_a_scheme_parses_back() {
        for scheme in MessageIdScheme::ALL {
            assert_eq!(
                scheme.to_string().parse::<MessageIdScheme>().expect("its text"),
                scheme
            );
        }
        assert!("go".parse::<MessageIdScheme>().is_err());
    }
}
