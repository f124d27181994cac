//! Iterates over protobuf fields without a schema, so that a message is checked before anything is allocated
//! for it; and writes fields.
//!
//! Groups, which are deprecated in protobuf, are refused.

use bytes::BufMut;
use p2p_formats::varint;

/// The reason for which bytes are not protobuf of a schema: they end within a field, a tag is invalid, or a
/// field has another type than the schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Offset of the field in bytes.
    pub(crate) at: usize,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of these schemas has this type.
    Fixed,
}

/// A field: its number, its value, and all its bytes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "ciphers"),
    expect(dead_code, reason = "only gossipsub reads all fields")
)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    pub(crate) whole: &'a [u8],
    /// Offset of the field in bytes.
    pub(crate) at: usize,
}

impl<'a> Field<'a> {
    /// Returns the bytes of a field that must be length-delimited.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed => Err(Malformed { at: self.at }),
        }
    }

    /// Returns the number of a field that must be a varint.
    pub(crate) fn varint(&self) -> Result<u64, Malformed> {
        match self.value {
            Value::Varint(number) => Ok(number),
            Value::Bytes(_) | Value::Fixed => Err(Malformed { at: self.at }),
        }
    }
}

/// The fields of a message. The iterator ends after an error.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self {
            rest: message,
            len: message.len(),
        }
    }

    fn read(&mut self, at: usize) -> Option<Field<'a>> {
        let start = self.rest;
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        let (number, whole) = (tag >> 3, start.get(..start.len() - self.rest.len())?);
        (number > 0).then_some(Field {
            number,
            value,
            whole,
            at,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, len) = varint::read(self.rest).ok()?;
        self.take(len)?;
        Some(value)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.len - self.rest.len();
        let field = self.read(at);
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed { at }))
    }
}

/// Returns the encoded length of a bytes field with a number below 16.
pub(crate) fn field_len(bytes: &[u8]) -> usize {
    1 + varint::len(bytes.len() as u64) + bytes.len()
}

/// Appends a bytes field with a number below 16.
pub(crate) fn put_field(out: &mut impl BufMut, number: u8, bytes: &[u8]) {
    out.put_u8(number << 3 | 2);
    out.put_slice(varint::write(bytes.len() as u64, &mut [0; varint::MAX_LEN]));
    out.put_slice(bytes);
}

/// Appends a varint field with a number below 16, unless it has the default value 0.
pub(crate) fn put_number(out: &mut impl BufMut, number: u8, value: u64) {
    if value > 0 {
        out.put_u8(number << 3);
        out.put_slice(varint::write(value, &mut [0; varint::MAX_LEN]));
    }
}
