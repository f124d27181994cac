//! The DER encoding of keys and certificates: strict, except that it skips the same optional parts as the Go
//! library.

use ::der::asn1::{AnyRef, ObjectIdentifier};
use ::der::{Decode, Reader, SliceReader, Tag};
use zeroize::Zeroizing;

use super::KeyError;
use super::key::MAX_KEY_DER;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;

/// Algorithms with a PKCS#8 encoding that wraps the secret in another octet string (RFC 8410, section 7).
const CURVE_PRIVATE_KEYS: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.101.110"),
    ObjectIdentifier::new_unwrap("1.3.101.111"),
    ObjectIdentifier::new_unwrap("1.3.101.112"),
    ObjectIdentifier::new_unwrap("1.3.101.113"),
];

/// The contents of a public or private key's encoding: the algorithm and the key.
pub(super) type Named = (ObjectIdentifier, Zeroizing<Vec<u8>>);

/// Reads elements one after another, and tracks the offset.
pub(super) struct Elements<'a> {
    reader: SliceReader<'a>,
    /// The offset of this reader's first byte in the whole input.
    base: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(bytes: &'a [u8], base: usize, expected: &'static str) -> Result<Self, KeyError> {
        let reader = SliceReader::new(bytes).map_err(|_| KeyError::Der { at: base, expected })?;
        Ok(Self { reader, base })
    }

    pub(super) fn at(&self) -> usize {
        self.base + usize::try_from(self.reader.position()).unwrap_or(usize::MAX)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    pub(super) fn next_tag(&self) -> Option<Tag> {
        Tag::peek(&self.reader).ok()
    }

    /// Returns the contents of the next element, which must have this tag, and their offset.
    pub(super) fn expect(&mut self, tag: Tag, expected: &'static str) -> Result<(&'a [u8], usize), KeyError> {
        let wrong = KeyError::Der {
            at: self.at(),
            expected,
        };
        match AnyRef::decode(&mut self.reader) {
            Ok(any) if any.header().tag() == tag => {
                let contents = any.value();
                Ok((contents, self.at().saturating_sub(contents.len())))
            }
            _ => Err(wrong),
        }
    }

    /// Returns the next element of any type, with its tag and length.
    pub(super) fn tlv(&mut self) -> Result<&'a [u8], KeyError> {
        let wrong = KeyError::Der {
            at: self.at(),
            expected: "an element",
        };
        self.reader.tlv_bytes().map_err(|_| wrong)
    }

    /// Returns the contents of the next element as elements; unread ones are skipped.
    pub(super) fn enter(&mut self, tag: Tag, expected: &'static str) -> Result<Elements<'a>, KeyError> {
        let (contents, at) = self.expect(tag, expected)?;
        Elements::new(contents, at, expected)
    }

    /// Returns the identifier of an `AlgorithmIdentifier`; its parameters are ignored.
    pub(super) fn algorithm(&mut self) -> Result<ObjectIdentifier, KeyError> {
        let mut identifier = self.enter(Tag::Sequence, "an algorithm identifier")?;
        let (oid, at) = identifier.expect(Tag::ObjectIdentifier, "an object identifier")?;
        ObjectIdentifier::from_bytes(oid).map_err(|_| KeyError::Der {
            at,
            expected: "an object identifier of at most 39 bytes",
        })
    }

    /// Returns a bit string, shifted so that its last bit is the last bit of the last byte.
    pub(super) fn bit_string(&mut self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (contents, at) = self.expect(Tag::BitString, "a bit string")?;
        let wrong = KeyError::Der {
            at,
            expected: "up to 7 unused bits, all zero",
        };
        let Some((&unused, bits)) = contents.split_first() else {
            return Err(wrong);
        };
        let padding = match unused {
            0 => 0,
            1..=7 => bits.last().map_or(0xff, |last| last & ((1 << unused) - 1)),
            _ => 0xff,
        };
        if padding != 0 {
            return Err(wrong);
        }
        let mut shifted = Zeroizing::new(Vec::with_capacity(bits.len()));
        let mut carry = 0;
        for &byte in bits {
            let wide = u16::from_be_bytes([carry, byte]) >> unused;
            shifted.push(wide.to_be_bytes()[1]);
            carry = byte;
        }
        Ok(shifted)
    }
}

/// Returns the only element of `der`, with nothing behind it.
fn whole(der: &[u8]) -> Result<Elements<'_>, KeyError> {
    if der.len() > MAX_KEY_DER {
        return Err(KeyError::TooLong {
            len: der.len(),
            max: MAX_KEY_DER,
        });
    }
    let mut outer = Elements::new(der, 0, "a sequence")?;
    let inner = outer.enter(Tag::Sequence, "a sequence")?;
    if outer.reader.is_finished() {
        Ok(inner)
    } else {
        Err(KeyError::Der {
            at: outer.at(),
            expected: "the end",
        })
    }
}

/// Reads `SEQUENCE { AlgorithmIdentifier, BIT STRING }`: a `SubjectPublicKeyInfo`.
pub(super) fn read_spki(der: &[u8]) -> Result<Named, KeyError> {
    let mut elements = whole(der)?;
    Ok((elements.algorithm()?, elements.bit_string()?))
}

/// Reads a private key: PKCS#8, version 1 or 2, or the structure of a `SubjectPublicKeyInfo` with the secret
/// in it.
pub(super) fn read_private(der: &[u8]) -> Result<Named, KeyError> {
    let mut elements = whole(der)?;
    if elements.next_tag() != Some(Tag::Integer) {
        return Ok((elements.algorithm()?, elements.bit_string()?));
    }
    let (version, at) = elements.expect(Tag::Integer, "a version")?;
    if !matches!(version, [0 | 1]) {
        return Err(KeyError::Der {
            at,
            expected: "version 1 or 2 of PKCS#8",
        });
    }
    let algorithm = elements.algorithm()?;
    let (mut secret, at) = elements.expect(Tag::OctetString, "an octet string")?;
    if CURVE_PRIVATE_KEYS.contains(&algorithm) {
        let mut inner = Elements::new(secret, at, "an octet string")?;
        (secret, _) = inner.expect(Tag::OctetString, "an octet string")?;
        if !inner.reader.is_finished() {
            return Err(KeyError::Der {
                at: inner.at(),
                expected: "the end of the secret",
            });
        }
    }
    Ok((algorithm, Zeroizing::new(secret.to_vec())))
}

/// Writes `SEQUENCE { SEQUENCE { OID }, BIT STRING }` with `key` in the bit string.
pub(super) fn write_spki(algorithm: ObjectIdentifier, key: &[u8]) -> Zeroizing<Vec<u8>> {
    let bits = element(BIT_STRING, &[&[0], key]);
    element(SEQUENCE, &[&write_algorithm(algorithm), &bits])
}

/// Writes PKCS#8, version 1.
pub(super) fn write_pkcs8(algorithm: ObjectIdentifier, secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let version = element(INTEGER, &[&[0]]);
    let mut octets = element(OCTET_STRING, &[secret]);
    if CURVE_PRIVATE_KEYS.contains(&algorithm) {
        octets = element(OCTET_STRING, &[&octets]);
    }
    element(SEQUENCE, &[&version, &write_algorithm(algorithm), &octets])
}

pub(super) fn write_algorithm(algorithm: ObjectIdentifier) -> Zeroizing<Vec<u8>> {
    element(SEQUENCE, &[&element(OID, &[algorithm.as_bytes()])])
}

/// Encodes one element: tag, shortest length, contents. Allocates once, so that no copy of a secret is left
/// behind.
pub(super) fn element(tag: u8, contents: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let len: usize = contents.iter().map(|part| part.len()).sum();
    let mut out = Zeroizing::new(Vec::with_capacity(len + 10));
    out.push(tag);
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = len.to_be_bytes();
        let leading = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - leading) as u8);
        out.extend(bytes.iter().skip(leading));
    }
    for part in contents {
        out.extend_from_slice(part);
    }
    out
}
