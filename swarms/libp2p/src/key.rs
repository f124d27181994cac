//! Public keys of peers and the key pair of a host (libp2p specification, peer-ids).
//!
//! A [`PublicKey`] is a type and bytes. Its encoding is one protobuf message whose fields are both present and
//! in order, so that a key has one encoding and one [`PeerId`]. Keys of all four types verify signatures: the
//! ciphers are those of aws-lc-rs, so no second cipher library is built. A host's own key is Ed25519.
//!
//! # Limits
//! A key's data has at most [`MAX_KEY`] bytes. RSA keys have 2048 to 8192 bits; other sizes verify nothing.

mod verify;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_formats::varint;
use p2p_formats::x509::{Ed25519, PrivateKey, Registry, Signer};

/// Maximum length of the data of a key in bytes: an RSA key of 8192 bits in DER has about 1050.
pub const MAX_KEY: usize = 2048;

/// Maximum length of an encoded key whose peer id contains it, in bytes.
const MAX_INLINE: usize = 42;
/// The codes of multihashes: the bytes themselves, and SHA-256.
const IDENTITY: u8 = 0x00;
const SHA2_256: u8 = 0x12;

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyType {
    /// RSA with 2048 to 8192 bits; signatures are PKCS#1 v1.5 with SHA-256.
    Rsa,
    /// Ed25519.
    Ed25519,
    /// ECDSA on secp256k1 with SHA-256.
    Secp256k1,
    /// ECDSA on P-256, P-384 or P-521 with SHA-256.
    Ecdsa,
}

impl KeyType {
    fn from_code(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Rsa,
            1 => Self::Ed25519,
            2 => Self::Secp256k1,
            3 => Self::Ecdsa,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::Rsa => 0,
            Self::Ed25519 => 1,
            Self::Secp256k1 => 2,
            Self::Ecdsa => 3,
        }
    }
}

/// The reason for which bytes are not a public key, or a signature is invalid. No state changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes are not the one encoding of a key.
    #[error("not a public key: at byte {at}, expected {expected}")]
    Encoding {
        /// Offset of the first invalid byte.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// The type of the key is unknown.
    #[error("{0} is not the type of a public key")]
    UnknownType(u64),
    /// The length of the data is invalid for the key's type.
    #[error("{len} bytes are not a public key of type {key_type:?}")]
    Length {
        /// The type of the key.
        key_type: KeyType,
        /// The length of its data in bytes.
        len: usize,
    },
    /// The signature is not by this key over this message.
    #[error("the signature is not valid")]
    BadSignature,
}

/// A peer's public key. `AsRef<[u8]>` returns its protobuf encoding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    key_type: KeyType,
    encoded: Box<[u8]>,
    /// Offset of the data in `encoded`.
    data_at: usize,
}

impl PublicKey {
    /// Creates a key from its data: 32 bytes for Ed25519, 33 for secp256k1, a `SubjectPublicKeyInfo` in DER for
    /// others.
    ///
    /// # Errors
    /// [`KeyError::Length`] for data of another length.
    pub fn new(key_type: KeyType, data: &[u8]) -> Result<Self, KeyError> {
        let fits = match key_type {
            KeyType::Ed25519 => data.len() == 32,
            KeyType::Secp256k1 => data.len() == 33,
            KeyType::Rsa | KeyType::Ecdsa => (1..=MAX_KEY).contains(&data.len()),
        };
        if !fits {
            let len = data.len();
            return Err(KeyError::Length { key_type, len });
        }
        let mut length = [0; varint::MAX_LEN];
        let length = varint::write(data.len() as u64, &mut length);
        let encoded = [&[TYPE, key_type.code(), DATA], length, data].concat();
        Ok(Self {
            key_type,
            data_at: encoded.len() - data.len(),
            encoded: encoded.into(),
        })
    }

    /// Parses the protobuf encoding: both fields, in order, in their shortest form, and nothing else.
    ///
    /// # Errors
    /// Any [`KeyError`] but [`KeyError::BadSignature`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let expected = |at, expected| KeyError::Encoding { at, expected };
        let mut at = 0;
        let mut number = |tag: Option<u8>, what| {
            let rest = bytes.get(at..).unwrap_or_default();
            let rest = match tag {
                Some(tag) if rest.first() == Some(&tag) => rest.get(1..).unwrap_or_default(),
                Some(_) => return Err(expected(at, what)),
                None => rest,
            };
            at += usize::from(tag.is_some());
            match varint::read(rest) {
                Ok((value, len)) if len == varint::len(value) => {
                    at += len;
                    Ok(value)
                }
                _ => Err(expected(at, "a number in its shortest form")),
            }
        };
        let code = number(Some(TYPE), "the type of the key")?;
        let length = number(Some(DATA), "the data of the key")?;
        let data = bytes.get(at..).unwrap_or_default();
        if data.len() as u64 != length {
            return Err(expected(at, "as many bytes as the length states"));
        }
        let key_type = KeyType::from_code(code).ok_or(KeyError::UnknownType(code))?;
        Self::new(key_type, data)
    }

    /// Returns the protobuf encoding.
    pub fn encode(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the type of the key.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Returns the data of the key; see [`new`](Self::new).
    pub fn data(&self) -> &[u8] {
        self.encoded.get(self.data_at..).unwrap_or_default()
    }

    /// Returns the peer id: the encoding itself up to 42 bytes, its SHA-256 hash above.
    pub fn peer_id(&self) -> PeerId {
        let digest;
        let (code, hash) = if self.encoded.len() <= MAX_INLINE {
            (IDENTITY, &*self.encoded)
        } else {
            digest = aws_lc_rs::digest::digest(&SHA256, &self.encoded);
            (SHA2_256, digest.as_ref())
        };
        let mut bytes = vec![code, hash.len() as u8];
        bytes.extend_from_slice(hash);
        PeerId::from_bytes(&bytes)
            .unwrap_or_else(|_| unreachable!("the code and the length are those of a peer id"))
    }

    /// Verifies that `signature` is this key's signature of `message`.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`], also for a key that its algorithm rejects.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        verify::verify(self.key_type, self.data(), message, signature)
    }
}

/// The tags of the two fields.
const TYPE: u8 = 0x08;
const DATA: u8 = 0x12;

impl AsRef<[u8]> for PublicKey {
    fn as_ref(&self) -> &[u8] {
        &self.encoded
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?} of {})", self.key_type, self.peer_id())
    }
}

/// Returns the identity of a libp2p peer in this framework: the SHA-256 hash of the bytes of its peer id.
///
/// It is the peer's key in libp2p's Kademlia, so distances between identities are those of libp2p.
pub fn identity(peer: &PeerId) -> p2p::PeerId {
    sha256(&peer.to_bytes())
}

/// Returns the SHA-256 hash of some bytes, which is the place of a key in libp2p's Kademlia.
pub(crate) fn sha256(bytes: &[u8]) -> p2p::PeerId {
    let hash = digest(&SHA256, bytes);
    p2p::PeerId::new(hash.as_ref().first_chunk().copied().unwrap_or_default())
}

/// Returns the identity of the host with this key, as a [`Fingerprint`](p2p_formats::x509::Fingerprint) for layers above.
/// For a key that is not Ed25519, and so of no host, returns the SHA-256 hash of its `SubjectPublicKeyInfo`.
pub fn fingerprint(key: &p2p_formats::x509::PublicKey) -> p2p::PeerId {
    if key.algorithm() == Ed25519::OID
        && let Ok(key) = PublicKey::new(KeyType::Ed25519, key.key_bytes())
    {
        return identity(&key.peer_id());
    }
    sha256(key.as_der())
}

/// The key pair of a host: an Ed25519 key with its peer id.
pub struct Keypair {
    signer: Box<dyn Signer>,
    public: PublicKey,
    peer_id: PeerId,
    id: p2p::PeerId,
}

impl Keypair {
    /// Loads a private key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not Ed25519.
    pub fn new(private: &PrivateKey) -> Result<Self> {
        if private.algorithm() != Ed25519::OID {
            return Err(Error::invalid("key", "a host signs with Ed25519 only"));
        }
        let signer = Registry::default().signer(private)?;
        let public = PublicKey::new(KeyType::Ed25519, signer.public_key().key_bytes())
            .map_err(|error| Error::invalid("key", error.to_string()))?;
        let peer_id = public.peer_id();
        Ok(Self {
            id: identity(&peer_id),
            signer,
            public,
            peer_id,
        })
    }

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the libp2p peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Returns the identity in this framework; see [`identity`].
    pub fn id(&self) -> p2p::PeerId {
        self.id
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message)
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair(of {})", self.peer_id)
    }
}
