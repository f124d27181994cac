//! Iterates over protobuf fields without a schema, so that a message is checked before anything is allocated
//! for it.
//!
//! Groups, which are deprecated in protobuf, are refused.

use p2p_formats::varint;

use super::wire::WireError;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint,
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of this schema has this type.
    Fixed,
}

/// A field: its number, its value, and all its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) value: Value<'a>,
    pub(super) whole: &'a [u8],
}

impl<'a> Field<'a> {
    /// Returns the bytes of a field that must be length-delimited.
    pub(super) fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint | Value::Fixed => Err(WireError::Malformed),
        }
    }

    pub(super) fn expect_varint(&self) -> Result<(), WireError> {
        match self.value {
            Value::Varint => Ok(()),
            Value::Bytes(_) | Value::Fixed => Err(WireError::Malformed),
        }
    }
}

/// The fields of a message. The iterator ends after an error.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Option<Field<'a>> {
        let start = self.0;
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => self.varint().map(|_| Value::Varint)?,
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        let (number, whole) = (tag >> 3, start.get(..start.len() - self.0.len())?);
        (number > 0).then_some(Field { number, value, whole })
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, len) = varint::read(self.0).ok()?;
        self.take(len)?;
        Some(value)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(WireError::Malformed))
    }
}
