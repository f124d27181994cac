//! The encoding of P2PKE version 1: a counter of 4 bytes, then a handshake message or encrypted data.
//!
//! | counter | message | body |
//! | --- | --- | --- |
//! | 0 | `InitHello` | ephemeral key, protobuf, length of the protobuf (16 bits), unencrypted |
//! | 1 | `RespHello` | ephemeral key, protobuf encrypted with the handshake key |
//! | 2 | `InitDone` | protobuf encrypted with the initiator's key |
//! | 3 | `RespDone` | nothing, sealed with the responder's key |
//! | from 16 | data | encrypted with the sender's key |
//!
//! A node without a session for a data packet may answer with a no-session notice ([`no_session`]). It has
//! the form of a `RespDone` that authenticates under no key, so a peer of the Go library drops it. It is
//! never longer than the packet that it answers, and only suggests another handshake.
//!
//! Numbers are big-endian. Encrypted bodies from `InitDone` on have the 4 bytes of the counter as associated
//! data and the counter as the nonce. Counters from 4 to 15 are never sent and are treated as data, as in the
//! Go library.

use p2p_formats::x509::MAX_KEY_DER;

use super::{Error, Tai64N};

/// Length of the counter in front of every message, in bytes.
pub const HEADER: usize = 4;
/// Length of the tag behind every encrypted message, in bytes.
pub const TAG: usize = 16;
/// Bytes that a data message adds to its payload.
pub const OVERHEAD: usize = HEADER + TAG;
/// The counter of the first data message in each direction.
pub const FIRST_DATA: u32 = 16;
/// The limit of counters: only lower ones are used.
pub const COUNTER_LIMIT: u32 = u32::MAX - 1;
/// Maximum payload of one data message in bytes.
pub const MAX_MESSAGE: usize = 65_515;
/// The version in hellos.
pub const VERSION: u32 = 1;

pub(super) const INIT_HELLO: u32 = 0;
pub(super) const RESP_HELLO: u32 = 1;
pub(super) const INIT_DONE: u32 = 2;
pub(super) const RESP_DONE: u32 = 3;

const EPHEMERAL: usize = 32;
/// The end of a no-session notice, after the two counters.
const NO_SESSION: &[u8; TAG - HEADER] = b"no session\0\0";
/// Maximum length of a handshake message in bytes; longer ones are dropped without parsing. Keys and
/// signatures of any registered algorithm fit.
const MAX_HANDSHAKE: usize = 3 * MAX_KEY_DER;

/// Returns the counter of a packet, if it is long enough to have one.
pub fn counter(packet: &[u8]) -> Option<u32> {
    packet.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Returns whether a packet has the counter of the first handshake message.
pub fn is_init_hello(packet: &[u8]) -> bool {
    counter(packet) == Some(INIT_HELLO)
}

/// Returns whether a packet has the counter of a handshake message.
pub fn is_handshake(packet: &[u8]) -> bool {
    counter(packet).is_some_and(|counter| counter <= RESP_DONE)
}

/// Returns whether a packet has the form of a `RespHello`: only these cost the receiver an X25519 operation.
pub(super) fn is_resp_hello(packet: &[u8]) -> bool {
    counter(packet) == Some(RESP_HELLO) && (HEADER + EPHEMERAL + TAG..=MAX_HANDSHAKE).contains(&packet.len())
}

/// Encodes a no-session notice for the data packet with this counter. It has [`OVERHEAD`] bytes, the length
/// of the shortest data packet.
pub fn no_session(counter: u32) -> [u8; OVERHEAD] {
    let mut packet = [0; OVERHEAD];
    let parts = [&RESP_DONE.to_be_bytes()[..], &counter.to_be_bytes(), NO_SESSION];
    for (to, from) in packet.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    packet
}

/// Returns the counter that a [`no_session`] notice answers, if the packet is one. It is not authenticated.
pub fn parse_no_session(packet: &[u8]) -> Option<u32> {
    let (body, tag) = packet.split_at_checked(2 * HEADER)?;
    let answered = counter(body.get(HEADER..)?)?;
    (tag == NO_SESSION && counter(body) == Some(RESP_DONE)).then_some(answered)
}

/// An `InitHello` of valid form. It is not authenticated.
#[derive(Clone, Copy, Debug)]
pub struct InitHello<'a> {
    /// The whole packet.
    pub packet: &'a [u8],
    /// The time stamp that the initiator claims.
    pub timestamp: Tai64N,
    /// The initiator's public key in DER.
    pub key: &'a [u8],
    /// The initiator's signature of the time stamp.
    pub signature: &'a [u8],
}

impl<'a> InitHello<'a> {
    /// Parses a whole packet. Performs no public-key operation and no allocation.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Error> {
        let payload = body(packet, INIT_HELLO)?
            .get(EPHEMERAL..)
            .ok_or(Error::Malformed("a hello without an ephemeral key"))?;
        let (message, len) = payload
            .split_last_chunk::<2>()
            .ok_or(Error::Malformed("a hello without a length"))?;
        if usize::from(u16::from_be_bytes(*len)) != message.len() {
            return Err(Error::Malformed("a hello with a wrong length"));
        }
        let mut version = 0;
        let [mut timestamp, mut key, mut signature] = [&[][..]; 3];
        for field in Fields(message) {
            match field? {
                (1, Value::Number(value)) => {
                    version =
                        u32::try_from(value).map_err(|_| Error::Malformed("a version beyond 32 bits"))?;
                }
                (2, Value::Bytes(bytes)) => timestamp = bytes,
                (3, Value::Bytes(bytes)) => key = bytes,
                (4, Value::Bytes(bytes)) => signature = bytes,
                _ => {}
            }
        }
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let timestamp = timestamp
            .try_into()
            .map_err(|_| Error::Malformed("a time stamp without exactly 12 bytes"))?;
        Ok(Self {
            packet,
            timestamp: Tai64N::from_bytes(timestamp),
            key,
            signature,
        })
    }

    /// Encodes the payload of the Noise message behind the ephemeral key.
    pub(super) fn payload(timestamp: Tai64N, key: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut out = vec![1 << 3, VERSION as u8];
        put_bytes(&mut out, 2, timestamp.as_bytes());
        put_bytes(&mut out, 3, key);
        put_bytes(&mut out, 4, signature);
        let len = out.len() as u16;
        out.extend(len.to_be_bytes());
        out
    }
}

/// The contents of a decrypted `RespHello`.
#[derive(Debug)]
pub(super) struct RespHello<'a> {
    pub(super) key: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> RespHello<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, Error> {
        let [mut key, mut signature] = [&[][..]; 2];
        for field in Fields(message) {
            match field? {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(bytes)) => signature = bytes,
                _ => {}
            }
        }
        Ok(Self { key, signature })
    }

    pub(super) fn payload(key: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, key);
        put_bytes(&mut out, 2, signature);
        out
    }
}

/// Returns the signature in a decrypted `InitDone`.
pub(super) fn parse_init_done(message: &[u8]) -> Result<&[u8], Error> {
    let mut signature = &[][..];
    for field in Fields(message) {
        if let (1, Value::Bytes(bytes)) = field? {
            signature = bytes;
        }
    }
    Ok(signature)
}

pub(super) fn init_done(signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, signature);
    out
}

/// Returns the body of a handshake message, which must have the `expected` counter.
pub(super) fn body(packet: &[u8], expected: u32) -> Result<&[u8], Error> {
    if packet.len() > MAX_HANDSHAKE {
        return Err(Error::Malformed("a handshake message too long to parse"));
    }
    match packet.split_first_chunk() {
        Some((counter, body)) if u32::from_be_bytes(*counter) == expected => Ok(body),
        _ => Err(Error::Malformed("another message")),
    }
}

/// A value of a protobuf field.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Eight or four bytes; no message here has this type.
    Fixed,
}

/// The fields of a protobuf message; the iterator ends after the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.number()?;
                Value::Bytes(self.bytes(usize::try_from(len).ok()?)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        (key >> 3 != 0).then_some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Error::Malformed("not a protobuf message")))
    }
}

/// Appends a bytes field.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Generates bytes that are nearly messages: fields with small numbers and any type.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let field = (1..6u8, 0..8u8, proptest::collection::vec(any::<u8>(), 0..12)).prop_map(
            |(number, kind, bytes)| match kind {
                0..4 => {
                    let mut out = Vec::new();
                    put_bytes(&mut out, number, &bytes);
                    out
                }
                _ => [&[number << 3 | kind][..], &bytes].concat(),
            },
        );
        proptest::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
    }

    fn within(part: &[u8], whole: &[u8]) -> bool {
        part.is_empty() || whole.windows(part.len()).any(|window| window == part)
    }

    proptest! {
        #[test]
        fn any_decrypted_payload_parses_into_its_own_bytes_or_an_error(
            bytes in prop_oneof![nearly(), proptest::collection::vec(any::<u8>(), 0..80)],
        ) {
            if let Ok(RespHello { key, signature }) = RespHello::parse(&bytes) {
                prop_assert!(within(key, &bytes) && within(signature, &bytes));
            }
            if let Ok(signature) = parse_init_done(&bytes) {
                prop_assert!(within(signature, &bytes));
            }
        }

        #[test]
        fn encoding_and_parsing_round_trip(key: Vec<u8>, signature: Vec<u8>) {
            let payload = RespHello::payload(&key, &signature);
            let read = RespHello::parse(&payload).map(|read| (read.key, read.signature));
            prop_assert_eq!(read.ok(), Some((&key[..], &signature[..])));
            let done = init_done(&signature);
            prop_assert_eq!(parse_init_done(&done).ok(), Some(&signature[..]));
        }
    }
}
