//! Certificates with a validity period and extensions (RFC 5280): the fields that a verifier needs, and a
//! writer.
//!
//! [`CertificateFields::parse`] checks the structure and verifies nothing: the caller verifies the signature
//! over [`signed`](CertificateFields::signed), the validity period and the extensions.
//! [`write_certificate`] writes a self-signed certificate of any key.
//!
//! Deliberately absent: names, chains and revocation; names are skipped when they are read.

use std::time::Duration;

use ::der::asn1::{GeneralizedTime, UtcTime};
use ::der::{Decode as _, Tag, TagNumber};

use super::ObjectIdentifier;
use super::certificate::{CertificateError, check_len, structure};
use super::der::{BIT_STRING, Elements, INTEGER, SEQUENCE, element, write_algorithm};

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`: the tag of the version.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT`: the tag of the extensions.
const EXTENSIONS: u8 = 0xa3;

/// Maximum number of extensions of a certificate to read.
pub const MAX_EXTENSIONS: usize = 32;

/// An extension of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateExtension<'a> {
    /// Its identifier.
    pub oid: ObjectIdentifier,
    /// Whether a verifier that does not know it must refuse the certificate.
    pub critical: bool,
    /// The contents of its octet string.
    pub value: &'a [u8],
}

/// The fields of a certificate of version 3, none of them verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFields<'a> {
    /// The signed part (`TBSCertificate`), with its tag and length.
    pub signed: &'a [u8],
    /// The contents of the signature algorithm's `AlgorithmIdentifier`, without tag and length.
    pub algorithm: &'a [u8],
    /// The signature over [`signed`](Self::signed).
    pub signature: Vec<u8>,
    /// The start of the validity period, since the Unix epoch.
    pub not_before: Duration,
    /// The end of the validity period, inclusive, since the Unix epoch.
    pub not_after: Duration,
    /// The key (`SubjectPublicKeyInfo`), with its tag and length.
    pub key: &'a [u8],
    /// The contents of the `AlgorithmIdentifier` of the key, without tag and length.
    pub key_algorithm: &'a [u8],
    /// The bits of the key.
    pub key_bits: Vec<u8>,
    /// The extensions, in their order.
    pub extensions: Vec<CertificateExtension<'a>>,
}

impl<'a> CertificateFields<'a> {
    /// Parses a certificate of version 3 in DER.
    ///
    /// # Errors
    /// [`CertificateError::TooLong`] above [`MAX_CERTIFICATE_DER`](super::MAX_CERTIFICATE_DER), [`CertificateError::Der`] for any other
    /// structure than RFC 5280 states, times before 1970, unique identifiers, and more than [`MAX_EXTENSIONS`]
    /// extensions.
    pub fn parse(certificate: &'a [u8]) -> Result<Self, CertificateError> {
        check_len(certificate)?;
        let mut outer = Elements::new(certificate, 0, "a certificate").map_err(structure)?;
        let mut envelope = outer.enter(Tag::Sequence, "a certificate").map_err(structure)?;
        let at = envelope.at();
        let signed = envelope.tlv().map_err(structure)?;
        let algorithm = algorithm(&mut envelope)?;
        let signature = std::mem::take(&mut *envelope.bit_string().map_err(structure)?);
        end(&envelope)?;
        end(&outer)?;

        let mut signed_at = Elements::new(signed, at, "the signed part").map_err(structure)?;
        let mut body = signed_at
            .enter(Tag::Sequence, "the signed part")
            .map_err(structure)?;
        let mut version = body.enter(context(0), "a version of 3").map_err(structure)?;
        let (number, at) = version
            .expect(Tag::Integer, "a version of 3")
            .map_err(structure)?;
        if number != [2] {
            return Err(expected(at, "a version of 3"));
        }
        body.expect(Tag::Integer, "a serial number").map_err(structure)?;
        let at = body.at();
        if self::algorithm(&mut body)? != algorithm {
            return Err(expected(at, "the same signature algorithm as in the envelope"));
        }
        body.expect(Tag::Sequence, "an issuer").map_err(structure)?;
        let mut validity = body
            .enter(Tag::Sequence, "a validity period")
            .map_err(structure)?;
        let not_before = instant(&mut validity)?;
        let not_after = instant(&mut validity)?;
        end(&validity)?;
        body.expect(Tag::Sequence, "a subject").map_err(structure)?;
        let at = body.at();
        let key = body.tlv().map_err(structure)?;
        let mut key_at = Elements::new(key, at, "a key").map_err(structure)?;
        let mut key_fields = key_at.enter(Tag::Sequence, "a key").map_err(structure)?;
        let key_algorithm = self::algorithm(&mut key_fields)?;
        let key_bits = std::mem::take(&mut *key_fields.bit_string().map_err(structure)?);
        end(&key_fields)?;
        let extensions = if body.is_finished() {
            Vec::new()
        } else {
            extensions(&mut body)?
        };
        end(&body)?;
        Ok(Self {
            signed,
            algorithm,
            signature,
            not_before,
            not_after,
            key,
            key_algorithm,
            key_bits,
            extensions,
        })
    }

    /// Returns whether the validity period includes an instant, since the Unix epoch.
    pub fn is_valid_at(&self, now: Duration) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Parses `SEQUENCE { OCTET STRING, OCTET STRING }` with nothing behind it.
///
/// # Errors
/// [`CertificateError::Der`], with the offset in `der`.
pub fn read_octet_pair(der: &[u8]) -> Result<(&[u8], &[u8]), CertificateError> {
    let mut outer = Elements::new(der, 0, "a sequence").map_err(structure)?;
    let mut pair = outer.enter(Tag::Sequence, "a sequence").map_err(structure)?;
    let (first, _) = pair
        .expect(Tag::OctetString, "an octet string")
        .map_err(structure)?;
    let (second, _) = pair
        .expect(Tag::OctetString, "an octet string")
        .map_err(structure)?;
    end(&pair)?;
    end(&outer)?;
    Ok((first, second))
}

/// Encodes `SEQUENCE { OCTET STRING, OCTET STRING }`.
pub fn write_octet_pair(first: &[u8], second: &[u8]) -> Vec<u8> {
    let pair = [element(OCTET_STRING, &[first]), element(OCTET_STRING, &[second])];
    element(SEQUENCE, &[&pair[0], &pair[1]]).to_vec()
}

/// Writes a certificate of the key `key` (`SubjectPublicKeyInfo` in DER), signed by `sign` with `algorithm`.
///
/// It has version 3, no names, a serial number of `serial` made positive, and does not expire (RFC 5280,
/// 4.1.2.5). The algorithm has no parameters.
pub fn write_certificate(
    key: &[u8],
    algorithm: ObjectIdentifier,
    serial: [u8; 16],
    extensions: &[CertificateExtension<'_>],
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let algorithm = write_algorithm(algorithm);
    let mut serial = serial;
    serial[0] = serial[0] & 0x7f | 0x40;
    let name = element(SEQUENCE, &[]);
    let not_before = element(UTC_TIME, &[b"700101000000Z"]);
    let not_after = element(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let extensions = write_extensions(extensions);
    let to_be_signed = element(
        SEQUENCE,
        &[
            &element(VERSION, &[&element(INTEGER, &[&[2]])]),
            &element(INTEGER, &[&serial]),
            &algorithm,
            &name,
            &element(SEQUENCE, &[&not_before, &not_after]),
            &name,
            key,
            &extensions,
        ],
    );
    let signature = element(BIT_STRING, &[&[0], &sign(&to_be_signed)]);
    element(SEQUENCE, &[&to_be_signed, &algorithm, &signature]).to_vec()
}

/// Encodes the element of the extensions, which is absent without any.
fn write_extensions(extensions: &[CertificateExtension<'_>]) -> Vec<u8> {
    if extensions.is_empty() {
        return Vec::new();
    }
    let list: Vec<_> = extensions.iter().map(write_extension).collect();
    let list: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
    element(EXTENSIONS, &[&element(SEQUENCE, &list)]).to_vec()
}

fn write_extension(extension: &CertificateExtension<'_>) -> Vec<u8> {
    let critical = element(BOOLEAN, &[&[0xff]]);
    element(
        SEQUENCE,
        &[
            &element(OID, &[extension.oid.as_bytes()]),
            // DER leaves a default out.
            if extension.critical { &critical } else { &[] },
            &element(OCTET_STRING, &[extension.value]),
        ],
    )
    .to_vec()
}

fn extensions<'a>(body: &mut Elements<'a>) -> Result<Vec<CertificateExtension<'a>>, CertificateError> {
    let mut explicit = body.enter(context(3), "extensions").map_err(structure)?;
    let mut list = explicit.enter(Tag::Sequence, "extensions").map_err(structure)?;
    end(&explicit)?;
    let mut extensions = Vec::new();
    while !list.is_finished() {
        if extensions.len() == MAX_EXTENSIONS {
            return Err(expected(list.at(), "at most 32 extensions"));
        }
        let mut extension = list.enter(Tag::Sequence, "an extension").map_err(structure)?;
        let (oid, at) = extension
            .expect(Tag::ObjectIdentifier, "an object identifier")
            .map_err(structure)?;
        let oid = ObjectIdentifier::from_bytes(oid)
            .map_err(|_| expected(at, "an object identifier of at most 39 bytes"))?;
        let mut critical = false;
        if extension.next_tag() == Some(Tag::Boolean) {
            let (value, at) = extension.expect(Tag::Boolean, "a boolean").map_err(structure)?;
            critical = match value {
                [0xff] => true,
                [0] => false,
                _ => return Err(expected(at, "a boolean")),
            };
        }
        let (value, _) = extension
            .expect(Tag::OctetString, "an octet string")
            .map_err(structure)?;
        end(&extension)?;
        extensions.push(CertificateExtension { oid, critical, value });
    }
    Ok(extensions)
}

/// Returns the contents of an `AlgorithmIdentifier`.
fn algorithm<'a>(elements: &mut Elements<'a>) -> Result<&'a [u8], CertificateError> {
    let (contents, _) = elements
        .expect(Tag::Sequence, "an algorithm identifier")
        .map_err(structure)?;
    Ok(contents)
}

/// Reads a time, as the duration since the Unix epoch.
fn instant(validity: &mut Elements<'_>) -> Result<Duration, CertificateError> {
    let (at, tag) = (validity.at(), validity.next_tag());
    let time = validity.tlv().map_err(structure)?;
    let since_epoch = match tag {
        Some(Tag::UtcTime) => UtcTime::from_der(time).map(|time| time.to_unix_duration()),
        _ => GeneralizedTime::from_der(time).map(|time| time.to_unix_duration()),
    };
    since_epoch.map_err(|_| expected(at, "a time from 1970 on, in UTC with seconds"))
}

fn context(number: u32) -> Tag {
    Tag::ContextSpecific {
        constructed: true,
        number: TagNumber(number),
    }
}

fn end(elements: &Elements<'_>) -> Result<(), CertificateError> {
    if elements.is_finished() {
        Ok(())
    } else {
        Err(expected(elements.at(), "the end"))
    }
}

fn expected(at: usize, expected: &'static str) -> CertificateError {
    CertificateError::Der { at, expected }
}
