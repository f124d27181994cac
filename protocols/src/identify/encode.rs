//! Writes one message, and leaves out what does not fit.

use std::iter;

use bytes::{BufMut as _, Bytes, BytesMut};
use p2p_formats::varint;

use super::error::EncodeError;
use super::field;
use super::info::Info;
use crate::protobuf::{field_len, put_field};

/// Maximum length in bytes of a message that this side sends, without the length in front of it.
pub const MAX_SENT: usize = 4096;

/// A message, and what was left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The message with its length in front: everything that a stream carries.
    pub bytes: Bytes,
    /// Number of protocols that did not fit: the last ones of [`Info::protocols`].
    pub omitted_protocols: usize,
    /// Number of addresses that did not fit: the last ones of [`Info::listen_addrs`].
    pub omitted_addrs: usize,
    /// Whether the signed peer record did not fit.
    pub omitted_record: bool,
}

impl Info {
    /// Encodes one message of at most [`MAX_SENT`] bytes.
    ///
    /// The fields take room in this order: the key, the versions and the observed address; the protocols in
    /// their order, up to the first that does not fit; the addresses likewise; the signed peer record. So put
    /// the most important protocols and addresses first.
    ///
    /// # Errors
    /// [`EncodeError`] if the fields that are always sent do not fit.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let version = self.protocol_version.as_deref().map(str::as_bytes);
        let agent = self.agent_version.as_deref().map(str::as_bytes);
        let (key, observed) = (self.public_key.as_deref(), self.observed_addr.as_deref());
        let always = [key, observed, version, agent];
        let mut len: usize = always.into_iter().flatten().map(field_len).sum();
        if len > MAX_SENT {
            return Err(EncodeError { len, max: MAX_SENT });
        }
        let protocols = take(&self.protocols, String::as_bytes, &mut len);
        let addrs = take(&self.listen_addrs, |addr| addr, &mut len);
        let record = take(self.signed_peer_record.as_slice(), |record| record, &mut len);

        let mut bytes = BytesMut::with_capacity(varint::len(len as u64) + len);
        bytes.put_slice(varint::write(len as u64, &mut [0; varint::MAX_LEN]));
        let one = |number, value| iter::repeat(number).zip::<Option<&[u8]>>(value);
        let addrs_of = addrs.iter().map(|addr| (field::LISTEN_ADDR, &addr[..]));
        let protocols_of = protocols
            .iter()
            .map(|protocol| (field::PROTOCOL, protocol.as_bytes()));
        let fields = one(field::PUBLIC_KEY, key)
            .chain(addrs_of)
            .chain(protocols_of)
            .chain(one(field::OBSERVED_ADDR, observed))
            .chain(one(field::PROTOCOL_VERSION, version))
            .chain(one(field::AGENT_VERSION, agent))
            .chain(one(
                field::SIGNED_PEER_RECORD,
                record.first().map(|record| &record[..]),
            ));
        for (number, value) in fields {
            put_field(&mut bytes, number, value);
        }
        Ok(Encoded {
            bytes: bytes.freeze(),
            omitted_protocols: self.protocols.len() - protocols.len(),
            omitted_addrs: self.listen_addrs.len() - addrs.len(),
            omitted_record: self.signed_peer_record.is_some() && record.is_empty(),
        })
    }
}

/// Returns the first values that fit beside `len` bytes, and adds their length to it.
fn take<'a, T>(values: &'a [T], bytes: impl Fn(&T) -> &[u8], len: &mut usize) -> &'a [T] {
    let mut count = 0;
    for value in values {
        let more = len.saturating_add(field_len(bytes(value)));
        if more > MAX_SENT {
            break;
        }
        (*len, count) = (more, count + 1);
    }
    values.get(..count).unwrap_or_default()
}
